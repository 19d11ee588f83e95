"""A limit that is nearly used up: the answers say so, and the app is told once in a window."""

import pytest
from flask import Response
from limited_apps import limited

from flask_ailimit import (
    AILimiter,
    Caller,
    ConcurrencyLimit,
    ConfigurationError,
    Payer,
    RequestsLimit,
    TokenLimit,
    soft_limit_passed,
    usage_settled,
)

NEAR = "x-ratelimit-near-limit"
USAGE = {"usage": {"prompt_tokens": 0, "completion_tokens": 300}}


def words(text):
    return len(text.split())


words.exact = True


@pytest.fixture
def heard():
    """Connects to an app, and answers what it is told from then on."""
    receivers = []

    def listen(served):
        told = []

        def receive(sender, **facts):
            assert sender is served.app
            told.append(facts)

        receivers.append(receive)
        soft_limit_passed.connect(receive, served.app)
        return told

    return listen


def served_by(*decorators, answer=dict, **options):
    """An app with one view, which stands below what these functions make of the limiter."""
    served = limited(token_counter=words, **options)

    def view():
        return answer()

    for decorate in decorators:
        view = decorate(served.limiter)(view)
    served.app.add_url_rule("/", "answer", view, methods=["GET", "POST"])
    return served


def ask(served, key="alice", **options):
    response = served.client(key).post("/", **{"json": {"prompt": "one two", "max_tokens": 400}, **options})
    response.get_data()
    response.close()
    return response


def near(served, times=1, **options):
    return [ask(served, **options).headers.get(NEAR) for _ in range(times)]


def of_requests(text="10 per minute", **options):
    return lambda limiter: limiter.limit(text, **options)


def of_tokens(text="1000 per minute", **options):
    return lambda limiter: limiter.limit_tokens(text, **options)


# The signal


def test_app_is_told_once_in_a_window_by_the_request_that_passes(heard):
    served = served_by(of_requests(), soft_percent=80)
    told = heard(served)
    answers = [ask(served) for _ in range(12)]
    with served.app.app_context():
        subject = served.limiter.subject("alice").hex()
    assert told == [
        {
            "unit": "requests",
            "limit": 10,
            "burst": 10,
            "period": 60,
            "name": "requests-per-minute",
            "soft_percent": 80,
            "used": 8,
            "remaining": 2,
            "reset_after": 60.0,
            "subject": subject,
            "role": None,
            "plan": None,
            "label": None,
            "endpoint": "answer",
            "request_id": answers[7].headers["x-request-id"],
        }
    ]


def test_each_window_and_each_client_is_told_of(heard):
    served = served_by(of_requests(), soft_percent=80)
    told = heard(served)
    near(served, 9, key="alice")
    near(served, 9, key="bob")
    served.clock.advance(60)
    near(served, 9, key="alice")
    assert [facts["used"] for facts in told] == [8, 8, 8]
    assert len({facts["subject"] for facts in told}) == 2


@pytest.mark.parametrize("algorithm", ["fixed-window", "moving-window", "sliding-window-counter", "token-bucket"])
def test_tokens_are_told_of_by_what_was_used_and_not_by_what_was_reserved(heard, algorithm):
    served = served_by(of_tokens(algorithm=algorithm), answer=lambda: USAGE, soft_percent=80)
    told = heard(served)
    assert near(served, 1) == [None]
    assert near(served, 1) == [None]
    assert [(facts["unit"], facts["used"]) for facts in told] == []
    ask(served)  # 600 are used, and 402 would be more than the limit.
    assert told == []
    ask(served, json={"prompt": "one two", "max_tokens": 100})
    assert [(facts["unit"], facts["used"], facts["remaining"]) for facts in told] == [("tokens", 900, 100)]


def test_reservation_that_reaches_far_is_not_told_of_if_it_is_given_back(heard):
    served = served_by(of_tokens("450 per minute"), answer=lambda: USAGE, soft_percent=80)
    told = heard(served)
    assert near(served) == ["tokens-per-minute"]  # 402 are reserved, so a request at the same time has 48 left.
    assert told == []
    assert served.tokens() == 300


def test_stream_says_at_its_start_what_is_near_and_is_told_of_at_its_end(heard):
    def story():
        yield "three "
        told_before.extend(told)
        yield "four"

    served = served_by(
        of_requests("5 per minute"),
        of_tokens("400 per minute", default_output_tokens=2),
        answer=lambda: Response(story(), mimetype="text/plain"),
        soft_percent=1,
    )
    told, told_before = heard(served), []
    response = ask(served, json={"prompt": "one two", "max_tokens": 2})
    assert response.headers[NEAR] == "requests-per-minute, tokens-per-minute"
    assert told_before == []
    assert [(facts["name"], facts["used"]) for facts in told] == [("requests-per-minute", 1), ("tokens-per-minute", 4)]


def test_it_is_told_after_the_bill():
    served = served_by(of_requests(), soft_percent=10)
    order = []
    settled = lambda *_, **facts: order.append("settled")  # noqa: E731
    passed = lambda *_, **facts: order.append("passed")  # noqa: E731
    with usage_settled.connected_to(settled, served.app), soft_limit_passed.connected_to(passed, served.app):
        ask(served)
    assert order == ["settled", "passed"]


def test_receiver_that_raises_changes_no_answer(caplog):
    served = served_by(of_requests(), soft_percent=10)

    def receive(sender, **facts):
        raise ValueError(facts["subject"])

    with soft_limit_passed.connected_to(receive, served.app):
        assert ask(served).status_code == 200
    assert "A receiver of soft-limit-passed raised ValueError at" in caplog.text


def test_request_that_fails_gives_its_tokens_back_and_its_request_is_told_of(heard):
    served = served_by(
        of_requests("1 per minute"), of_tokens("402 per minute"), answer=lambda: Response("no", 500), soft_percent=80
    )
    told = heard(served)
    ask(served)
    assert [facts["name"] for facts in told] == ["requests-per-minute"]


def test_refused_request_tells_nothing(heard):
    served = served_by(of_requests("4 per minute"), of_tokens("100 per minute"), soft_percent=50)
    told = heard(served)
    assert [ask(served).status_code for _ in range(4)] == [413] * 4
    assert told == []


def test_limit_on_refusals_is_told_of_by_the_refusal_that_passes(heard):
    served = served_by(of_requests("1 per minute", soft_percent=0), meta_limits=["5 per hour"], soft_percent=80)
    told = heard(served)
    assert [ask(served).status_code for _ in range(7)] == [200, *[429] * 6]
    assert [(facts["name"], facts["used"]) for facts in told] == [("requests-per-hour", 4)]


def test_work_that_was_handed_over_is_told_of_by_who_ends_it(heard):
    served = served_by(of_tokens(name="plan"), answer=lambda: {"token": served.limiter.hand_over()}, soft_percent=80)
    told = heard(served)
    response = ask(served)
    assert told == []
    with served.app.app_context(), served.limiter.take_over(response.json["token"]) as work:
        work.record_usage(output_tokens=900)
    ((facts),) = told
    assert (facts["name"], facts["used"], facts["endpoint"]) == ("plan", 900, "answer")
    assert facts["request_id"] == response.headers["x-request-id"]


def test_requests_alone_cost_one_more_step_in_a_window(monkeypatch):
    served = served_by(of_requests(), soft_percent=80)
    with served.app.app_context():
        store = served.limiter.engine.store
    calls, settle = [], store.settle
    monkeypatch.setattr(store, "settle", lambda settlements: calls.append(len(settlements)) or settle(settlements))
    near(served, 12)
    assert calls == [1]
    served.clock.advance(60)
    near(served, 12)
    assert calls == [1, 1]


# The header


def test_answers_above_say_which_limits_are_nearly_used_up():
    served = served_by(
        of_requests("5 per minute; 20 per day"),
        of_tokens("100000 per minute"),
        of_requests("4 per hour"),
        soft_percent=80,
    )
    both = "requests-per-minute, requests-per-hour"
    assert near(served, 5) == [None, None, None, both, both]
    assert ask(served).status_code == 429


def test_limits_of_one_name_are_numbered_as_in_the_policy():
    served = served_by(
        of_requests("9 per minute", scope="a", soft_percent=0), of_requests("2 per minute", scope="b", soft_percent=50)
    )
    headers = ask(served).headers
    assert headers["RateLimit-Policy"] == '"requests-per-minute";q=9;w=60, "requests-per-minute-2";q=2;w=60'
    assert headers[NEAR] == "requests-per-minute-2"


def test_limit_that_clients_are_not_told_of_is_not_named(heard):
    served = served_by(of_requests("5 per minute", in_headers=False), of_requests("9 per hour"), soft_percent=10)
    told = heard(served)
    assert near(served) == ["requests-per-hour"]
    assert [facts["name"] for facts in told] == ["requests-per-minute", "requests-per-hour"]


@pytest.mark.parametrize("headers", [[], ["openai"], ["ietf"], ["anthropic"], ["x-ratelimit"]])
def test_header_comes_with_every_dialect_and_not_without_any(headers):
    served = served_by(of_requests(), soft_percent=10, headers=headers)
    assert near(served) == ["requests-per-minute" if headers else None]


def test_answer_without_soft_percent_has_no_such_header(heard):
    served = served_by(of_requests("2 per minute"), of_tokens("1000 per minute"))
    told = heard(served)
    assert near(served, 4) == [None] * 4
    assert told == []


def test_header_that_a_view_passes_on_from_a_provider_is_replaced_by_ours():
    served = served_by(of_requests(), answer=lambda: Response("", headers={NEAR: "theirs"}), soft_percent=10)
    assert ask(served).headers.getlist(NEAR) == ["requests-per-minute"]


# Where it is set


def test_limit_may_have_its_own_and_0_is_none(heard):
    served = served_by(
        of_requests("10 per minute", soft_percent=50),
        of_requests("10 per hour", soft_percent=0),
        of_requests("10 per day"),
        soft_percent=80,
    )
    told = heard(served)
    near(served, 10)
    assert [(facts["name"], facts["soft_percent"]) for facts in told] == [
        ("requests-per-minute", 50),
        ("requests-per-day", 80),
    ]


def test_every_kind_of_limit_over_time_has_it_and_calls_in_flight_do_not(heard):
    served = limited(
        token_counter=words,
        default_limits=[RequestsLimit("10 per minute", soft_percent=1, name="default")],
        application_limits=["10 per hour"],
        application_token_limits=[TokenLimit("1000 per minute", soft_percent=2)],
        default_token_limits=["1000 per hour"],
        address_limits=["10 per day"],
        application_concurrency=[1, ConcurrencyLimit(2, name="two")],
        config={"AILIMIT_SOFT_PERCENT": 3},
    )
    view = served.limiter.limit_units("pages", "10 per minute")(lambda: USAGE)
    served.app.add_url_rule("/", "answer", view, methods=["POST"])
    told = heard(served)
    headers = ask(served, json={"prompt": "one two", "max_tokens": 100}).headers
    assert {facts["name"]: facts["soft_percent"] for facts in told} == {
        "default": 1,
        "requests-per-hour": 3,
        "address": 3,
        "tokens-per-minute": 2,
        "tokens-per-hour": 3,
        "pages-per-minute": 3,
    }
    assert "concurrency" not in headers[NEAR]
    assert "two" not in headers[NEAR]


@pytest.mark.parametrize("soft_percent", [101, -1, 80.5, "80", True])
def test_wrong_soft_percent_is_refused_where_it_is_written(soft_percent):
    wrong = "soft_percent: a whole number from 1 to 100 is needed, such as 80, or 0 for none"
    for write in (
        lambda: limited(soft_percent=soft_percent),
        lambda: served_by(of_requests(soft_percent=soft_percent)),
        lambda: served_by(of_tokens(soft_percent=soft_percent)),
        lambda: served_by(lambda limiter: limiter.limit_units("pages", "9 per day", soft_percent=soft_percent)),
        lambda: limited(default_limits=[RequestsLimit("9 per day", soft_percent=soft_percent)]),
        lambda: limited(default_token_limits=[TokenLimit("9 per day", soft_percent=soft_percent)]),
        lambda: planned({"free": {"requests": "9 per day", "soft_percent": soft_percent}}),
        lambda: planned({"free": {"requests": {"limit": "9 per day", "soft_percent": soft_percent}}}),
    ):
        with pytest.raises(ConfigurationError, match=wrong):
            write()


def test_calls_in_flight_are_refused_one_and_why_is_said():
    why = "soft_percent: a limit on calls in flight has none, because it has no window"
    limiter = AILimiter(lambda: "alice")
    with pytest.raises(ConfigurationError, match=why):
        limiter.limit_concurrency(4, soft_percent=80)
    with pytest.raises(ConfigurationError, match=why):
        limited(application_concurrency=[ConcurrencyLimit(4, soft_percent=80)])
    limiter.limit_concurrency(4, soft_percent=0)


# Plans


def planned(plans, **options):
    served = limited(None, token_counter=words, plans={"plans": plans, **options.pop("more", {})}, **options)
    served.limiter.identify(
        lambda: Caller(user=Payer(7, "free", label="Ann"), organisation=Payer(7, "team") if "team" in plans else None)
    )
    view = served.limiter.limit_by_plan()(lambda: USAGE)
    served.app.add_url_rule("/", "answer", view, methods=["POST"])
    return served


def test_plan_has_it_for_all_its_limits_and_a_limit_for_itself(heard):
    served = planned(
        {
            "free": {
                "requests": "10 per minute",
                "tokens": {"limit": "3000 per minute", "soft_percent": 10},
                "units": {"pages": {"limit": "99 per day", "soft_percent": 0}},
                "concurrency": 2,
                "models": {"*": {"requests": "10 per hour"}},
                "soft_percent": 20,
            },
            "team": {"requests": "10 per minute"},
        },
        more={"service": {"requests": "10 per minute", "soft_percent": 50}},
        soft_percent=100,
    )
    told = heard(served)
    near(served, 2, json={"model": "small-1", "prompt": "one", "max_tokens": 99})
    assert [(facts["role"], facts["name"], facts["soft_percent"]) for facts in told] == [
        ("user", "tokens-per-minute", 10),
        ("user", "requests-per-minute", 20),
        ("user", "requests-per-hour", 20),
    ]
    near(served, 3, json={"model": "small-1", "prompt": "one", "max_tokens": 1})
    assert [(facts["role"], facts["used"]) for facts in told[3:]] == [("service", 5)]
    near(served, 5, json={"model": "small-1", "prompt": "one", "max_tokens": 1})
    assert [(facts["role"], facts["used"]) for facts in told[4:]] == [("organisation", 10)]


def test_event_says_whose_limit_it_is(heard):
    served = planned({"free": {"requests": "2 per minute"}, "team": {"requests": "1 per minute"}}, soft_percent=50)
    told = heard(served)
    assert near(served) == ["requests-per-minute"]  # Clients are told of the first payer's.
    with served.app.app_context():
        subjects = [served.limiter.engine.subject(role, "7").hex() for role in ("user", "organisation")]
    assert sorted(
        [(facts["role"], facts["plan"], facts["label"], facts["subject"]) for facts in told], reverse=True
    ) == [
        ("user", "free", "Ann", subjects[0]),
        ("organisation", "team", None, subjects[1]),
    ]


def test_calls_in_flight_of_a_plan_can_not_be_given_one():
    with pytest.raises(
        ConfigurationError, match=r"concurrency\.soft_percent: soft_percent: a limit on calls in flight"
    ):
        planned({"free": {"concurrency": {"limit": 2, "soft_percent": 80}}})


def test_plan_that_says_0_has_none_under_a_setting(heard):
    served = planned({"free": {"requests": "2 per minute", "soft_percent": 0}}, soft_percent=50)
    told = heard(served)
    assert near(served, 2) == [None, None]
    assert told == []


def test_raised_limit_keeps_the_soft_percent_of_its_plan(heard):
    served = planned({"free": {"requests": "2 per minute", "soft_percent": 50}})
    told = heard(served)
    with served.app.app_context():
        served.limiter.admin.raise_limit("user:7", "requests", "10 per minute", reason="a call", by="me")
    assert near(served, 5) == [*[None] * 4, "requests-per-minute"]
    assert [(facts["limit"], facts["used"], facts["plan"]) for facts in told] == [(10, 5, "free")]
