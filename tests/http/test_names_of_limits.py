"""What clients are told of a limit: its name, or nothing of it."""

import pytest
from flask import jsonify, request
from limited_apps import limited

from flask_ailimit import ConcurrencyLimit, ConfigurationError, TokenLimit, request_refused
from flask_ailimit.headers import DIALECTS

SECRET = "12345"
"""The number of the limit that clients are not told of."""


def nothing():
    return {}


def policies(answer):
    return [policy.partition(";")[0].strip('"') for policy in answer.headers.get("RateLimit-Policy", "").split(", ")]


@pytest.mark.parametrize(
    ("kind", "limit"),
    [
        ("limit", "1 per day"),
        ("shared_limit", "1 per day"),
        ("limit_tokens", "5 per day"),
        ("limit_units", "1 per day"),
    ],
)
def test_name_is_in_headers_messages_bodies_and_events(kind, limit):
    served = limited()
    first = ("pages",) if kind == "limit_units" else ()
    options = {"scope": "all"} if kind == "shared_limit" else {}

    @served.app.post("/")
    @getattr(served.limiter, kind)(*first, limit, name="Plan_1.free-tier", **options)
    def answer():
        served.limiter.record_usage(input_tokens=5)
        return {}

    told = []
    request_refused.connect(lambda _, decision, **__: told.append(decision), served.app, weak=False)
    client = served.client()
    assert policies(client.post("/")) == ["Plan_1.free-tier"]
    refused = client.post("/")
    assert (refused.status_code, policies(refused)) == (429, ["Plan_1.free-tier"])
    assert refused.json["violated-policies"] == ["Plan_1.free-tier"]
    assert refused.json["error"]["limit"]["name"] == "Plan_1.free-tier"
    assert "limit 'Plan_1.free-tier' reached: limit" in refused.json["error"]["message"].replace("Limit", "limit")
    assert [verdict.quota.name for decision in told for verdict in decision.verdicts] == ["Plan_1.free-tier"]


def test_limit_on_slots_is_refused_under_its_name():
    served = limited()

    @served.app.post("/")
    @served.limiter.limit_concurrency(1, name="gpu")
    def answer():
        if "inner" in request.headers:
            return {}
        inner = served.client().post("/", headers={"inner": "1"})
        return jsonify(inner.json["violated-policies"], inner.json["error"]["message"])

    policies, message = served.client().post("/").json
    assert policies == ["gpu"]
    assert message.startswith("Concurrency limit 'gpu' reached: 1 of 1 in flight.")


@pytest.mark.parametrize("kind", ["limit", "limit_tokens"])
def test_several_limits_in_a_text_are_named_with_their_periods(kind):
    served = limited()
    served.app.get("/")(getattr(served.limiter, kind)("50 per minute; 900 per 2 days", name="plan")(nothing))
    assert policies(served.client().get("/")) == ["plan-per-minute", "plan-per-2-days"]


@pytest.mark.parametrize("provided", [False, True])
@pytest.mark.parametrize("kind", ["limit", "limit_tokens"])
def test_longest_name_has_room_for_its_period(kind, provided):
    served, name, text = limited(default_output_tokens=0), "x" * 64, "50 per 315360007 seconds; 9000 per 2 days"
    served.app.get("/")(getattr(served.limiter, kind)((lambda: text) if provided else text, name=name)(nothing))
    assert policies(served.client().get("/")) == [f"{name}-per-315360007-seconds", f"{name}-per-2-days"]


@pytest.mark.parametrize("options", [{}, {"name": "plan"}, {"in_headers": False}, {"on_store_error": "allow"}])
def test_cost_of_nothing_is_one_also_under_a_name(options):
    """As in Flask-Limiter."""
    served = limited()
    served.app.get("/")(served.limiter.limit("2 per day", cost=0, **options)(nothing))
    assert [served.client().get("/").status_code for _ in range(3)] == [200, 200, 429]


def test_equal_names_are_numbered_apart_from_names_that_end_in_a_number():
    served = limited()
    by_day = served.limiter.limit("9 per day", name="plan")
    by_hour = served.limiter.limit("9 per hour", name="plan-2")
    by_minute = served.limiter.limit("9 per minute", name="plan")
    served.app.get("/")(by_day(by_hour(by_minute(nothing))))
    names = policies(served.client().get("/"))
    assert len(set(names)) == 3
    assert names == ["plan", "plan-2", "plan-3"]


def test_name_is_no_part_of_the_count():
    """Two releases with another name for a limit count together."""
    served = limited()
    for place, name in enumerate(("old", "new")):
        limit = served.limiter.limit_tokens("9000 per day", scope="model", shared=True, name=name)
        served.app.get(f"/{place}", endpoint=name)(limit(lambda: served.limiter.record_usage(input_tokens=5) or {}))
    for path in ("/0", "/1"):
        served.client().get(path)
    assert (served.used(endpoint="old"), served.used(endpoint="new")) == ({"old": 10}, {"new": 10})


def test_two_names_of_one_count_are_charged_once():
    served = limited()
    one, two = (
        served.limiter.limit_tokens("100 per day", scope="model", shared=True, name=name) for name in ("one", "two")
    )

    @served.app.get("/")
    @one
    @two
    def answer():
        served.limiter.record_usage(input_tokens=7)
        return {}

    assert policies(served.client().get("/")) == ["two"]
    assert served.used() == {"two": 7}


def hidden(**options):
    """An app with a limit that clients are told of, and one that they are not."""
    served = limited(headers=[*DIALECTS], **options)

    @served.app.get("/")
    @served.limiter.limit("100 per minute")
    @served.limiter.limit(f"{SECRET} per day", cost=6000, in_headers=False, name="ceiling")
    def answer():
        return {}

    return served


@pytest.mark.parametrize("error_format", ["hybrid", "problem", "openai", "anthropic"])
def test_limit_that_is_nobody_s_business_is_in_no_header_and_no_body(error_format):
    served = hidden(error_format=error_format)
    answers = [served.client().get("/") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    for answer in answers:
        told = f"{answer.headers} {answer.get_data(as_text=True)}"
        assert SECRET not in told
        assert "ceiling" not in told
        assert answer.headers["X-RateLimit-Limit"] == "100"
        assert policies(answer) == ["requests-per-minute"]
    refused = answers[-1]
    assert 1 <= int(refused.headers["Retry-After"]) <= 86_400
    served.clock.advance(seconds=int(refused.headers["Retry-After"]))
    assert served.client().get("/").status_code == 200


def test_refusal_by_a_limit_that_is_nobody_s_business_says_when_to_come_back():
    served = hidden()
    for _ in range(2):
        served.client().get("/")
    body = served.client().get("/").json
    assert body["detail"].startswith("The service takes no such request at the moment. Try again in ")
    assert (body["error"]["code"], body["error"]["limit"]) == ("rate_limit_exceeded", None)
    assert "violated-policies" not in body


def test_request_that_such_a_limit_never_takes_is_a_413_without_numbers():
    served = limited()

    @served.app.post("/")
    @served.limiter.limit_tokens(f"{SECRET} per day", in_headers=False)
    def answer():
        return {}

    refused = served.client().post("/", json={"prompt": "Hi", "max_tokens": 20_000})
    assert (refused.status_code, refused.json["error"]["code"]) == (413, "cost_exceeds_limit")
    assert refused.json["detail"].startswith("This request is larger than the service takes.")
    assert SECRET not in refused.get_data(as_text=True) + str(refused.headers)


def test_meta_limit_of_such_a_limit_is_nobody_s_business_either():
    served = limited(headers=[*DIALECTS])
    limit = served.limiter.limit("1 per 3 seconds", in_headers=False, meta_limits=[f"1 per {SECRET} seconds"])
    served.app.get("/")(limit(nothing))
    answers = [served.client().get("/") for _ in range(2)]
    served.clock.advance(4)
    answers.append(served.client().get("/"))
    assert [answer.status_code for answer in answers] == [200, 429, 429]
    for answer in answers:
        told = str([value for name, value in answer.headers if "retry" not in name.lower()])
        assert SECRET not in told + answer.text
        assert "RateLimit" not in answer.headers
        assert "violated-policies" not in answer.text


@pytest.mark.parametrize("kind", ["limit", "limit_tokens"])
def test_such_a_limit_of_0_is_a_403_without_a_number(kind):
    served = limited()
    served.app.get("/")(getattr(served.limiter, kind)("0 per day", in_headers=False)(nothing))
    refused = served.client().get("/")
    assert (refused.status_code, refused.json["detail"]) == (403, "This request is not allowed. Waiting does not help.")


def test_handler_of_the_app_is_told_of_such_a_limit_and_its_usual_text_is_not():
    served = hidden()
    seen = []

    @served.app.errorhandler(429)
    def too_many(error):
        seen.append([verdict.quota.label for verdict in error.decision.refused])
        return jsonify(error=str(error), description=error.description), 429

    answers = [served.client().get("/") for _ in range(3)]
    assert seen == [["ceiling"]]
    assert SECRET not in answers[-1].get_data(as_text=True)


def test_flask_limiter_s_own_headers_leave_such_a_limit_out():
    served = limited(headers_enabled=True)

    @served.app.get("/")
    @served.limiter.limit(f"{SECRET} per day", cost=6000, in_headers=False)
    def answer():
        return {}

    for _ in range(3):
        assert SECRET not in str(served.client().get("/").headers)


def test_app_s_own_sentence_stands_in_such_a_refusal():
    served = limited()
    limit = served.limiter.limit("1 per day", in_headers=False, error_message="The house is full.")
    served.app.get("/")(limit(nothing))
    served.client().get("/")
    assert served.client().get("/").json["detail"] == "The house is full."


@pytest.mark.parametrize("name", ["", "two words", 'a"b', "a;b", "-a", "ä", "a\n", "x" * 65, 7, b"plan"])
def test_name_that_no_header_can_hold_is_refused_where_it_is_written(name):
    limiter = limited().limiter
    for decorate in (limiter.limit, limiter.limit_tokens):
        with pytest.raises(ConfigurationError, match="name: 1 to 64 letters, digits"):
            decorate("1 per day", name=name)
    with pytest.raises(ConfigurationError, match="name: 1 to 64 letters, digits"):
        limited(application_token_limits=[TokenLimit("1 per day", name=name)])


@pytest.mark.parametrize("told", [0, 1, None, "no"])
def test_in_headers_is_true_or_false(told):
    limiter = limited().limiter
    with pytest.raises(ConfigurationError, match="in_headers: True or False"):
        limiter.limit("1 per day", in_headers=told)
    with pytest.raises(ConfigurationError, match="in_headers: True or False"):
        limited(application_concurrency=ConcurrencyLimit(1, in_headers=told))


def test_callable_limit_keeps_its_name():
    served = limited()
    served.app.get("/", endpoint="t")(served.limiter.limit_tokens(lambda: "9 per day", name="plan")(nothing))
    served.app.get("/r", endpoint="r")(served.limiter.limit(lambda: "9 per day", name="calls")(nothing))
    assert (policies(served.client().get("/")), policies(served.client().get("/r"))) == (["plan"], ["calls"])
