"""Limits on a unit of the app's own, such as pages: reserved before the view, settled with what it records."""

import pytest
from flask import Response, request, stream_with_context
from limited_apps import limited

from flask_ailimit import ConfigurationError, usage_settled


def nothing():
    return {}


@pytest.fixture
def ocr():
    """An app that reads pages, ten a day for each key; a request says what its view does."""
    served = limited()

    @served.app.post("/")
    @served.limiter.limit_units("pages", "10 per day", cost=lambda: request.args.get("cost", 1, int))
    def answer():
        for pages in request.args.getlist("pages", int):
            served.limiter.record_usage(units={"pages": pages})
        if "raise" in request.args:
            raise RuntimeError
        return {}, request.args.get("status", 200, int)

    return served


def pages(served):
    (used,) = served.used().values()
    return used


def settlements(app):
    told = []
    usage_settled.connect(lambda _, **facts: told.append(facts), app, weak=False)
    return told


@pytest.mark.parametrize(
    ("query", "charged"),
    [
        ("pages=3", 3),
        ("cost=5&pages=3", 3),
        ("pages=2&pages=4", 6),
        ("pages=0", 0),
        ("", 1),
        ("cost=4", 4),
        ("cost=4&status=500", 0),
        ("cost=4&status=302", 0),
        ("cost=4&status=500&pages=2", 2),
        ("cost=0&pages=12", 10),  # Two more are owed.
    ],
)
def test_what_was_recorded_is_charged_else_what_was_reserved(ocr, query, charged):
    assert ocr.client().post(f"/?{query}").status_code in {200, 302, 500}
    assert pages(ocr) == charged


@pytest.mark.parametrize(("query", "charged"), [("raise=1", 0), ("raise=1&pages=2", 2)])
def test_view_that_raises_is_charged_what_it_recorded(ocr, query, charged):
    assert ocr.client().post(f"/?{query}").status_code == 500
    assert pages(ocr) == charged


def test_refusal_names_the_unit_and_a_wait_that_is_true(ocr):
    ocr.client().post("/?pages=9")
    refused = ocr.client().post("/?cost=3")
    error = refused.json["error"]
    assert (refused.status_code, error["code"], error["limit"]["name"]) == (429, "rate_limit_exceeded", "pages-per-day")
    assert "limit 10 pages per 86400 s, used 9, requested 3" in error["message"]
    ocr.clock.advance(seconds=float(refused.headers["Retry-After"]))
    assert ocr.client().post("/?cost=3").status_code == 200


@pytest.mark.parametrize("cost", [11, 2**53, 10**30])
def test_request_that_needs_more_than_the_limit_is_a_413(ocr, cost):
    refused = ocr.client().post(f"/?cost={cost}")
    assert (refused.status_code, refused.json["error"]["code"]) == (413, "cost_exceeds_limit")


def test_what_was_used_beyond_the_limit_is_owed(ocr):
    ocr.client().post("/?pages=20")
    refused = ocr.client().post("/")
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) == 86_400 * 11 // 10
    assert refused.headers["RateLimit-Policy"] == '"pages-per-day";q=10;qu="pages";w=86400'


def test_units_are_recorded_beside_tokens_and_leave_these_as_they_are():
    served = limited()

    @served.app.post("/")
    @served.limiter.limit_tokens("1000 per minute")
    @served.limiter.limit_units("images", "10 per day")
    def answer():
        served.limiter.record_usage(units={"images": 2})
        return {"usage": {"prompt_tokens": 5, "completion_tokens": 7}}

    told = settlements(served.app)
    assert served.client().post("/", json={"prompt": "Draw"}).status_code == 200
    assert served.used() == {"tokens-per-minute": 12, "images-per-day": 2}
    (event,) = told
    assert (event["source"], event["usage"].total_tokens, event["units"]) == ("reported", 12, {"images": 2})
    assert event["charged"] == {"tokens": 12, "images": 2}


def test_unit_that_no_limit_counts_is_in_the_event():
    served = limited(default_limits=["9 per minute"])

    @served.app.post("/")
    def answer():
        served.limiter.record_usage(units={"seconds_of_audio": 61})
        return {}

    told = settlements(served.app)
    served.client().post("/")
    assert [event["units"] for event in told] == [{"seconds_of_audio": 61}]


def test_stream_records_units_while_it_runs():
    served = limited()

    @served.app.post("/")
    @served.limiter.limit_units("pages", "10 per day", cost=5)
    def answer():
        def pages():
            for number in range(3):
                served.limiter.record_usage(units={"pages": 1})
                yield f"page {number}\n"

        return Response(stream_with_context(pages()), mimetype="text/plain")

    client = served.client()
    with client.post("/", buffered=False) as response:
        assert served.used() == {"pages-per-day": 5}
        assert response.get_data(as_text=True).count("page") == 3
    assert served.used() == {"pages-per-day": 3}


def test_units_recorded_after_the_answer_are_a_settlement_of_their_own(ocr):
    told = settlements(ocr.app)

    @ocr.app.after_request
    def count_again(response):
        return response

    # The limiter's hook runs before those that were registered before it, so these come after the settlement.
    ocr.app.after_request_funcs[None].insert(
        0, lambda response: ocr.limiter.record_usage(units={"pages": 2}) or response
    )
    ocr.client().post("/?pages=1")
    assert pages(ocr) == 3
    assert [event["units"] for event in told] == [{"pages": 1}, {"pages": 2}]
    assert [event["charged"] for event in told] == [{"pages": 1}, {"pages": 2}]


@pytest.mark.parametrize("heard", [True, False])
def test_units_recorded_after_the_answer_charge_no_tokens(heard):
    """Limits may have reserved different numbers of tokens, and all stay as they are if the usage is unknown."""

    def count(text):
        return 1 // 0 if text == "the answer" else 5

    served = limited(token_counter=count)

    @served.app.post("/")
    @served.limiter.limit_units("pages", "10 per day")
    @served.limiter.limit_tokens("9000 per day", name="little", default_output_tokens=10)
    @served.limiter.limit_tokens("8000 per day", name="much", default_output_tokens=1000)
    def answer():
        return {"text": "the answer"}

    told = settlements(served.app) if heard else []
    served.app.after_request_funcs[None].insert(
        0, lambda response: served.limiter.record_usage(units={"pages": 3}) or response
    )
    assert served.client().post("/", json={"prompt": "Read"}).status_code == 200
    used = served.used()
    assert (used["little"], used["much"], used["pages-per-day"]) == (used["much"] - 990, used["much"], 3)
    assert [event["charged"]["tokens"] for event in told] == [used["much"], 0][: len(told)]


def test_events_sum_to_what_the_most_charged_limit_of_a_unit_counted():
    served = limited()

    @served.app.post("/")
    @served.limiter.limit_units("pages", "10 per day", name="one", cost=1)
    @served.limiter.limit_units("pages", "20 per day", name="none", cost=0)
    def answer():
        return {}

    told = settlements(served.app)
    served.app.after_request_funcs[None].insert(
        0, lambda response: served.limiter.record_usage(units={"pages": 1}) or response
    )
    served.client().post("/")
    assert served.used() == {"one": 1, "none": 1}
    assert [event["charged"] for event in told] == [{"pages": 1}, {"pages": 0}]


@pytest.mark.parametrize("hands_over", [False, True])
def test_event_tells_each_call_of_a_limited_function_that_was_counted(hands_over):
    served = limited()

    @served.limiter.limit("10 per day", name="calls")
    def search():
        return {}

    @served.app.post("/")
    @served.limiter.limit("20 per day")
    def answer():
        for _ in range(3):
            search()
        return {"token": served.limiter.hand_over() if hands_over else None}

    told = settlements(served.app)
    answers = [served.client().post("/") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    for answer in answers[:3] if hands_over else ():
        with served.app.app_context():
            served.limiter.take_over(answer.json["token"]).settle()
    assert [event["charged"] for event in told] == [{"requests": 3}] * 3


@pytest.mark.parametrize("kind", ["limit", "limit_tokens"])
def test_what_no_limit_counts_is_told_also_if_it_is_recorded_after_the_answer(kind):
    served = limited()

    @served.app.post("/")
    @getattr(served.limiter, kind)("9000 per day")
    def answer():
        def events():
            served.limiter.record_usage(input_tokens=5)
            yield "data: [DONE]\n\n"
            served.limiter.record_usage(units={"pages": 3})
            served.limiter.record_usage(input_tokens=7)

        return Response(stream_with_context(events()), mimetype="text/event-stream")

    told = settlements(served.app)
    served.client().post("/", json={"prompt": "Read"}).get_data()
    assert [event["number"] for event in told] == [1, 2, 3]
    assert [event["usage"].total_tokens for event in told] == [5, 0, 7]
    assert [event["units"] for event in told] == [{}, {"pages": 3}, {}]
    counted = "requests" if kind == "limit" else "tokens"
    assert sum(event["charged"][counted] for event in told) == served.used()[f"{counted}-per-day"]


def test_work_that_is_handed_over_settles_units():
    served = limited()

    @served.app.post("/")
    @served.limiter.limit_units("pages", "10 per day", cost=4)
    def answer():
        served.limiter.record_usage(units={"pages": 1})
        return {"token": served.limiter.hand_over()}, 202

    told = settlements(served.app)
    token = served.client().post("/").json["token"]
    assert pages(served) == 4
    with served.app.app_context(), served.limiter.take_over(token) as work:
        work.record_usage(units={"pages": 2})
    assert pages(served) == 3
    assert [(event["source"], event["units"], event["charged"]) for event in told] == [
        ("recorded", {"pages": 3}, {"pages": 3})
    ]


def test_unit_counts_apart_for_each_view_and_together_with_a_shared_scope():
    served = limited()
    for door in ("one", "two"):
        shared = served.limiter.limit_units("pages", "10 per day", scope="pages", shared=True)
        own = served.limiter.limit_units("images", "10 per day")
        served.app.post(f"/{door}", endpoint=door)(shared(own(nothing)))
    for path in ("/one", "/two"):
        served.client().post(path)
    assert served.used(endpoint="one") == {"pages-per-day": 2, "images-per-day": 1}


def test_unit_takes_the_options_of_other_limits():
    served = limited()

    @served.app.post("/")
    @served.limiter.limit_units("pages", "2 per day", algorithm="fixed-window", name="scans", exempt_when=lambda: False)
    def answer():
        return {}

    answers = [served.client().post("/") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[-1].json["violated-policies"] == ["scans"]


def test_failing_cost_counts_as_one(ocr):
    @ocr.app.post("/fails")
    @ocr.limiter.limit_units("pages", "10 per day", cost=lambda: 1 // 0)
    def fails():
        return {}

    assert ocr.client().post("/fails").status_code == 200
    assert ocr.used(endpoint="fails") == {"pages-per-day": 1}


@pytest.mark.parametrize("unit", ["gate", "turns"])
def test_unit_may_have_the_name_of_what_calls_to_providers_count(ocr, unit):
    """Conversations have turns, and a car park has gates."""
    ocr.limiter.limit_units(unit, "1 per day")


@pytest.mark.parametrize("unit", ["tokens", "requests", "concurrency", "output_tokens", "Pages", "", "a b", 7, None])
def test_unit_must_be_a_name_of_one_s_own(ocr, unit):
    with pytest.raises(ConfigurationError, match="unit: a name of your own"):
        ocr.limiter.limit_units(unit, "1 per day")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cost": -1}, "cost: a whole number"),
        ({"cost": True}, "cost: a whole number"),
        ({"cost": "1"}, "cost: a whole number"),
        ({"cost": 11}, "cost: 11 never fits a limit of 10 pages"),
        ({"burst": 0}, "burst: a whole number from 1"),
        ({"algorithm": "leaky"}, "algorithm: use one of"),
        ({"algorithm": "gate"}, "algorithm: use one of"),
        ({"algorithm": "turns"}, "algorithm: use one of"),
        ({"algorithm": "provider-bucket"}, "algorithm: use one of"),
        ({"name": "two words"}, "name: 1 to 64 letters"),
    ],
)
def test_wrong_option_is_refused_where_it_is_written(ocr, options, says):
    with pytest.raises(ConfigurationError, match=says):
        ocr.limiter.limit_units("pages", "10 per day", **options)


@pytest.mark.parametrize(
    ("units", "says"),
    [
        ({"pages": -1}, "units: pages: a whole number"),
        ({"pages": 1.5}, "units: pages: a whole number"),
        ({"pages": True}, "units: pages: a whole number"),
        ({"tokens": 1}, "units: .*Tokens have arguments of their own"),
        ({"": 1}, "units: unit: a name of your own"),
        ([("pages", 1)], "units: a mapping is needed"),
    ],
)
def test_wrong_record_is_a_value_error_and_records_nothing(ocr, units, says):
    with ocr.app.test_request_context("/", method="POST"), pytest.raises(ValueError, match=says):
        ocr.limiter.record_usage(units=units)
