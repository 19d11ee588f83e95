import dataclasses

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from flask_ailimit.engine import ConfigurationError, Quota
from flask_ailimit.engine.quota import MAX_EXACT, PERIODS


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
        ({"algorithm": "gate"}, "algorithm: 'gate' counts the unit 'gate'"),
        ({"unit": "turns", "algorithm": "turns", "soft_percent": 80}, "'turns', and has no soft_percent"),
        ({"limit": 1001, "unit": "turns", "algorithm": "turns"}, "limit: at most 1000 wait in a line"),
        ({"limit": 10_001, "unit": "concurrency", "algorithm": "concurrency"}, "limit: at most 10000 calls in flight"),
        ({"limit": MAX_EXACT}, "limit: .* can't be counted exactly. Use a rounder limit"),
        ({"limit": 10**9, "period": 31_104_000, "algorithm": "sliding-window-counter"}, "can't be counted exactly"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        Quota(**{"limit": 10, "period": 60, **options})


@pytest.mark.parametrize(
    ("quota", "name", "text"),
    [
        (Quota(10, 60), "requests-per-minute", "10 requests per 60 s"),
        (Quota(10, 90, "input_tokens"), "input-tokens-per-90-seconds", "10 input tokens per 90 s"),
        (Quota(10, 7200), "requests-per-2-hours", "10 requests per 7200 s"),
        (Quota(10, 31_104_000), "requests-per-year", "10 requests per 31104000 s"),
        (Quota(4, 60, "concurrency", "concurrency"), "concurrency", "4 in flight"),
        (Quota(1, 60, "gate", "gate"), "gate", "a gate"),
        (Quota(100, 15, "turns", "turns"), "turns", "100 waiting"),
        (Quota(100, 60, "turns"), "turns-per-minute", "100 turns per 60 s"),
        (
            Quota(10, 30 * 86_400, algorithm="window", every="session"),  # No text says a month of a session.
            "requests-per-session-of-30-days",
            "10 requests per session of 2592000 s",
        ),
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
