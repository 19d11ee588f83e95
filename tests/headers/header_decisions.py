"""Decisions to write headers and bodies from: by hand, and any that the engine could give."""

from fractions import Fraction

from hypothesis import strategies as st

from flask_ailimit.engine.charge import Charge
from flask_ailimit.engine.decision import Decision, Verdict
from flask_ailimit.engine.errors import ConfigurationError
from flask_ailimit.engine.quota import CONCURRENCY, MAX_EXACT, Quota

NOW_US = 1_755_780_058_250_000  # 2025-08-21T12:40:58.25Z
SECOND = 1_000_000


def allowed(quota, remaining, reset_us, *, scope="", cost=1):
    return Verdict(Charge(bytes(16), quota, cost, scope), True, remaining, reset_us, 0)


def refused(quota, remaining, reset_us, retry_us, *, scope="", cost=1):
    return Verdict(Charge(bytes(16), quota, cost, scope), False, remaining, reset_us, retry_us)


def decided(*verdicts):
    return Decision(verdicts, NOW_US)


REQUESTS = Quota(60, 60)
DAILY = Quota(200, 86400)
TOKENS = Quota(10_000, 60, "tokens")
INPUT = Quota(30_000, 60, "input_tokens")
OUTPUT = Quota(8_000, 60, "output_tokens")
SLOTS = Quota(4, 60, "concurrency", "concurrency")
PAGES = Quota(5, 3600, "pages_read")
BURST = Quota(10_000, 60, "tokens", burst=500)

OUT_OF_REQUESTS = decided(refused(REQUESTS, 0, 60 * SECOND, 12 * SECOND))
OUT_OF_TOKENS = decided(
    allowed(REQUESTS, 30, 30 * SECOND), refused(TOKENS, 10, 59_940_000, 7_150_001, cost=1202, scope="/predict")
)
OUT_OF_SLOTS = decided(refused(SLOTS, 0, 60 * SECOND, SECOND))
OUT_OF_DAY = decided(refused(DAILY, 0, 86400 * SECOND, 432 * SECOND))
NEVER = decided(refused(REQUESTS, 0, 60 * SECOND, SECOND), refused(TOKENS, 9_000, 6 * SECOND, None, cost=30_601))

UNITS = st.sampled_from(["requests", "tokens", "input_tokens", "output_tokens", "concurrency", "pages_2"])


@st.composite
def quotas(draw):
    unit = draw(UNITS)
    limit = draw(st.integers(1, 9) | st.integers(1, 10**6) | st.integers(1, MAX_EXACT - 1))
    if unit == CONCURRENCY:
        return Quota(min(limit, 10_000), draw(st.integers(1, 600)), unit, "concurrency")
    period = draw(st.sampled_from([1, 60, 90, 86400]) | st.integers(1, 10 * 366 * 86400))
    try:
        return Quota(limit, period, unit, burst=draw(st.just(0) | st.integers(1, 10**6)))
    except ConfigurationError:  # the burst can't be counted exactly
        return Quota(min(limit, 1000), min(period, 86400), unit)


@st.composite
def verdicts(draw, *kinds):
    quota = draw(quotas())
    kind = draw(st.sampled_from(kinds))
    reset_us = draw(st.integers(0, 10**8) | st.integers(0, MAX_EXACT))
    if kind == "allowed":
        cost = draw(st.integers(0, quota.burst))
        return allowed(quota, draw(st.integers(0, quota.burst - cost)), reset_us, cost=cost)
    if kind == "never":
        return refused(quota, draw(st.integers(0, quota.burst)), reset_us, None, cost=quota.burst + 1)
    remaining = draw(st.integers(0, quota.burst - 1))
    retry_us = draw(st.integers(1, 2 * SECOND) | st.integers(1, max(1, reset_us)))
    return refused(
        quota, remaining, max(reset_us, retry_us), retry_us, cost=draw(st.integers(remaining + 1, quota.burst))
    )


@st.composite
def several(draw, first, *others):
    """A decision with at least one verdict of the kind ``first``, among any of the other kinds."""
    together = [draw(verdicts(first)), *draw(st.lists(verdicts(first, *others), max_size=4))]
    return Decision(tuple(draw(st.permutations(together))), draw(st.integers(0, 4 * 10**15)))


allowances = several("allowed")
waits = several("refused", "allowed")
refusals = waits | several("never", "refused", "allowed")
decisions = allowances | refusals


def policy_rate(quota):
    return Fraction(quota.limit, quota.period)
