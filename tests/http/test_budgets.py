"""Budgets in an app: money is reserved before the view, settled after it, and a spent budget is told as OpenAI does."""

import threading

import anthropic
import httpx2
import openai
import pytest
from flask import Flask, Response

from flask_ailimit import AILimiter, ConfigurationError, usage_settled
from flask_ailimit.money import Money
from flask_ailimit.testing import ManualClock

PRICES = {
    "large-*": {"input": "2.50 USD", "cached_input": "1.25 USD", "output": "10.00 USD"},
    "small-*": {"input": "0.10 USD", "output": "0.40 USD"},
}
USED = {"prompt_tokens": 100, "completion_tokens": 200}
"""Costs 2,250,000 nano-dollars of a large model: 100 * 2,500 and 200 * 10,000."""

COST = 2_250_000
ACCEPTED = {"accept_money_loss": True}


class Shop:
    """An app of one customer whose plan has a budget."""

    def __init__(self, budget, *, plan=None, prices=PRICES, clock=None, service=None, **options):
        plans = {"default_plan": "pro", "plans": {"pro": {**({"budget": budget} if budget else {}), **(plan or {})}}}
        if prices is not None:
            plans["prices"] = prices
        if service is not None:
            plans["service"] = service
        self.app = Flask(__name__)
        self.clock = clock or ManualClock()
        self.limiter = AILimiter(
            lambda: "ann", app=self.app, plans=plans, storage_uri="memory://", clock=self.clock, plan_everywhere=True,
            **{**ACCEPTED, **options},
        )  # fmt: skip
        self.before_answer = lambda: None
        self.answer = {"choices": [], "usage": USED}
        self.calls = 0
        self.app.add_url_rule("/usage", view_func=self.limiter.usage_view)
        self.app.add_url_rule("/v1/chat/completions", view_func=self._chat, methods=["POST"])
        self.app.add_url_rule("/v1/messages", view_func=self._chat, methods=["POST"], endpoint="messages")
        self.events = []
        usage_settled.connect(self._settled, self.app)

    def _settled(self, sender, **facts):
        self.events.append(facts)

    def _chat(self):
        self.calls += 1
        return self.before_answer() or self.answer

    def ask(self, model="large-1", max_tokens=300, **fields):
        body = {"max_tokens": max_tokens, "messages": [{"role": "user", "content": "hi"}], **fields}
        body |= {} if model is None else {"model": model}
        return self.app.test_client().post("/v1/chat/completions", json=body)

    @property
    def budget(self):
        (limit,) = (each for each in self.app.test_client().get("/usage").json["limits"] if "budget" in each)
        return limit["budget"]

    @property
    def spent(self):
        return self.budget["spent"]


def test_request_costs_what_its_model_s_price_says():
    shop = Shop("1 USD per calendar month")
    assert shop.ask().status_code == 200
    assert shop.spent == "0.00225"
    assert shop.ask("small-1").status_code == 200
    assert shop.spent == "0.00234"


def test_settlement_is_told_with_its_cost_its_price_and_its_rates():
    shop = Shop("1 USD per calendar month")
    shop.ask()
    cost = shop.events[-1]["cost"]
    assert (cost.nano, cost.currency, cost.price, cost.source) == (COST, "USD", "large-*", "own table")
    assert dict(cost.rates) == {"cached_input": "1.25", "input": "2.5", "output": "10"}
    assert shop.events[-1]["charged"]["nano_usd"] == COST


def test_cost_is_told_where_no_limit_is_on_money():
    app = Flask(__name__)
    limiter = AILimiter(
        lambda: "ann", app=app, default_token_limits=["1000 per minute"], prices=PRICES, storage_uri="memory://"
    )
    events = []

    def settled(sender, **facts):
        events.append(facts)

    usage_settled.connect(settled, app)
    app.add_url_rule("/", view_func=lambda: {"usage": USED}, methods=["POST"])
    app.test_client().post("/", json={"model": "large-1", "max_tokens": 1})
    assert limiter.app_state.prices is not None
    assert events[-1]["cost"].nano == COST


def test_cached_input_is_paid_once_and_by_its_own_rate():
    shop = Shop("1 USD per calendar month")
    shop.answer = {"usage": {**USED, "prompt_tokens_details": {"cached_tokens": 80}}}
    shop.ask()
    assert shop.spent == "0.00215"  # 20 * 2,500 + 80 * 1,250 + 200 * 10,000


def test_tier_that_the_answer_names_has_its_own_rates():
    prices = {"large-*": {"input": "2.50 USD", "output": "10 USD", "tiers": {"batch": 0.5}}}
    shop = Shop("1 USD per calendar month", prices=prices)
    shop.answer = {"usage": USED, "service_tier": "batch"}
    shop.ask()
    assert shop.spent == "0.001125"


def test_spent_budget_is_told_as_openai_tells_it():
    shop = Shop("0.006 USD per calendar month")
    assert [shop.ask().status_code for _ in range(3)] == [200, 200, 429]
    refused = shop.ask()
    assert refused.headers["x-should-retry"] == "false"
    assert "Retry-After" not in refused.headers
    assert "retry-after-ms" not in refused.headers
    error = refused.json["error"]
    assert error["code"] == "insufficient_quota"
    assert error["limit"]["resets"] == "2024-11-01T00:00:00+00:00"
    assert error["limit"]["zone"] == "UTC"
    assert error["limit"]["retry_after"] is None
    for told in (
        "0.0045 of 0.006 USD spent",
        "0.00 USD reserved",
        "0.0015 USD left",
        "2024-11-01T00:00:00+00:00 (UTC)",
    ):
        assert told in error["message"]
    assert (shop.calls, shop.spent) == (2, "0.0045")


def test_refused_request_charges_nothing_and_the_next_window_begins_with_nothing():
    shop = Shop("0.006 USD per calendar day")
    assert [shop.ask().status_code for _ in range(3)] == [200, 200, 429]
    shop.clock.advance(86400)
    assert shop.spent == "0.00"
    assert shop.ask().status_code == 200


def test_what_was_spent_beyond_a_budget_does_not_shorten_the_next_one():
    shop = Shop("0.006 USD per calendar day")
    shop.answer = {"usage": {"prompt_tokens": 100, "completion_tokens": 20_000}}
    assert shop.ask().status_code == 200
    assert shop.spent == "0.20025"
    assert shop.ask().status_code == 429
    shop.clock.advance(86400)
    assert shop.budget["left"] == "0.006"


@pytest.mark.parametrize("error_format", ["hybrid", "openai", "anthropic"])
def test_sdks_send_a_request_to_a_spent_budget_once(error_format):
    shop = Shop("0.000001 USD per calendar month", error_format=error_format)
    assert shop.ask().status_code == 413, "it never fits, whoever asks"
    shop = Shop("0.0031 USD per calendar month", error_format=error_format)
    shop.ask()
    sent = []

    class Sends(httpx2.WSGITransport):
        def handle_request(self, request):
            sent.append(request)
            return super().handle_request(request)

    web = httpx2.Client(transport=Sends(app=shop.app))
    client = openai.OpenAI(base_url="http://shop.test/v1", api_key="k", http_client=web)
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="large-1", max_tokens=300, messages=[{"role": "user", "content": "hi"}])
    assert len(sent) == 1
    if error_format != "anthropic":
        assert caught.value.code == "insufficient_quota"
    claude = anthropic.Anthropic(base_url="http://shop.test", api_key="k", http_client=web)
    with pytest.raises(anthropic.RateLimitError) as told:
        claude.messages.create(model="large-1", max_tokens=300, messages=[{"role": "user", "content": "hi"}])
    assert len(sent) == 2
    if error_format == "anthropic":
        assert isinstance(told.value, anthropic.EnforcedSpendLimitReachedError)


def test_what_is_reserved_by_other_calls_is_an_ordinary_wait():
    shop = Shop("0.006 USD per calendar month")
    inside, go_on = threading.Event(), threading.Event()

    def wait():
        inside.set()
        assert go_on.wait(10)

    shop.before_answer = wait
    first = threading.Thread(target=shop.ask)
    first.start()
    assert inside.wait(10)
    refused = shop.ask()
    go_on.set()
    first.join()
    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == "5"
    assert "x-should-retry" not in refused.headers
    assert refused.json["error"]["code"] == "rate_limit_exceeded"
    assert "0.0030225 USD reserved" in refused.json["error"]["message"]
    shop.before_answer = lambda: None
    assert shop.ask().status_code == 200


def test_request_that_costs_more_than_the_whole_budget_never_fits():
    refused = Shop("0.001 USD per calendar month").ask()
    assert refused.status_code == 413
    assert refused.json["error"]["code"] == "cost_exceeds_limit"
    assert "lower max_tokens" in refused.json["error"]["message"]


def test_guess_of_the_output_is_cut_to_the_whole_budget():
    shop = Shop("0.003 USD per calendar month")  # 1,024 output tokens would cost 0.01024.
    assert shop.ask(max_tokens=None).status_code == 200
    refused = shop.ask(max_tokens=None)
    assert refused.status_code == 429
    assert "send max_tokens" in refused.json["error"]["message"]


@pytest.mark.parametrize("model", ["unknown-1", None, "x" * 300])
def test_model_without_a_price_is_refused_and_charged_nothing(model):
    shop = Shop("1 USD per calendar month")
    refused = shop.ask(model)
    assert (refused.status_code, refused.json["error"]["code"]) == (403, "model_not_priced")
    assert refused.headers["x-should-retry"] == "false"
    assert "unknown-1" not in refused.text
    assert (shop.calls, shop.spent) == (0, "0.00")


def test_model_without_a_price_may_be_free_or_cost_what_another_costs():
    free = Shop("1 USD per calendar month", plan={"unknown_price": "free"})
    assert free.ask("unknown-1").status_code == 200
    assert free.spent == "0.00"
    other = Shop("1 USD per calendar month", plan={"unknown_price": {"price_as": "large-9"}})
    assert other.ask("unknown-1").status_code == 200
    assert other.spent == "0.00225"


def test_price_is_that_of_the_model_that_is_sent_on():
    shop = Shop("1 USD per calendar month")
    shop.before_answer = lambda: shop.limiter.set_model("small-1")
    assert shop.ask("large-1").status_code == 200
    assert shop.spent == "0.00009"
    assert shop.events[-1]["cost"].price == "small-*"


def test_model_that_is_named_before_the_view_is_what_is_reserved_for():
    shop = Shop("1 USD per calendar month")
    shop.app.before_request(lambda: shop.limiter.set_model("small-1"))
    answer = shop.ask("no such model")
    assert answer.status_code == 200
    assert 'reserved="0.00012' in answer.headers["x-ratelimit-budget"]


@pytest.mark.parametrize("model", ["", "x" * 257, 7, None])
def test_name_that_can_t_be_a_model_is_refused(model):
    shop = Shop("1 USD per calendar month")
    with shop.app.test_request_context(), pytest.raises(ValueError, match="model"):
        shop.limiter.set_model(model)


def test_calls_of_several_models_are_paid_each_by_its_own_price():
    shop = Shop("1 USD per calendar month")

    def call_two():
        shop.limiter.record_usage(input_tokens=100, output_tokens=200)
        shop.limiter.set_model("small-1")
        shop.limiter.record_usage(input_tokens=100, output_tokens=200)

    shop.before_answer = call_two
    shop.ask()
    assert shop.spent == "0.00234"
    assert shop.events[-1]["cost"].price == "large-*, small-*"


@pytest.mark.parametrize("cost", ["0.07 USD", Money(70_000_000, "USD")])
def test_cost_that_the_app_records_comes_before_the_price(cost):
    shop = Shop("1 USD per calendar month")
    shop.before_answer = lambda: shop.limiter.record_usage(input_tokens=100, output_tokens=200, cost=cost)
    shop.ask()
    assert shop.spent == "0.07"
    assert shop.events[-1]["cost"].source == "recorded"


@pytest.mark.parametrize("cost", ["0.07", "a lot", 0.07, "-1 USD", "1e-3 USD"])
def test_cost_that_is_no_amount_is_an_error_of_the_app(cost):
    shop = Shop("1 USD per calendar month")
    with shop.app.test_request_context(), pytest.raises(ValueError, match="cost"):
        shop.limiter.record_usage(cost=cost)


def test_app_s_own_function_names_the_cost():
    shop = Shop("1 USD per calendar month", cost_of=lambda usage, model: f"0.00{usage.output_tokens} USD")
    shop.ask("unknown-1", 300)
    assert shop.spent == "0.00200"[:-2]


def test_function_that_fails_leaves_the_price(caplog):
    def fails(usage, model):
        raise RuntimeError("sk-secret")

    shop = Shop("1 USD per calendar month", cost_of=fails)
    assert shop.ask().status_code == 200
    assert shop.spent == "0.00225"
    assert "cost_of" in caplog.text
    assert "sk-secret" not in caplog.text


def test_usage_after_the_answer_was_settled_is_paid_too():
    shop = Shop("1 USD per calendar month")

    def stream():
        yield 'data: {"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 200}}\n\n'
        yield "data: [DONE]\n\n"

    shop.before_answer = lambda: Response(stream(), mimetype="text/event-stream")
    answer = shop.ask(stream=True)
    assert answer.text.endswith("[DONE]\n\n")
    assert shop.spent == "0.00225"


def test_failed_request_costs_nothing():
    shop = Shop("1 USD per calendar month")
    shop.before_answer = lambda: ({"error": "no"}, 500)
    assert shop.ask().status_code == 500
    assert shop.spent == "0.00"


def test_work_that_is_handed_over_is_paid_by_the_same_price():
    shop = Shop("1 USD per calendar month")
    tokens = []

    def hand_over():
        shop.limiter.set_model("small-1")
        shop.limiter.record_usage(input_tokens=100, output_tokens=0)
        tokens.append(shop.limiter.hand_over())
        return {"queued": True}, 202

    shop.before_answer = hand_over
    assert shop.ask().status_code == 202
    with shop.app.app_context():
        work = shop.limiter.take_over(tokens[0])
        work.record_usage(output_tokens=200)
        assert work.settle()
    assert shop.spent == "0.00009"
    assert shop.events[-1]["cost"].price == "small-*"


def test_month_of_a_plan_begins_on_its_day_in_its_zone():
    clock = ManualClock(1_734_389_999_000_000)  # 2024-12-16 23:59:59 in Berlin.
    calendar = {"zone": "Europe/Berlin", "month_starts": 17}
    shop = Shop("0.006 USD per calendar month", plan={"calendar": calendar}, clock=clock)
    assert [shop.ask().status_code for _ in range(3)] == [200, 200, 429]
    assert shop.budget["resets"] == "2024-12-17T00:00:00+01:00"
    clock.advance(1)
    assert shop.ask().status_code == 200
    assert shop.budget["resets"] == "2025-01-17T00:00:00+01:00"


def test_weights_make_cached_tokens_cheap_and_output_dear():
    weights = {"cached_input_tokens": 0.1, "output_tokens": 5}
    shop = Shop("1 USD per calendar month", plan={"tokens": "100000 per calendar day", "weights": weights})
    shop.answer = {"usage": {**USED, "prompt_tokens_details": {"cached_tokens": 75}}}
    assert shop.ask().status_code == 200
    limits = shop.app.test_client().get("/usage").json["limits"]
    (tokens,) = (each for each in limits if each["unit"] == "tokens")
    assert tokens["used"] == 1033  # 25 + 7.5 + 200 * 5, rounded up once.


def test_budget_and_token_limit_are_one_decision():
    shop = Shop("1 USD per calendar month", plan={"tokens": "500 per calendar day"})
    assert shop.ask().status_code == 200
    assert shop.ask().status_code == 429
    assert shop.spent == "0.00225"


def test_budget_without_a_price_is_refused_at_the_start():
    with pytest.raises(ConfigurationError, match="price"):
        Shop("1 USD per calendar month", prices=None)


def test_budget_in_another_currency_than_any_price_is_refused_at_the_start():
    with pytest.raises(ConfigurationError, match="EUR"):
        Shop("1 EUR per calendar month")


def test_price_of_a_model_is_looked_up_in_genai_prices_if_that_is_wanted():
    shop = Shop("1 USD per calendar month", prices=None, genai_prices=True)
    assert shop.ask("gpt-4o-mini").status_code == 200
    assert shop.events[-1]["cost"].source.startswith("genai-prices")
    assert shop.events[-1]["cost"].nano > 0


def test_budget_per_session_begins_with_the_first_call():
    shop = Shop("0.006 USD per session of 5 hours")
    shop.clock.advance(1000)
    assert [shop.ask().status_code for _ in range(3)] == [200, 200, 429]
    shop.clock.advance(5 * 3600 - 1)
    assert shop.ask().status_code == 429
    shop.clock.advance(1)
    assert shop.ask().status_code == 200


def test_balance_never_comes_back():
    shop = Shop("0.006 USD")
    assert [shop.ask().status_code for _ in range(3)] == [200, 200, 429]
    shop.clock.advance(400 * 86400)
    refused = shop.ask()
    assert refused.json["error"]["code"] == "insufficient_quota"
    assert refused.json["error"]["limit"]["resets"] is None
    assert refused.json["error"]["limit"]["reset_after"] is None
    assert refused.headers["x-should-retry"] == "false"


def test_request_without_a_model_has_the_price_of_every_model():
    shop = Shop("1 USD per calendar month", prices={"*": {"input": "1 USD", "output": "1 USD"}})
    assert shop.ask(None).status_code == 200
    assert shop.spent == "0.0003"


def test_header_is_in_no_answer_where_clients_are_not_told_of_the_budget():
    shop = Shop({"limit": "0.006 USD per calendar month", "in_headers": False})
    answer = shop.ask()
    assert "x-ratelimit-budget" not in answer.headers
    shop.ask()
    refused = shop.ask()
    assert refused.status_code == 429
    assert refused.headers["x-should-retry"] == "false"
    assert "USD" not in refused.text


def test_images_that_the_view_records_are_paid_by_the_piece():
    shop = Shop("1 USD per calendar month", prices={"pictures-*": {"image": "0.04 USD"}})
    shop.answer = {"data": []}
    shop.before_answer = lambda: shop.limiter.record_usage(units={"images": 2})
    assert shop.ask("pictures-1").status_code == 200
    assert shop.spent == "0.08"


def test_cost_in_another_currency_leaves_what_was_reserved_and_is_logged(caplog):
    shop = Shop("1 USD per calendar month")
    shop.before_answer = lambda: shop.limiter.record_usage(output_tokens=200, cost="1 EUR")
    assert shop.ask().status_code == 200
    assert shop.spent == "0.0030225"
    assert "nobody knows in USD" in caplog.text


def test_pieces_of_a_stream_that_the_view_records_are_one_call():
    prices = {"large-*": {"input": "2.50 USD", "output": "10.00 USD", "request": "0.01 USD"}}
    shop = Shop("1 USD per calendar month", prices=prices)

    def record():
        shop.limiter.record_usage(input_tokens=100)
        for _ in range(200):
            shop.limiter.record_usage(output_tokens=1)

    shop.before_answer = record
    shop.ask()
    assert shop.spent == "0.01225"
    shop.before_answer = lambda: (
        [shop.limiter.record_usage(input_tokens=50, output_tokens=100) for _ in range(2)] and None
    )
    shop.ask()
    assert shop.spent == "0.0345", "two calls with input of their own are two requests of the model"


def test_session_ends_at_a_time_in_the_zone_of_the_plan():
    shop = Shop("1 USD per session of 5 hours", plan={"calendar": {"zone": "Europe/Berlin"}})  # from 2:00 in Berlin
    shop.ask()
    assert (shop.budget["resets"], shop.budget["zone"]) == ("2024-10-04T07:00:00+02:00", "Europe/Berlin")


def test_balance_has_no_window_in_headers_and_usage():
    shop = Shop("1 USD")
    answer = shop.ask()
    assert answer.headers["RateLimit-Policy"] == '"usd";q=1000000000;qu="nano-usd"'
    assert ";t=" not in answer.headers["RateLimit"]
    (limit,) = shop.app.test_client().get("/usage").json["limits"]
    assert (limit["period"], limit["reset"], limit["reset_after"]) == (None, None, None)


def test_answer_that_another_limit_refuses_tells_of_nothing_reserved():
    shop = Shop("1 USD per calendar month")
    limited = shop.limiter.limit("1 per minute")(lambda: {"usage": USED})
    shop.app.add_url_rule("/limited", view_func=limited, methods=["POST"])
    shop.ask()
    answer = shop.app.test_client().post("/limited", json={"model": "large-1", "max_tokens": 300})
    assert 'reserved="0.003' in answer.headers["x-ratelimit-budget"]
    refused = shop.app.test_client().post("/limited", json={"model": "large-1", "max_tokens": 300})
    assert refused.status_code == 429
    assert 'reserved="0.00";' in refused.headers["x-ratelimit-budget"]
