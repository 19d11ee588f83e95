"""Limits by windows of a calendar and of a session, in decorators, settings and plans."""

from datetime import UTC, datetime

import pytest
from limited_apps import limited

from flask_ailimit import Caller, ConfigurationError, Payer, RequestsLimit, TokenLimit
from flask_ailimit.engine import Calendar

BERLIN = {"zone": "Europe/Berlin"}


def us(text):
    """A moment of UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**6


def served_at(now, decorate, **options):
    """An app with one view, which uses 5 tokens and 1 page, at this time of UTC."""
    served = limited(**options)
    served.clock.now_us = us(now)

    @served.app.post("/")
    @decorate(served.limiter)
    def answer():
        served.limiter.record_usage(input_tokens=5, units={"pages": 1})
        return {}

    return served


def status_at(served, now, **environ):
    served.clock.now_us = us(now)
    return served.client(**environ).post("/").status_code


KINDS = {
    "limit": lambda limiter, text, **options: limiter.limit(text.replace("5 per", "1 per"), **options),
    "limit_tokens": lambda limiter, text, **options: limiter.limit_tokens(text, **options),
    "limit_units": lambda limiter, text, **options: limiter.limit_units(
        "pages", text.replace("5 per", "1 per"), **options
    ),
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@every_kind
def test_day_ends_at_midnight_of_the_zone(kind):
    served = served_at("2026-11-30T10:00", lambda limiter: kind(limiter, "5 per calendar day", calendar=BERLIN))
    assert status_at(served, "2026-11-30T10:00") == 200
    assert status_at(served, "2026-11-30T22:59:59") == 429
    assert status_at(served, "2026-11-30T23:00") == 200
    assert status_at(served, "2026-12-01T22:59") == 429


@every_kind
def test_session_begins_with_its_first_call(kind):
    served = served_at("2026-11-30T10:07", lambda limiter: kind(limiter, "5 per session of 5 hours"))
    assert status_at(served, "2026-11-30T10:07") == 200
    assert status_at(served, "2026-11-30T15:06:59") == 429
    assert status_at(served, "2026-11-30T16:30") == 200
    assert status_at(served, "2026-11-30T21:29:59") == 429
    assert status_at(served, "2026-11-30T21:30") == 200


@every_kind
def test_setting_is_the_calendar_of_a_limit_without_one(kind):
    served = served_at(
        "2026-11-16T10:00",
        lambda limiter: kind(limiter, "5 per calendar month"),
        calendar={**BERLIN, "month_starts": 17},
    )
    assert status_at(served, "2026-11-16T10:00") == 200
    assert status_at(served, "2026-11-16T22:59") == 429
    assert status_at(served, "2026-11-16T23:00") == 200


def test_refusal_says_how_long_the_window_lasts():
    served = served_at("2026-11-30T22:00", lambda limiter: limiter.limit_tokens("5 per calendar day", calendar=BERLIN))
    client = served.client()
    assert client.post("/").status_code == 200
    refused = client.post("/")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "3600")
    assert "tokens-per-calendar-day" in refused.headers["RateLimit-Policy"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 per calendar day", "1 requests per calendar day (Europe/Berlin)"),
        ("1 per session of 5 hours", "1 requests per session of 18000 s"),
        ("1 per day", "1 per 1 day"),
    ],
)
def test_refusal_of_requests_says_which_windows(text, said):
    served = served_at("2026-11-30T22:00", lambda limiter: limiter.limit(text, calendar=BERLIN))
    client = served.client()
    assert client.post("/").status_code == 200
    assert client.post("/").json["error"]["limit"]["text"] == said


def test_limit_per_day_and_limit_per_calendar_day_are_two_counts():
    served = served_at("2026-11-30T10:00", lambda limiter: limiter.limit_tokens("9 per day; 7 per calendar day"))
    assert served.client().post("/").status_code == 200
    assert served.used() == {"tokens-per-day": 5, "tokens-per-calendar-day": 5}
    served.clock.now_us = us("2026-12-01T00:00")
    assert served.used() == {"tokens-per-day": 0, "tokens-per-calendar-day": 0}
    assert {each.charge.quota.algorithm for each in peeked(served)} == {"token-bucket", "window"}


def peeked(served):
    with served.app.test_request_context(environ_base={"REMOTE_ADDR": "192.0.2.1"}):
        return served.limiter.peek("answer", "alice").verdicts


def test_limits_whose_numbers_are_equal_are_all_told_of():
    text = "9 per day; 9 per calendar day; 9 per session of 1 day"
    for kind in (KINDS["limit"], KINDS["limit_tokens"]):
        served = served_at("2026-11-30T10:00", lambda limiter, kind=kind: kind(limiter, text))
        assert sorted(each.charge.quota.every for each in peeked(served)) == ["", "day", "session"]


def test_of_several_limits_of_one_window_the_lowest_holds():
    served = served_at("2026-11-30T10:00", lambda limiter: limiter.limit_tokens("9 per calendar day, 7/calendar day"))
    assert [each.charge.quota.limit for each in peeked(served)] == [7]


def test_limits_that_differ_in_their_calendar_alone_have_counts_of_their_own():
    def both(limiter):
        inner = limiter.limit_tokens("9 per calendar day", calendar={"zone": "Asia/Tokyo"})
        outer = limiter.limit_tokens("9 per calendar day", calendar=BERLIN)
        return lambda view: outer(inner(view))

    served = served_at("2026-11-30T14:00", both)
    assert served.client().post("/").status_code == 200
    assert [each.used for each in peeked(served)] == [5, 5]
    served.clock.now_us = us("2026-11-30T15:00")  # Midnight in Tokyo.
    assert sorted((each.charge.quota.calendar.zone, each.used) for each in peeked(served)) == [
        ("Asia/Tokyo", 0),
        ("Europe/Berlin", 5),
    ]


def test_callable_may_return_windows_of_a_calendar():
    served = served_at("2026-11-30T10:00", lambda limiter: limiter.limit_tokens(lambda: "5 per calendar day"))
    assert status_at(served, "2026-11-30T10:00") == 200
    assert status_at(served, "2026-11-30T23:59") == 429
    assert status_at(served, "2026-12-01T00:00") == 200


def test_limits_of_settings_may_have_a_calendar():
    served = served_at(
        "2026-11-30T10:00",
        lambda limiter: lambda view: view,
        application_limits=[RequestsLimit("3 per calendar week", calendar={"week_starts": "sunday"})],
        default_token_limits=[TokenLimit("5 per calendar day", calendar=Calendar("Europe/Berlin"))],
        calendar={"zone": "Asia/Tokyo"},
    )
    assert status_at(served, "2026-11-30T10:00") == 200
    assert status_at(served, "2026-11-30T22:59") == 429
    assert status_at(served, "2026-11-30T23:00") == 200
    assert status_at(served, "2026-12-01T23:00") == 200
    assert status_at(served, "2026-12-05T23:59") == 429
    assert status_at(served, "2026-12-06T00:00") == 200


def test_new_zone_holds_from_the_next_window_on(tmp_path):
    def served(zone):
        return served_at(
            "2026-11-30T20:00",
            lambda limiter: limiter.limit_tokens("5 per calendar day", calendar={"zone": zone}),
            storage_uri=f"local://{tmp_path}/limits",
        )

    before = served("Europe/Berlin")
    assert status_at(before, "2026-11-30T20:00") == 200
    after = served("America/New_York")
    try:
        # The window ends at midnight in Berlin, as was said when it began.
        assert status_at(after, "2026-11-30T22:59") == 429
        assert status_at(after, "2026-11-30T23:00") == 200
        # The next one ends at midnight in New York, which is 05:00.
        assert status_at(after, "2026-12-01T04:59") == 429
        assert status_at(after, "2026-12-01T05:00") == 200
    finally:
        for each in (before, after):
            with each.app.app_context():
                each.limiter.engine.close()


PLANS = {
    "calendar": BERLIN,
    "plans": {
        "pro": {"tokens": "5 per calendar day"},
        "odd": {"tokens": "5 per calendar day", "calendar": {"zone": "Asia/Tokyo"}},
        "session": {"requests": "1 per session of 5 hours"},
    },
}


def test_plan_has_the_calendar_of_the_file_or_its_own():
    served = limited(None, plans=PLANS, calendar={"zone": "America/New_York"})

    @served.limiter.identify
    def who():
        plan = served.app.config["PLAN"]
        return Caller(user=Payer(plan, plan=plan))

    @served.app.post("/")
    @served.limiter.limit_by_plan()
    def answer():
        served.limiter.record_usage(input_tokens=5)
        return {}

    for plan, end in [("pro", "2026-11-30T23:00"), ("odd", "2026-11-30T15:00"), ("session", "2026-11-30T15:00")]:
        served.app.config["PLAN"] = plan
        assert status_at(served, "2026-11-30T10:00") == 200
        served.clock.now_us = us(end) - 10**6
        assert served.client().post("/").status_code == 429
        assert status_at(served, end) == 200


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        (
            "limit_tokens",
            {"algorithm": "fixed-window"},
            "'fixed-window' can't count '9 per calendar day', which 'window'",
        ),
        ("limit_tokens", {"algorithm": "token-bucket"}, "'token-bucket' can't count '9 per calendar day'"),
        ("limit_tokens", {"burst": 20}, "burst: '9 per calendar day' has none"),
        ("limit_tokens", {"algorithm": "concurrency"}, "algorithm: use one of budget, fixed-window, moving-window,"),
        ("limit_tokens", {"calendar": "Berlin"}, "calendar: a table is needed"),
        (
            "limit_tokens",
            {"calendar": {"zon": "UTC"}},
            "Did you mean 'zone'? Allowed are zone, week_starts, month_starts",
        ),
        ("limit", {"calendar": {"zone": "Berlin"}}, "Did you mean 'Europe/Berlin'?"),
    ],
)
def test_what_a_window_of_a_calendar_can_t_have_is_refused_where_it_is_written(kind, options, said):
    served = limited()
    with pytest.raises(ConfigurationError) as refused:
        getattr(served.limiter, kind)("9 per calendar day", **options)
    assert said in str(refused.value)


@pytest.mark.parametrize("text", ["9 per calendar fortnight", "9 per week", "9 per session", "9 USD per day"])
def test_text_that_is_no_window_is_refused_where_it_is_written(text):
    for decorator in ("limit", "limit_tokens"):
        with pytest.raises(ConfigurationError):
            getattr(limited().limiter, decorator)(text)


@pytest.mark.parametrize("text", ["9 USD per day", "9.50 EUR per calendar day", "9 USD", "5 per day; 9 USD/hour"])
def test_limit_on_requests_that_is_written_in_money_names_the_decorator_for_it(text):
    with pytest.raises(ConfigurationError, match=r"^limit: '9.*' is money, .*limiter\.limit_budget\(\)"):
        limited().limiter.limit(text)


def test_calls_in_flight_have_no_calendar():
    with pytest.raises(ConfigurationError, match="calendar: a limit on calls in flight has no windows"):
        limited().limiter.limit_concurrency(4, calendar=BERLIN)


def test_setting_that_is_no_calendar_is_refused():
    with pytest.raises(ConfigurationError, match="Did you mean 'monday'"):
        limited(calendar={"week_starts": "Monday"})
    with pytest.raises(ConfigurationError, match="prices: a dictionary is needed"):
        limited(prices=["2.50 USD"])
