"""The ``limits`` library as a second oracle, for what both promise alike: verdicts for cost 1.

Not comparable, and so left out:

- costs above 1: a refused hit of 5 uses up 5 of a fixed window in ``limits``, here nothing;
- its moving window counts an entry that is exactly one period old, ours doesn't: such moments are stepped over;
- its fixed window begins with the first hit, ours with the clock: the first hit here comes when a window begins;
- its sliding window counter rounds down what is used, ours up.
"""

import random
from types import SimpleNamespace

import pytest
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage, memory
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter

from flask_ailimit.engine import ALGORITHMS, Quota
from flask_ailimit.testing import ManualClock

SECOND = 1_000_000
STEPS = 20_000


class Untimed(MemoryStorage):
    """Without its thread, which would expire entries by the fake clock at a time of its own."""

    def _MemoryStorage__schedule_expiry(self):  # noqa: N802  the name that the base class calls
        self.timer.cancel()


@pytest.fixture
def clock(monkeypatch):
    clock = ManualClock(start_us=3600 * SECOND)  # Early, where a float still tells microseconds apart.
    monkeypatch.setattr(memory, "time", SimpleNamespace(time=lambda: clock() / SECOND))
    return clock


def compare(clock, quota, limiter, times):
    item, state = RateLimitItemPerSecond(quota.limit, quota.period), ()
    verdicts = {True: 0, False: 0}
    for now in times:
        clock.set(now)
        step = ALGORITHMS[quota.algorithm].admit(state, now, quota, 1, 0)
        state = step.state
        assert limiter.hit(item, "user-1") == step.allowed, now
        assert limiter.get_window_stats(item, "user-1").remaining == step.remaining
        verdicts[step.allowed] += 1
    assert min(verdicts.values()) > STEPS // 50, "a run that allows or refuses everything compares nothing"


@pytest.mark.parametrize(("limit", "period", "longest"), [(3, 10, 5), (60, 60, 1.3), (40, 1, 0.03)])
def test_moving_window_decides_as_that_of_limits(clock, limit, period, longest):
    draw = random.Random(limit)

    def times():
        now, seen = clock(), set()
        for _ in range(STEPS):
            now += draw.choice([0, 1, draw.randrange(round(longest * SECOND))])
            while now - period * SECOND in seen:
                now += 1
            seen.add(now)
            yield now

    compare(clock, Quota(limit, period, algorithm="moving-window"), MovingWindowRateLimiter(Untimed()), times())


@pytest.mark.parametrize(("limit", "period", "longest"), [(3, 10, 5), (60, 60, 1.3), (40, 1, 0.03)])
def test_fixed_window_decides_as_that_of_limits(clock, limit, period, longest):
    draw = random.Random(limit)

    def times():
        now = clock()
        yield now
        for _ in range(STEPS):
            later = now + draw.choice([0, 1, draw.randrange(round(longest * SECOND))])
            begins = later // (period * SECOND) * period * SECOND
            now = begins if now < begins else later
            yield now

    compare(clock, Quota(limit, period, algorithm="fixed-window"), FixedWindowRateLimiter(Untimed()), times())
