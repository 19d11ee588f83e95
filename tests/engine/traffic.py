"""Random quotas and calls, and what an algorithm answers to them."""

from hypothesis import strategies as st

from flask_ailimit.engine import ALGORITHMS, Quota
from flask_ailimit.testing import START_US

SECOND = 1_000_000

BUCKETS = ("provider-bucket", "token-bucket")
"""These have a burst."""

CARRY_NOTHING = ("budget", "window")
"""What was used beyond the limit of these is not owed in the next window."""


def quota_of(algorithm, limit, period, burst=None):
    if algorithm == "concurrency":
        return Quota(limit, period, "concurrency", algorithm)
    return Quota(limit, period, "tokens", algorithm, burst if algorithm in BUCKETS else None)


@st.composite
def traffic(draw, algorithm, most=25):
    """A quota, and calls of it: microseconds since the one before, and the cost."""
    limits = [1, 2, 3, 7, 10, 100]
    limit = draw(st.sampled_from(limits if algorithm == "concurrency" else [*limits, 9_999, 123_457, 10**9 + 7]))
    period = draw(st.sampled_from([1, 7, 60, 3600, 86400]))
    burst = draw(st.sampled_from([None, 1, limit // 2 + 1, 3 * limit]))
    pauses = st.one_of(
        st.sampled_from([0, 0, 1, SECOND]),
        st.integers(0, period * SECOND // max(1, min(limit, 100))),
        st.integers(0, 3 * period * SECOND),
    )
    quota = quota_of(algorithm, limit, period, burst)
    costs = st.one_of(st.just(1), st.integers(0, quota.burst), st.integers(quota.burst // 2, 2 * quota.burst + 2))
    return quota, draw(st.lists(st.tuples(pauses, costs), min_size=1, max_size=most))


def is_exact(state, now, quota):
    """Whether a wait is told to the microsecond. That for what others have reserved of a budget is a guess."""
    spending = ALGORITHMS[quota.algorithm].spending
    return spending is None or spending(state, now, quota).reserved == 0


def run(quota, calls):
    """Each call's time, cost, state before and step. What a call reserves of a budget is settled before the next."""
    algorithm, state, now = ALGORITHMS[quota.algorithm], (), START_US + 12_345_678
    for lease, (pause, cost) in enumerate(calls):
        now += pause
        step = algorithm.admit(state, now, quota, cost, lease)
        yield now, cost, state, step
        state = step.state
        if algorithm.spending and step.allowed:
            state = algorithm.settle(state, now, quota, now, cost, cost, lease)
