"""Which price a request has, and that what is told of its cost is what was charged."""

from contextlib import suppress

import pytest
from flask import Flask, stream_with_context
from test_budgets import PRICES, USED, Shop

from flask_ailimit import AILimiter, usage_settled
from flask_ailimit.money import Money

MESSAGES = [{"role": "user", "content": "hi"}]
LARGE = {"model": "large-1", "max_tokens": 300, "messages": MESSAGES}
SMALL = {**LARGE, "model": "small-1"}
CHEAP = {**PRICES, "*": {"input": "0.01 USD", "output": "0.01 USD"}}
MANY = {
    **PRICES,
    "pictures-*": {"image": "0.04 USD"},
    "call-*": {"input": "1 USD", "output": "1 USD", "request": "0.01 USD"},
}

UNTOLD = {
    "a batch of several models": [LARGE, SMALL],
    "a batch that names one beside the batch": {"model": "small-1", "requests": [{"params": LARGE}]},
    "a list": {**LARGE, "model": ["large-1"]},
    "an object": {**LARGE, "model": {"id": "large-1"}},
    "a name that is too long": {**LARGE, "model": "large-1".ljust(300, "x")},
}
"""Bodies of which nobody can tell the one model that they name."""


def sent(shop, body):
    return shop.app.test_client().post("/v1/chat/completions", json=body)


def told(shop):
    """What events said, settlement by settlement, and what they said was charged."""
    return [event["cost"].nano for event in shop.events], [event["charged"]["nano_usd"] for event in shop.events]


@pytest.mark.parametrize("unknown", ["refuse", "free", {"price_as": "small-1"}])
@pytest.mark.parametrize("body", UNTOLD.values(), ids=UNTOLD)
def test_model_that_can_t_be_told_has_no_price_that_a_client_may_choose(body, unknown):
    shop = Shop("1 USD per calendar month", prices=CHEAP, plan={"unknown_price": unknown})
    refused = sent(shop, body)
    assert (refused.status_code, refused.json["error"]["code"]) == (403, "model_not_priced")
    assert "names no model" not in refused.json["error"]["message"]
    assert (shop.calls, shop.spent) == (0, "0.00")


@pytest.mark.parametrize("body", UNTOLD.values(), ids=UNTOLD)
def test_model_that_can_t_be_told_has_the_price_that_all_models_have(body):
    shop = Shop("1 USD per calendar month", prices={"*": PRICES["large-*"]})
    assert sent(shop, body).status_code == 200
    assert shop.spent == "0.00225"


@pytest.mark.parametrize("model", ["unknown-1", None])
@pytest.mark.parametrize("error_format", ["hybrid", "openai", "anthropic", "problem"])
def test_refused_model_says_nothing_of_a_budget_of_which_clients_are_not_told(error_format, model):
    hidden = {"limit": "1 USD per calendar month", "in_headers": False}
    refused = Shop(hidden, error_format=error_format).ask(model)
    assert refused.status_code == 403
    said = f"{refused.headers}{refused.text}".lower()
    assert [word for word in ("pric", "money", "usd", "budget") if word in said] == []
    assert ("names no model" in said) is (model is None)


def test_model_that_the_app_names_counts_whatever_the_body_names():
    shop = Shop("1 USD per calendar month", prices=CHEAP)
    shop.app.before_request(lambda: shop.limiter.set_model("large-1"))
    assert sent(shop, [LARGE, SMALL]).status_code == 200
    assert shop.spent == "0.00225"


def test_cost_is_unknown_where_no_limit_is_on_money_and_the_model_can_t_be_told():
    app, costs = Flask(__name__), []
    AILimiter(lambda: "ann", app=app, default_token_limits=["10000 per day"], prices=CHEAP, storage_uri="memory://")

    def settled(sender, *, cost, **facts):
        costs.append(cost and cost.price)

    usage_settled.connect(settled, app)
    app.add_url_rule("/", view_func=lambda: {"usage": USED}, methods=["POST"])
    for body in ([LARGE, SMALL], LARGE, {**LARGE, "model": None}):
        app.test_client().post("/", json=body)
    assert costs == [None, "large-*", "*"]


@pytest.mark.parametrize("with_tokens", [{}, {"input_tokens": 0}, {"output_tokens": 3}])
def test_images_cost_what_the_model_asks_that_made_them(with_tokens):
    shop = Shop("1 USD per calendar month", prices=MANY)

    def call_two():
        shop.limiter.record_usage(units={"images": 2}, **with_tokens)
        shop.limiter.set_model("large-1")
        shop.limiter.record_usage(input_tokens=1)

    shop.before_answer = call_two
    shop.ask("pictures-1")
    assert shop.spent == "0.0800025"
    assert told(shop) == ([80_002_500],) * 2


def test_images_that_a_request_asks_for_are_reserved():
    shop = Shop("0.10 USD per calendar month", prices=MANY)
    shop.answer = {"data": []}
    asked = shop.ask("pictures-1", n=2)
    assert 'reserved="0.08";' in asked.headers["x-ratelimit-budget"]
    assert (asked.status_code, shop.spent) == (200, "0.00")
    assert shop.ask("pictures-1", n=3).json["error"]["code"] == "cost_exceeds_limit"
    shop.before_answer = lambda: shop.limiter.record_usage(units={"images": 1})
    assert 'reserved="0.04";' in shop.ask("pictures-1").headers["x-ratelimit-budget"]
    assert shop.ask("pictures-1", n=2).json["error"]["code"] == "insufficient_quota"
    assert (shop.calls, shop.spent) == (2, "0.04")


def test_all_of_a_budget_is_reserved_where_nobody_can_tell_how_many_images_are_asked_for():
    shop = Shop("0.10 USD per calendar month", prices={"*": MANY["pictures-*"]})
    answer = shop.app.test_client().post("/v1/chat/completions", json={"prompt": "a cat", "n": 10**30})
    assert answer.status_code == 200
    assert 'reserved="0.10";' in answer.headers["x-ratelimit-budget"]


def test_images_are_paid_beside_a_cost_that_the_app_names_of_another_call():
    shop = Shop("1 USD per calendar month", prices=MANY)

    def call_two():
        shop.limiter.record_usage(units={"images": 2}, output_tokens=1)
        shop.limiter.record_usage(units={"images": 5}, cost="0.01 USD")

    shop.before_answer = call_two
    shop.ask("pictures-1")
    assert shop.spent == "0.09"


def hand_over(shop, record):
    """Make a request that hands its work over, and take it over."""
    tokens = []

    def view():
        record()
        tokens.append(shop.limiter.hand_over())
        return {}, 202

    shop.before_answer = view
    return lambda: shop.limiter.take_over(tokens[0])


@pytest.mark.parametrize("before", [0, 2])
def test_images_of_work_that_was_handed_over_are_paid_though_no_tokens_are_known(before):
    shop = Shop("1 USD per calendar month", prices=MANY)
    take_over = hand_over(shop, lambda: before and shop.limiter.record_usage(units={"images": before}))
    shop.ask("pictures-1")
    with shop.app.app_context():
        work = take_over()
        work.record_usage(units={"images": 3 - before})
        assert work.settle()
    assert shop.spent == "0.12"
    assert told(shop) == ([120_000_000],) * 2
    assert shop.events[-1]["cost"].price == "pictures-*"


def test_images_that_were_made_before_another_model_was_named_keep_their_price_when_handed_over():
    shop = Shop("1 USD per calendar month", prices=MANY)

    def record():
        shop.limiter.record_usage(units={"images": 2})
        shop.limiter.set_model("large-1")

    take_over = hand_over(shop, record)
    shop.ask("pictures-1")
    with shop.app.app_context(), take_over() as work:
        work.record_usage(input_tokens=1)
    assert shop.spent == "0.0800025"


def test_work_that_fails_with_a_record_and_without_a_price_costs_what_was_reserved():
    shop = Shop("1 USD per calendar month")
    take_over = hand_over(shop, lambda: shop.limiter.set_model("unknown-1"))
    shop.ask()
    with shop.app.app_context(), suppress(KeyError), take_over() as work:
        work.record_usage(output_tokens=200)
        raise KeyError
    assert shop.spent == "0.0030225"
    assert told(shop) == ([3_022_500],) * 2


def test_failed_request_is_told_to_cost_nothing_where_each_request_has_a_rate():
    shop = Shop("1 USD per calendar month", prices=MANY)
    shop.before_answer = lambda: ({"error": "no"}, 500)
    shop.ask("call-1")
    assert shop.spent == "0.00"
    assert told(shop) == ([0], [0])
    shop.before_answer = lambda: None
    shop.ask("call-1")
    assert shop.spent == "0.0103"
    assert told(shop) == ([0, 10_300_000],) * 2


def test_cost_of_a_model_without_a_price_is_told_as_what_was_reserved():
    shop = Shop("1 USD per calendar month")
    shop.before_answer = lambda: shop.limiter.set_model("unknown-1")
    shop.ask()
    assert shop.spent == "0.0030225"
    assert told(shop) == ([3_022_500],) * 2
    assert (shop.events[-1]["cost"].source, shop.events[-1]["cost"].price) == ("reserved", "")


def test_costs_that_are_told_are_never_more_than_what_was_charged():
    shop = Shop("1 USD per calendar month")
    records = [{"input_tokens": 900}, {"output_tokens": 20}, {"output_tokens": 500}, {"input_tokens": 1}]

    def stream():
        # The report costs more than the first records together. Then more is recorded.
        yield b'data: {"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 300}}\n\n'
        yield b"data: [DONE]\n\n"
        for each in records:
            shop.limiter.record_usage(**each)
            yield b": still there\n\n"

    shop.before_answer = lambda: shop.app.response_class(stream_with_context(stream()), mimetype="text/event-stream")
    shop.ask().get_data()
    costs, charged = told(shop)
    assert costs == charged
    assert f"0.{sum(costs):09}".rstrip("0") == shop.spent == "0.0074525"


@pytest.mark.parametrize("plan", [{"budget": "1 USD per calendar month"}, {"tokens": "100000 per day"}])
def test_images_that_are_recorded_after_the_answer_has_ended_are_paid_beside_what_it_reported(plan):
    prices = {"pictures-*": {"input": "1 USD", "output": "2 USD", "image": "0.04 USD"}}
    shop = Shop("1 USD per calendar month", prices=prices)
    if "tokens" in plan:
        shop = Shop(None, plan=plan, prices=prices)

    def stream():
        yield b'data: {"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 200}}\n\n'
        yield b"data: [DONE]\n\n"
        for images in (2, 1):
            shop.limiter.record_usage(units={"images": images})
        yield b": still there\n\n"

    shop.before_answer = lambda: shop.app.response_class(stream_with_context(stream()), mimetype="text/event-stream")
    shop.ask("pictures-1").get_data()
    assert [event["cost"].nano for event in shop.events] == [500_000, 80_000_000, 40_000_000]
    if "budget" in plan:
        assert shop.spent == "0.1205"


def test_what_a_report_has_paid_is_not_paid_again_by_the_work_that_is_handed_over():
    shop, tokens = Shop("1 USD per calendar month", plan={"tokens": "100000 per day"}), []

    def stream():
        yield b'data: {"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 200}}\n\n'
        yield b"data: [DONE]\n\n"
        shop.limiter.record_usage(input_tokens=90, output_tokens=190)
        tokens.append(shop.limiter.hand_over())

    shop.before_answer = lambda: shop.app.response_class(stream_with_context(stream()), mimetype="text/event-stream")
    shop.ask().get_data()
    with shop.app.app_context(), shop.limiter.take_over(tokens[0]) as work:
        work.record_usage(input_tokens=10)
    assert shop.spent == "0.002275"
    assert told(shop) == ([2_250_000, 25_000],) * 2
    assert [event["charged"]["tokens"] for event in shop.events] == [300, 10]


BAD = [
    Money(-5, "USD"),
    Money(1.5, "USD"),
    Money(float("nan"), "USD"),
    Money(2**53, "USD"),
    Money(True, "USD"),
    Money("5", "USD"),
    Money(5, "usd"),
    Money(None, None),
]


@pytest.mark.parametrize(
    ("cost", "nano"),
    [("0.0000123456789 USD", 12_346), ("0.30000000000000004 USD", 300_000_001), ("0.000000000 USD", 0)],
)
def test_cost_with_more_decimals_than_are_counted_is_rounded_up(cost, nano):
    recorded = Shop("1 USD per calendar month")
    recorded.before_answer = lambda: recorded.limiter.record_usage(output_tokens=2, cost=cost)
    by_function = Shop("1 USD per calendar month", cost_of=lambda usage, model: cost)
    for shop in (recorded, by_function):
        assert shop.ask().status_code == 200
        assert told(shop) == ([nano],) * 2


@pytest.mark.parametrize("cost", BAD, ids=repr)
def test_money_that_is_no_amount_is_an_error_of_the_app(cost):
    shop = Shop("1 USD per calendar month")
    with shop.app.test_request_context(), pytest.raises(ValueError, match="cost"):
        shop.limiter.record_usage(cost=cost)


@pytest.mark.parametrize("cost", BAD, ids=repr)
def test_app_s_own_function_that_answers_no_amount_leaves_the_price(cost, caplog):
    shop = Shop("1 USD per calendar month", cost_of=lambda usage, model: cost)
    assert shop.ask().status_code == 200
    assert (shop.spent, shop.budget["reserved"]) == ("0.00225", "0.00")
    assert "cost_of" in caplog.text


def test_rates_are_told_of_calls_for_which_the_same_rates_held():
    long = {"large-*": {**PRICES["large-*"], "above": {"1000": {"input": "5 USD"}}}}
    shop = Shop("1 USD per calendar month", prices=long)

    def call(*inputs):
        def view():
            for tokens in inputs:
                shop.limiter.record_usage(input_tokens=tokens)

        return view

    for inputs in ((10, 20), (10, 2000)):
        shop.before_answer = call(*inputs)
        shop.ask()
    assert [event["cost"].rates.get("input") for event in shop.events] == ["2.5", None]


def test_cost_is_told_in_the_currency_in_which_anything_was_charged():
    prices = {**PRICES, "euro-*": {"input": "1 EUR", "output": "2 EUR"}}
    service = {"budget": "1 EUR per calendar day", "unknown_price": "free"}
    shop = Shop("1 USD per calendar month", prices=prices, plan={"unknown_price": "free"}, service=service)
    for model in ("large-1", "euro-1", "unknown-1"):
        shop.ask(model)
    assert [str(event["cost"]) for event in shop.events] == ["0.00225 USD", "0.0005 EUR", "0.00 USD"]
    assert [event["cost"].source for event in shop.events] == ["own table", "own table", "free"]
