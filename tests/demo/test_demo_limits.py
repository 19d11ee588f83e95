"""The demo's plans, through the real limiter."""

import re
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import anthropic
import openai
import pytest
from demo_doors import BODIES, CHAT, KEY, OTHER_KEY

from demo_app import create_app, plans
from demo_app.scripted import ScriptedModel
from demo_app.validation import DEFAULT_MAX_TOKENS
from flask_ailimit.money import parse_money
from flask_ailimit.testing import limits_clock  # noqa: F401  a fixture

every_door = pytest.mark.parametrize("path", BODIES)


def plan_of(*, requests="1000 per day", tokens="100000 per day", concurrency=50):
    plan = {"requests": requests, "tokens": tokens, "concurrency": concurrency}
    return pytest.mark.parametrize("plan", [plan], ids=["plan"])


def ask(client, path="/predict", **more):
    return client.post(path, json={**BODIES[path], **more})


def outcome(response):
    return response.status_code, response.json["error"]["code"]


@plan_of(requests="3 per day")
def test_all_doors_share_one_allowance(client, model):
    assert [ask(client, path).status_code for path in BODIES] == [200, 200, 200]
    assert [outcome(ask(client, path)) for path in BODIES] == [(429, "rate_limit_exceeded")] * 3
    assert len(model.calls) == 3


@plan_of(tokens="150 per day")
def test_all_doors_share_their_tokens(client):
    assert [ask(client, path, max_tokens=100).status_code for path in BODIES] == [200, 200, 200]
    # Each has used 9 tokens. 128 of a door's own 141 would do.
    assert [outcome(ask(client, path, max_tokens=125)) for path in BODIES] == [(429, "token_limit_exceeded")] * 3


@plan_of()
@every_door
def test_a_request_that_names_no_maximum_reserves_the_default(client, path):
    body = {name: value for name, value in BODIES[path].items() if name != "max_tokens"}
    response = client.post(path, json=body)
    reserved = 100_000 - int(response.headers["x-ratelimit-remaining-tokens"])
    assert DEFAULT_MAX_TOKENS < reserved < DEFAULT_MAX_TOKENS + 20


@plan_of(requests="1 per day")
def test_accounts_do_not_share_an_allowance(client, stranger):
    assert ask(client).status_code == 200
    assert ask(client).status_code == 429
    assert stranger.post("/predict", json=BODIES["/predict"], headers={"x-api-key": OTHER_KEY}).status_code == 200


@plan_of(requests="1 per day", tokens="200 per day")
def test_mistakes_and_wrong_keys_cost_nothing(client, stranger, model):
    model.context = 400
    for _ in range(3):
        assert client.post("/predict", data=b"{", content_type="application/json").status_code == 400
        assert ask(client, max_tokens=0).status_code == 400
        assert ask(client, "/v1/messages", model="other").status_code == 404
        assert ask(stranger).status_code == 401
        assert stranger.post("/predict", headers={"x-api-key": KEY[:-1]}).status_code == 401
    assert ask(client, max_tokens=100).status_code == 200
    assert ask(client).status_code == 429


@plan_of(requests="1 per day")
def test_what_is_not_the_model_is_not_limited(client):
    for path in ("/healthz", "/v1/models", "/nothing"):
        assert {client.get(path).status_code for _ in range(3)} <= {200, 404}
    assert ask(client).status_code == 200


@plan_of(tokens="150 per day")
@every_door
@pytest.mark.parametrize("stream", [True, False])
def test_only_tokens_really_used_stay_charged(client, path, stream):
    for _ in range(3):  # Each reserves more than 100 of the 150 tokens, and uses 9.
        response = ask(client, path, max_tokens=100, stream=stream)
        assert response.status_code == 200
        response.get_data()
    assert outcome(ask(client, path, max_tokens=146)) == (429, "token_limit_exceeded")


@plan_of(tokens="150 per day")
@every_door
def test_a_reader_who_leaves_pays_for_what_was_written(client, path):
    for _ in range(3):
        response = ask(client, path, max_tokens=100, stream=True)
        assert response.status_code == 200
        chunks = response.iter_encoded()
        while b" good" not in next(chunks):
            pass
        response.close()
    assert outcome(ask(client, path, max_tokens=140)) == (429, "token_limit_exceeded")


@plan_of(tokens="150 per day")
@every_door
@pytest.mark.parametrize("stream", [True, False])
def test_what_the_model_can_not_take_costs_no_tokens(client, model, path, stream):
    model.context = 50
    for _ in range(3):
        assert outcome(ask(client, path, max_tokens=100, stream=stream)) == (400, "context_length_exceeded")
    model.context = 500
    assert ask(client, path, max_tokens=100).status_code == 200


@plan_of(tokens="150 per day")
@every_door
def test_a_request_larger_than_the_allowance_is_told_that_waiting_is_no_use(client, model, path):
    response = ask(client, path, max_tokens=160)
    assert outcome(response) == (413, "cost_exceeds_limit")
    assert response.headers["x-should-retry"] == "false"
    assert "Retry-After" not in response.headers
    assert model.calls == []


@plan_of(concurrency=2)
def test_a_stream_holds_a_slot_until_it_ends(address, model):
    go_on = threading.Event()
    model.before_token = lambda: go_on.wait(60)
    with (
        openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0) as gpt,
        anthropic.Anthropic(base_url=address, api_key=KEY, max_retries=0) as claude,
    ):
        held = [gpt.chat.completions.create(**CHAT, stream=True) for _ in range(2)]
        with pytest.raises(openai.RateLimitError) as refused:
            gpt.chat.completions.create(**CHAT)
        with pytest.raises(anthropic.RateLimitError):  # The other door counts the same calls.
            claude.messages.create(**CHAT, max_tokens=8)
        go_on.set()
        list(held[0])
        for _ in range(5):  # One after the other needs one slot, and the other stream has the second.
            assert list(gpt.chat.completions.create(**CHAT, stream=True))
            assert gpt.chat.completions.create(**CHAT).choices
        list(held[1])
    assert refused.value.code == "concurrency_limit_exceeded"


@plan_of(requests="1 per day")
def test_the_sdks_know_a_refusal(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0) as gpt:
        gpt.chat.completions.create(**CHAT)
        with pytest.raises(openai.RateLimitError) as refused:
            gpt.chat.completions.create(**CHAT)
    assert refused.value.code == "rate_limit_exceeded"
    assert int(refused.value.response.headers["Retry-After"]) >= 1
    with (
        anthropic.Anthropic(base_url=address, api_key=KEY, max_retries=0) as claude,
        pytest.raises(anthropic.RateLimitError) as refused,
    ):
        claude.messages.create(**CHAT, max_tokens=8)
    assert refused.value.type == "rate_limit_error"


@plan_of()
@every_door
@pytest.mark.parametrize("stream", [True, False])
def test_every_answer_tells_what_is_left(client, path, stream):
    response = ask(client, path, stream=stream)
    assert int(response.headers["x-ratelimit-limit-tokens"]) == 100_000
    assert int(response.headers["x-ratelimit-remaining-requests"]) == 999
    assert "Retry-After" not in response.headers
    response.close()


@pytest.fixture
def talkative():
    """A model whose every answer is as long as it may be."""
    return ScriptedModel(("word",) * 1024)


@pytest.fixture
def visitor(talkative, limits_clock):  # noqa: F811  the fixture
    """Speaks to the demo as ``make demo`` serves it, but for the model, the store and the clock."""
    return create_app(talkative, {"RATELIMIT_STORAGE_URI": "memory://"}).test_client()


@pytest.fixture
def served(visitor):
    """Asks that demo with a published key."""

    def ask(key, path="/predict", **more):
        body = {**BODIES[path], "max_tokens": 8, **more}
        return visitor.post(path, json=body, headers={"x-api-key": f"demo-{key}-key"})

    return ask


@pytest.fixture
def budget(visitor):
    """What that demo says of the budget of a published key."""

    def budget(key):
        limits = visitor.get("/usage", headers={"x-api-key": f"demo-{key}-key"}).json["limits"]
        (found,) = (limit["budget"] for limit in limits if "budget" in limit)
        return found

    return budget


def test_the_small_key_has_ten_requests_a_minute_and_the_large_one_more(served):
    assert [served("small").status_code for _ in range(11)] == [200] * 10 + [429]
    assert [served("large").status_code for _ in range(121)] == [200] * 120 + [429]


def test_keys_of_an_organisation_share_its_ceiling_and_are_told_their_own_limits(served):
    assert [served("large").status_code for _ in range(120)] == [200] * 120
    answers = [served("colleague") for _ in range(81)]
    assert [answer.status_code for answer in answers] == [200] * 80 + [429]  # The team has 200 requests a minute.
    assert answers[0].headers["x-ratelimit-limit-requests"] == "120"
    assert answers[0].headers["x-ratelimit-remaining-requests"] == "119"
    assert served("small").status_code == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_a_large_model_is_not_in_the_small_key_s_plan_and_costs_it_nothing(served, path):
    for _ in range(12):
        refused = served("small", path, model="large-scripted")
        assert outcome(refused) == (403, "model_not_allowed")
        assert refused.headers["x-should-retry"] == "false"
    assert [served("small", path, model=name).json["model"] for name in ("scripted", "small-scripted")] == [
        *("scripted", "small-scripted")
    ]
    assert served("large", path, model="large-scripted").json["model"] == "large-scripted"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_large_models_have_a_part_of_the_large_key_s_tokens(served, path):
    assert served("large", path, model="large-scripted").headers["x-ratelimit-limit-tokens"] == "20000"
    assert served("large", path).headers["x-ratelimit-limit-tokens"] == "60000"


@plan_of(tokens="100000 per day")
def test_a_caller_can_ask_what_is_left_for_nothing(client, stranger):
    ask(client)
    shown = [client.get("/usage").json["limits"] for _ in range(2)]
    left = {limit["name"]: (limit["limit"], limit["remaining"], limit["used"]) for limit in shown[1]}
    assert left == {
        "requests-per-day": (1000, 999, 1),
        "tokens-per-day": (100_000, 99_991, 9),
        "concurrency": (50, 50, 0),
    }
    assert all(limit["reset_after"] >= 0 for limit in shown[1] if limit["name"] != "concurrency")
    untouched = stranger.get("/usage", headers={"x-api-key": OTHER_KEY}).json["limits"]
    assert {limit["used"] for limit in untouched} == {0}
    assert stranger.get("/usage").status_code == 401


@every_door
def test_two_answers_without_a_maximum_spend_the_penny_key_s_day(
    served,
    budget,
    path,
    talkative,
    limits_clock,  # noqa: F811  the fixture
):
    assert [served("penny", path, max_tokens=None).status_code for _ in range(2)] == [200, 200]
    spent = budget("penny")["spent"]
    refused = served("penny", path, max_tokens=None)
    assert outcome(refused) == (429, "insufficient_quota")
    assert refused.headers["x-should-retry"] == "false"
    assert "Retry-After" not in refused.headers
    told = refused.json["error"]["limit"]
    tomorrow = datetime.fromtimestamp(limits_clock() / 1_000_000, UTC).date() + timedelta(days=1)
    assert (told["resets"], told["zone"]) == (f"{tomorrow}T00:00:00+00:00", "UTC")
    assert f"{spent} of 0.01 USD spent" in refused.json["error"]["message"]
    assert (len(talkative.calls), budget("penny")["spent"], budget("penny")["reserved"]) == (2, spent, "0.00")


def test_penny_key_has_a_new_penny_at_midnight(served, budget, limits_clock):  # noqa: F811  the fixture
    while served("penny", max_tokens=None).status_code == 200:
        pass
    limits_clock.advance(86400)
    assert budget("penny")["left"] == "0.01"
    assert served("penny", max_tokens=None).status_code == 200


def test_answer_that_costs_more_than_a_penny_never_fits_the_penny_key(served):
    assert outcome(served("penny", max_tokens=1024)) == (413, "cost_exceeds_limit")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_large_model_costs_twice_what_the_other_one_costs(served, budget, path):
    assert served("colleague", path, max_tokens=100).status_code == 200
    assert Decimal(budget("colleague")["spent"]) == 3 * Decimal("5e-6") + 100 * Decimal("30e-6")
    assert served("large", path, model="large-scripted", max_tokens=100).status_code == 200
    assert Decimal(budget("large")["spent"]) == 2 * Decimal(budget("colleague")["spent"])


def test_stream_costs_what_the_whole_answer_costs(served, budget):
    for stream, key in ((False, "large"), (True, "colleague")):
        served(key, stream=stream, max_tokens=100).get_data()
        assert budget(key)["spent"] == "0.003015"


def test_busiest_minute_of_a_plan_leaves_the_budget_of_a_month_nearly_whole():
    """So that nobody who tries the other limits meets the budget."""
    file = plans.read(plans.FILE, Path(plans.__file__).parent)
    dearest = max(parse_money(price["output"]).nano for price in file["prices"].values())
    for name in ("free", "pro", "team"):
        plan = file["plans"][name]
        tokens = int(plan["tokens"].partition(" ")[0])
        assert tokens * dearest / 10**6 < parse_money(plan["budget"].partition(" per ")[0]).nano / 50, name


def test_settlement_s_line_in_the_log_has_its_cost(served, caplog):
    with caplog.at_level("INFO"):
        served("penny", max_tokens=100)
    assert re.search(
        r"settled req_\w+ input=3 output=100 source=recorded cost=0\.003015 USD$", caplog.text, re.MULTILINE
    )
