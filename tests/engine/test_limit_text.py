"""What an app writes for a limit, and what is read of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit.engine import Calendar, ConfigurationError, Quota, parse_quotas
from flask_ailimit.engine.calendars import EVERY
from flask_ailimit.engine.limit_text import parts_of, unit_of_money
from flask_ailimit.engine.quota import MAX_EXACT, NOMINAL_PERIODS

BERLIN = Calendar("Europe/Berlin", month_starts=17)
USD = 10**9


@pytest.mark.parametrize(
    ("text", "quotas"),
    [
        ("10 per minute", [(10, 60)]),
        ("10/minute", [(10, 60)]),
        (" 10  PER  Minutes ", [(10, 60)]),
        ("100/second; 5000 per 2 hours", [(100, 1), (5000, 7200)]),
        ("1/day, 2/month | 3/year", [(1, 86400), (2, 2_592_000), (3, 31_104_000)]),
        ("1 per 90 seconds", [(1, 90)]),
    ],
)
def test_text_is_read(text, quotas):
    assert parse_quotas(text) == tuple(Quota(*numbers) for numbers in quotas)


def test_text_takes_the_unit_algorithm_and_burst_it_is_given():
    assert parse_quotas("9/hour", unit="tokens", burst=5) == (Quota(9, 3600, "tokens", burst=5),)
    assert parse_quotas("9/hour", algorithm="moving-window") == (Quota(9, 3600, "requests", "moving-window"),)


@pytest.mark.parametrize(
    "text",
    [
        *("", "10", "ten per minute", "10 per fortnight", "10 per minute!", "10 per minute;", "10 per minute garbage"),
        *("-1 per minute", "1.5 per minute", "0 per minute", "10 per 0 minutes", "10 per 00 seconds"),
        *("99999999999999999/day", 5, None),
    ],
)
def test_text_that_is_not_wholly_understood_is_refused(text):
    with pytest.raises(ConfigurationError, match=r"(limit|period): "):
        parse_quotas(text)


def test_part_of_a_text_says_its_own_words_and_may_allow_nothing():
    assert parts_of("10 per minute; 00/2 hours", "plan") == (
        ("10 per minute", 10, 60, "plan-per-minute", "", ""),
        ("00/2 hours", 0, 7200, "plan-per-2-hours", "", ""),
    )
    assert parts_of(" 0 per day ", "plan") == (("0 per day", 0, 86400, "plan", "", ""),)
    assert parts_of("1/second|2/day") == (
        ("1/second", 1, 1, "", "", ""),
        ("2/day", 2, 86400, "", "", ""),
    )


def test_error_about_a_text_is_short_and_shows_an_example():
    with pytest.raises(ConfigurationError, match="such as '10000 per minute'") as refused:
        parse_quotas("x" * 10_000)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("10 per calendar hour", (10, 3600, "hour")),
        ("10 per calendar day", (10, 86400, "day")),
        ("10/calendar week", (10, 7 * 86400, "week")),
        (" 10  PER  Calendar  Months ", (10, 31 * 86400, "month")),
        ("10 per calendar quarter", (10, 92 * 86400, "quarter")),
        ("10 per calendar year", (10, 366 * 86400, "year")),
        ("10 per session of 5 hours", (10, 18000, "session")),
        ("10 per Session of hour", (10, 3600, "session")),
        ("10 per session of 90 seconds", (10, 90, "session")),
    ],
)
def test_text_names_a_window_of_a_calendar_or_of_a_session(text, window):
    (quota,) = parse_quotas(text, unit="tokens", calendar=BERLIN)
    assert (quota.limit, quota.period, quota.every) == window
    assert quota.algorithm == "window"
    assert quota.calendar == BERLIN  # a session has it, because its end is told in this zone


def test_windows_of_several_kinds_have_each_an_algorithm_and_a_name():
    quotas = parse_quotas("10 per minute; 90 per calendar day | 50 per session of 5 hours", label="plan", burst=None)
    assert [(each.algorithm, each.label) for each in quotas] == [
        ("token-bucket", "plan-per-minute"),
        ("window", "plan-per-calendar-day"),
        ("window", "plan-per-session-of-5-hours"),
    ]


@pytest.mark.parametrize(
    ("text", "limit", "every", "period"),
    [
        ("50 USD per calendar month", 50 * USD, "month", 31 * 86400),
        ("5 USD per session of 5 hours", 5 * USD, "session", 18000),
        ("5 USD per day", 5 * USD, "", 86400),
        ("2.50 USD per 12 hours", 5 * USD // 2, "", 43200),
        ("0.000000001 USD/second", 1, "", 1),
        ("10 USD", 10 * USD, "ever", NOMINAL_PERIODS["ever"]),
        ("0 USD per calendar month", 0, "month", 31 * 86400),
        ("9007199.254740991 USD", MAX_EXACT, "ever", NOMINAL_PERIODS["ever"]),
    ],
)
def test_text_of_a_budget_is_read_in_nano_units(text, limit, every, period):
    assert unit_of_money(text) == "nano_usd"
    (quota,) = parse_quotas(text, unit="nano_usd")
    assert (quota.limit, quota.every, quota.period, quota.algorithm) == (limit, every, period, "budget")


@pytest.mark.parametrize(
    ("text", "unit", "said"),
    [
        ("10 per week", "tokens", "write 'per calendar week'"),
        ("10 per quarter", "tokens", "write 'per calendar quarter'"),
        ("10 per calendar minute", "tokens", "A window of a calendar is one hour, day, week, month, quarter or year"),
        ("10 per calendar 2 days", "tokens", "A window of a calendar is one hour"),
        ("10 per calendar", "tokens", "Write a count and a period"),
        ("10 per session", "tokens", "Write a count and a period"),
        ("10 per session of 0 hours", "tokens", "Write a count and a period"),
        ("10 per session of 2 months", "tokens", "a month would be 30 days. Write 'per session of 30 days'"),
        ("10 per session of 1 quarter", "tokens", "can't read"),
        ("1.5 per day", "tokens", "can't read '1.5 per day'"),
        ("10", "tokens", "Write a count and a period"),
        ("5 USD per day", "tokens", "'5 USD per day' is money, which only a budget limits"),
        ("10 USD", "requests", "is money, which only a budget limits"),
        ("5 USD per month", "nano_usd", "a month would be 30 days. Write 'per calendar month'"),
        ("5 USD per year", "nano_usd", "a year would be 360 days. Write 'per calendar year'"),
        ("5 USD per week", "nano_usd", "write 'per calendar week'"),
        ("5 USD per fortnight", "nano_usd", "such as '50 USD per calendar month'"),
        ("5 per day", "nano_usd", "can't read '5 per day' as money. Write an amount, its currency and a window"),
        ("5 usd per day", "nano_usd", "as money"),
        ("$5 per day", "nano_usd", "as money"),
        ("-5 USD", "nano_usd", "as money"),
        ("0.0000000001 USD", "nano_usd", "as money"),
        (
            "5 USD per day; 3 EUR per day",
            "nano_usd",
            "'3 EUR per day' is not in USD. No currency is turned into another",
        ),
        ("9007199.254740992 USD", "nano_usd", "is more than 9007199.254740991 USD"),
        ("", "nano_usd", "as money"),
        (5, "nano_usd", "a limit is a text"),
    ],
)
def test_text_that_names_no_such_window_is_refused_with_what_to_write(text, unit, said):
    with pytest.raises(ConfigurationError) as refused:
        parse_quotas(text, unit=unit)
    assert said in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("algorithm", ["token-bucket", "fixed-window", "sliding-window-counter", "moving-window"])
def test_algorithm_without_such_windows_is_refused(algorithm):
    for text in ("9 per calendar day", "9 per session of 5 hours", "1 per minute; 9 per calendar day"):
        with pytest.raises(
            ConfigurationError, match=f"algorithm: '{algorithm}' can't count '9 per .*Leave algorithm out"
        ):
            parse_quotas(text, algorithm=algorithm)
    with pytest.raises(ConfigurationError, match=f"algorithm: '{algorithm}' can't count '9 USD', which 'budget' does"):
        parse_quotas("9 USD", unit="nano_usd", algorithm=algorithm)


def test_algorithm_of_windows_may_be_named_and_counts_fixed_lengths_too():
    quotas = parse_quotas("9 per calendar day; 1 per minute", algorithm="window")
    assert [each.algorithm for each in quotas] == ["window", "window"]


def test_burst_of_a_window_that_has_none_is_refused():
    for text, unit in (("9 per calendar day", "tokens"), ("9 per session of 5 hours", "tokens"), ("9 USD", "nano_usd")):
        with pytest.raises(ConfigurationError, match=f"burst: '{text}' has none"):
            parse_quotas(text, unit=unit, burst=20)


def test_unit_of_money_is_that_of_the_first_currency_in_a_text():
    assert unit_of_money("5 EUR per day; 3 USD") == "nano_eur"
    for text in ("5 per day", "", None, "5 eur", "EUR"):
        with pytest.raises(ConfigurationError, match="as money"):
            unit_of_money(text)


WINDOWS = st.one_of(
    st.sampled_from([f"calendar {every}" for every in EVERY]),
    st.builds(
        "{}{} {}s".format, st.sampled_from(["", "session of "]), st.integers(1, 99), st.sampled_from(["hour", "day"])
    ),
)
AMOUNTS = st.integers(0, MAX_EXACT).map(lambda nano: f"{nano // USD}.{nano % USD:09d}")


@given(st.one_of(st.none(), WINDOWS), AMOUNTS, st.sampled_from(["USD", "EUR", "JPY"]))
def test_budget_that_is_spelled_anew_is_read_as_the_same(window, amount, currency):
    unit = f"nano_{currency.lower()}"
    (part,) = parts_of(f"{amount} {currency}" + (f" per {window}" if window else ""), "", unit)
    (again,) = parts_of(part.spelled, "", unit)
    assert again._replace(text="") == part._replace(text="")
    assert again.spelled == part.spelled


@given(WINDOWS, st.integers(0, 10**15))
def test_limit_that_is_spelled_anew_is_read_as_the_same(window, limit):
    (part,) = parts_of(f"{limit} per {window}")
    (again,) = parts_of(part.spelled)
    assert again._replace(text="") == part._replace(text="")


@given(st.text("0123456789 ./;perclndauysionfhUSD", max_size=40), st.sampled_from(["tokens", "nano_usd"]))
def test_any_text_is_read_or_refused(text, unit):
    try:
        quotas = parse_quotas(text, unit=unit)
    except ConfigurationError:
        return
    assert all(each.unit == unit for each in quotas)
