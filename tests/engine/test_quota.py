import dataclasses

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from flask_ailimit.engine import ConfigurationError, Quota, parse_quotas
from flask_ailimit.engine.quota import MAX_EXACT, PERIODS, parts_of


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, None, "10", float("nan"), 2**53, 2**53 + 1])
def test_limit_that_is_no_count_is_refused(limit):
    with pytest.raises(ConfigurationError, match="limit: a whole number from 1 to 9007199254740991 is needed"):
        Quota(limit, 60)


@pytest.mark.parametrize("burst", [-1, 1.5, True, 0, "10", 2**53])
def test_burst_that_is_no_count_is_refused(burst):
    with pytest.raises(ConfigurationError, match="burst: a whole number from 1"):
        Quota(10, 60, burst=burst)


@pytest.mark.parametrize("period", [0, -1, 0.001, 60.0, True, None, "60", float("inf"), 10 * 366 * 86400 + 1])
def test_period_that_is_no_number_of_seconds_is_refused(period):
    with pytest.raises(ConfigurationError, match="period: a quota's period is a whole number of seconds from 1 to"):
        Quota(10, period)


@pytest.mark.parametrize("unit", ["", "Tokens", "to kens", "1st", "x" * 33, None, 7, "tokens\n"])
def test_unit_that_is_no_name_is_refused(unit):
    with pytest.raises(ConfigurationError, match="unit: use lower case letters, digits and underscores"):
        Quota(10, 60, unit)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithm": "fixed-window", "burst": 5}, "burst: only the token-bucket algorithm has one"),
        ({"unit": "concurrency"}, "algorithm: 'concurrency' counts the unit 'concurrency'"),
        ({"algorithm": "concurrency"}, "algorithm: 'concurrency' counts the unit 'concurrency'"),
        ({"limit": 10_001, "unit": "concurrency", "algorithm": "concurrency"}, "limit: at most 10000 calls in flight"),
        ({"limit": MAX_EXACT}, "limit: .* can't be counted exactly. Use a rounder limit"),
        ({"limit": 10**9, "period": 31_104_000, "algorithm": "sliding-window-counter"}, "can't be counted exactly"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        Quota(**{"limit": 10, "period": 60, **options})


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
        ("10 per minute", 10, 60, "plan-per-minute"),
        ("00/2 hours", 0, 7200, "plan-per-2-hours"),
    )
    assert parts_of(" 0 per day ", "plan") == (("0 per day", 0, 86400, "plan"),)
    assert parts_of("1/second|2/day") == (("1/second", 1, 1, ""), ("2/day", 2, 86400, ""))


def test_error_about_a_text_is_short_and_shows_an_example():
    with pytest.raises(ConfigurationError, match="such as '10000 per minute'") as refused:
        parse_quotas("x" * 10_000)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("quota", "name", "text"),
    [
        (Quota(10, 60), "requests-per-minute", "10 requests per 60 s"),
        (Quota(10, 90, "input_tokens"), "input-tokens-per-90-seconds", "10 input tokens per 90 s"),
        (Quota(10, 7200), "requests-per-2-hours", "10 requests per 7200 s"),
        (Quota(10, 31_104_000), "requests-per-year", "10 requests per 31104000 s"),
        (Quota(4, 60, "concurrency", "concurrency"), "concurrency", "4 in flight"),
    ],
)
def test_quota_has_a_name_and_a_text(quota, name, text):
    assert (quota.name, quota.text) == (name, text)


@given(
    st.integers(1, MAX_EXACT), st.sampled_from([1, 7, 60, *PERIODS.values(), 316_224_000]), st.integers(0, MAX_EXACT)
)
def test_quota_that_is_accepted_is_counted_in_exact_integers(limit, period, burst):
    try:
        quota = Quota(limit, period, burst=burst)
    except ConfigurationError:
        assume(False)
    assert quota.burst * quota.cost_scale <= MAX_EXACT
    assert quota.period_ticks * quota.tick_us == period * 1_000_000
    assert quota.leak * quota.period_ticks == quota.limit * quota.cost_scale


@pytest.mark.parametrize(
    ("limit", "period", "tick_us"),
    [(60, 60, 1), (10_000, 60, 1), (123_457, 3600, 1), (999_999_937, 3600, 1000), (999_999_937, 86400, 1_000_000)],
)
def test_resolution_is_the_finest_that_is_exact(limit, period, tick_us):
    assert Quota(limit, period).tick_us == tick_us


def test_quota_is_a_value():
    quota = Quota(10, 60, "tokens")
    assert quota == Quota(10, 60, "tokens", burst=10)
    assert hash(quota) == hash(Quota(10, 60, "tokens"))
    assert dataclasses.replace(quota, period=30).period_ticks == 30_000_000
    with pytest.raises(dataclasses.FrozenInstanceError):
        quota.limit = 11
