"""One allowance over all routes: ``application_token_limits`` and ``application_concurrency``."""

import threading

import pytest
from flask import Blueprint, request
from flask_limiter import ExemptionScope
from limited_apps import limited

from flask_ailimit import UNLIMITED, ConcurrencyLimit, ConfigurationError, RequestsLimit, TokenLimit, api_key


def nothing():
    return {}


def doors(served, *names, view=nothing):
    """Views of these names, each of which records 10 tokens."""

    def door():
        served.limiter.record_usage(input_tokens=10)
        return view()

    for name in names:
        served.app.post(f"/{name}", endpoint=name)(lambda: door())  # noqa: PLW0108  each view is a function of its own


def ask(served, path, key="alice", **arguments):
    return served.client(key).post(path, json={"prompt": "Hello", "max_tokens": 5}, **arguments)


def test_what_one_route_uses_is_gone_on_the_others():
    served = limited(application_token_limits=["30 per minute"])
    doors(served, "chat", "complete", "embed")
    assert [ask(served, f"/{door}").status_code for door in ("chat", "complete", "embed", "chat")] == [
        200,
        200,
        200,
        429,
    ]
    assert ask(served, "/chat", key="bob").status_code == 200
    assert served.used(endpoint="chat") == served.used(endpoint="embed") == {"tokens-per-minute": 30}


def test_default_token_limits_count_each_route_for_itself():
    served = limited(default_token_limits=["30 per minute"])
    doors(served, "chat", "complete")
    ask(served, "/chat")
    assert (served.used(endpoint="chat"), served.used(endpoint="complete")) == (
        {"tokens-per-minute": 10},
        {"tokens-per-minute": 0},
    )


def test_limit_of_the_application_holds_beside_those_of_the_view_and_the_defaults():
    served = limited(application_token_limits=["100 per minute"], default_token_limits=["200 per minute"])
    doors(served, "plain")

    @served.app.post("/own")
    @served.limiter.limit_tokens("300 per minute")
    @served.limiter.limit("5 per minute")
    def own():
        return {}

    def limits(path):
        return sorted(verdict.limit for verdict in served.limiter.peek(path, "alice").verdicts)

    with served.app.test_request_context():
        assert (limits("plain"), limits("own")) == ([100, 200], [5, 100, 300])
    assert '"tokens-per-minute-2";q=100;' in ask(served, "/own").headers["RateLimit-Policy"]


def test_limits_of_the_application_are_one_decision_with_all_others():
    """A request that one of them refuses is charged by none."""
    served = limited(application_token_limits=["20 per minute"], application_limits=["100 per day"])
    doors(served, "chat")
    assert [ask(served, "/chat").status_code for _ in range(3)] == [200, 200, 429]
    assert served.used(endpoint="chat") == {"tokens-per-minute": 20, "requests-per-day": 2}


def test_calls_in_flight_of_all_routes_share_the_slots():
    served = limited(application_concurrency=1)
    inside, leave = threading.Event(), threading.Event()

    @served.app.post("/slow")
    def slow():
        inside.set()
        leave.wait(60)
        return {}

    @served.app.post("/quick")
    def quick():
        return {}

    answers = []
    thread = threading.Thread(target=lambda: answers.append(ask(served, "/slow").status_code))
    thread.start()
    try:
        assert inside.wait(60)
        refused = ask(served, "/quick")
        assert (refused.status_code, refused.json["error"]["code"]) == (429, "concurrency_limit_exceeded")
        assert ask(served, "/quick", key="bob").status_code == 200
    finally:
        leave.set()
        thread.join(60)
    assert answers == [200]
    assert ask(served, "/quick").status_code == 200


@pytest.mark.parametrize("slots", [0, [0], lambda: 0, [ConcurrencyLimit(0)]])
def test_no_slot_at_all_allows_nothing(slots):
    served = limited(application_concurrency=slots)
    doors(served, "chat")
    assert ask(served, "/chat").status_code == 403


@pytest.mark.parametrize("slots", [None, [], (), UNLIMITED, lambda: UNLIMITED])
def test_no_limit_on_slots_limits_nothing(slots):
    served = limited(application_concurrency=slots)
    doors(served, "chat")
    assert ask(served, "/chat").status_code == 200


def test_listed_limit_takes_the_options_of_the_decorator():
    """A ceiling of the whole service beside the allowance of each key, each under its name."""

    def everybody():
        return "everybody"

    served = limited(
        application_token_limits=[
            TokenLimit("100 per minute", name="plan"),
            TokenLimit("25 per minute", unit="input_tokens", key_func=everybody, name="service"),
        ],
        application_concurrency=[2, ConcurrencyLimit(64, key_func=everybody, name="gpu", in_headers=False)],
    )
    doors(served, "chat", "complete")
    answer = ask(served, "/chat")
    names = [policy.partition(";")[0] for policy in answer.headers["RateLimit-Policy"].split(", ")]
    assert sorted(names) == ['"concurrency"', '"plan"', '"service"']
    assert ask(served, "/complete", key="bob").status_code == 200
    refused = served.client("carol").post("/chat", json={"prompt": "Tell me a long story of a small house. " * 2})
    assert (refused.status_code, refused.json["error"]["limit"]["name"]) == (429, "service")
    assert (refused.json["error"]["limit"]["used"], served.used("carol", "chat")["plan"]) == (20, 0)


def test_callable_of_the_application_is_asked_in_each_request():
    served = limited(application_token_limits=[lambda: request.headers.get("x-plan", "10 per minute")])
    doors(served, "chat")
    assert ask(served, "/chat").status_code == 200
    assert ask(served, "/chat").status_code == 429
    assert ask(served, "/chat", headers={"x-plan": "50 per minute"}).status_code == 200


def test_exempt_route_is_exempt_from_limits_of_the_application():
    served = limited(application_token_limits=["5 per minute"], application_concurrency=1)
    doors(served, "all", "defaults")
    served.limiter.exempt(served.app.view_functions["all"])
    served.limiter.exempt(served.app.view_functions["defaults"], flags=ExemptionScope.DEFAULT)
    assert [ask(served, "/all").status_code for _ in range(3)] == [200] * 3
    assert [ask(served, "/defaults").status_code for _ in range(2)] == [200, 429]


def test_blueprint_s_limits_and_those_of_the_application_both_hold():
    served = limited(application_token_limits=["100 per minute"])
    api = Blueprint("api", __name__)
    served.limiter.limit_tokens("15 per minute")(api)

    @api.post("/chat")
    def chat():
        served.limiter.record_usage(input_tokens=10)
        return {}

    served.app.register_blueprint(api)
    assert ask(served, "/chat").status_code == 200
    with served.app.test_request_context():
        assert {verdict.limit: verdict.used for verdict in served.limiter.peek("api.chat", "alice").verdicts} == {
            15: 10,
            100: 10,
        }


def test_settings_come_from_the_app_s_config():
    served = limited(
        config={"AILIMIT_APPLICATION_TOKEN_LIMITS": ["10 per minute"], "AILIMIT_APPLICATION_CONCURRENCY": 3}
    )
    doors(served, "chat")
    assert ask(served, "/chat").headers["RateLimit-Policy"] == (
        '"tokens-per-minute";q=10;qu="tokens";w=60, "concurrency";q=3;qu="concurrent-requests"'
    )


def test_limits_on_requests_in_lists_take_options_too():
    served = limited(
        application_limits=[RequestsLimit("3 per day", name="plan", cost=2)],
        default_limits=[RequestsLimit("90 per day", in_headers=False), "80 per hour"],
        address_limits=[RequestsLimit("70 per day", name="door"), "60 per hour"],
    )
    doors(served, "chat")
    answers = [ask(served, "/chat") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert answers[-1].json["error"]["limit"] | {"used": 2, "requested": 2} == answers[-1].json["error"]["limit"]
    names = [policy.partition(";")[0] for policy in answers[0].headers["RateLimit-Policy"].split(", ")]
    assert sorted(names) == ['"address"', '"door"', '"plan"', '"requests-per-hour"']


@pytest.mark.parametrize("setting", ["application_limits", "default_limits", "address_limits"])
@pytest.mark.parametrize(
    ("limit", "says"),
    [
        (RequestsLimit("ten per day"), "'ten per day' can't be used"),
        (RequestsLimit("9 per day", naem="plan"), "naem: a RequestsLimit has no such option"),
        (RequestsLimit("9 per day", shared=True), "shared: a RequestsLimit has no such option"),
        (RequestsLimit("9 per day", name="two words"), "name: 1 to 64"),
        (RequestsLimit("9 per day", cost=-1), "cost: a whole number"),
    ],
)
def test_wrong_limit_on_requests_in_a_list_is_refused(setting, limit, says):
    with pytest.raises(ConfigurationError, match=says):
        limited(**{setting: [limit]})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"application_token_limits": "10 per minute"}, "application_token_limits: a list is needed"),
        ({"application_token_limits": ["ten per minute"]}, "can't read 'ten per minute'"),
        ({"application_token_limits": [7]}, "a limit is a text"),
        ({"application_token_limits": [TokenLimit("9 per minute", unit="pages")]}, "unit: use one of tokens"),
        ({"application_token_limits": [TokenLimit("9 per minute", bursts=1)]}, "bursts: .* have no such option"),
        ({"application_token_limits": [ConcurrencyLimit(4)]}, "a TokenLimit is needed, and a ConcurrencyLimit"),
        ({"application_concurrency": "4"}, "a whole number of calls in flight"),
        ({"application_concurrency": [TokenLimit("9 per minute")]}, "a ConcurrencyLimit is needed, and a TokenLimit"),
        ({"application_concurrency": True}, "a whole number of calls in flight"),
        ({"application_token_limits": [TokenLimit("9 per minute", shared=False)]}, "all routes share the count"),
        ({"application_token_limits": [TokenLimit("9 per minute", scope="")]}, "all routes share the count"),
        ({"application_concurrency": ConcurrencyLimit(4, scope=None)}, "all routes share the count"),
        ({"application_token_limits": [TokenLimit("9 per minute", scope=7)]}, "scope: a text or a callable"),
        ({"application_concurrency": [4, -1]}, "limit: a whole number from 1"),
        ({"application_token_limits": ["500 per minute"], "default_output_tokens": 500}, "take the whole limit"),
    ],
)
def test_wrong_limit_of_the_application_is_refused_at_init_app(options, says):
    with pytest.raises(ConfigurationError, match=says) as refused:
        limited(api_key, **options)
    assert str(refused.value).startswith(("application_token_limits: ", "application_concurrency: ", "default_output_"))


def test_limit_in_a_list_of_another_kind_is_named_in_the_error():
    with pytest.raises(ConfigurationError, match=r"application_limits: .*TokenLimit\('9 per minute'\).* can't be used"):
        limited(api_key, application_limits=[TokenLimit("9 per minute")])
