"""Sliding window counter: this window's count plus the part of the last one's that still overlaps.

``current + previous * (period - elapsed) / period <= limit``, the approximation that Cloudflare described
(blog.cloudflare.com/counting-things-a-lot-of-different-things): two numbers, smooth at the boundary, and up to
twice the limit for an adversary who knows it. State: ``(window, current, previous)``; windows are aligned to the clock.
"""

from flask_ailimit.engine.clock import MICROSECONDS
from flask_ailimit.engine.quota import MAX_EXACT, Quota

from .base import Algorithm, State, Step


def admit(state: State, now_us: int, quota: Quota, cost: int, lease: int) -> Step:  # noqa: ARG001, D103  see Algorithm
    tick, period = _resolution(quota)
    window, current, previous = _current(state, now_us, quota)
    left = (window + 1) * period - now_us // tick
    used = current + -(-previous * left // period)
    reset_us = _reset_tick(window, current, previous, period) * tick - now_us if used else 0
    if cost > quota.limit:
        return Step(False, state, max(0, quota.limit - used), reset_us, None)
    if cost and used + cost > quota.limit:
        fits = _fits_tick(window, current, previous, quota.limit - cost, period)
        return Step(False, state, max(0, quota.limit - used), reset_us, fits * tick - now_us)
    if cost:
        state = (window, current + cost, previous)
        reset_us = _reset_tick(*state, period) * tick - now_us
    return Step(True, state, max(0, quota.limit - used - cost), reset_us, 0)


def settle(  # noqa: D103  see Algorithm
    state: State,
    now_us: int,
    quota: Quota,
    taken_at_us: int,
    cost: int,
    actual: int,
    lease: int,  # noqa: ARG001  one shape for all
) -> State:
    _, period = _resolution(quota)
    window, current, previous = _current(state, now_us, quota)
    age = window - taken_at_us // quota.period_us
    if actual >= cost:
        # Beyond this a product with the period would not be exact; it is many times the limit.
        current = min(current + actual - cost, MAX_EXACT // period)
    elif age == 0:
        current = max(0, current - (cost - actual))
    elif age == 1:
        previous = max(0, previous - (cost - actual))
    return (window, current, previous) if current or previous else ()


def expires(state: State, quota: Quota) -> int:  # noqa: D103  see Algorithm
    tick, period = _resolution(quota)
    window, current, previous = state
    return _reset_tick(window, current, previous, period) * tick


def _current(state: State, now_us: int, quota: Quota) -> tuple[int, int, int]:
    window = now_us // quota.period_us
    if not state:
        return window, 0, 0
    if state[0] >= window:
        # Equal, or later because the clock went back: the counts move along and are not forgotten.
        return window, state[1], state[2]
    return window, 0, state[1] if state[0] == window - 1 else 0


def _resolution(quota: Quota) -> tuple[int, int]:
    """Microseconds per tick and ticks per period: the finest that keeps count times period exact."""
    for tick in (1, 1000):
        period = quota.period_us // tick
        if 4 * quota.limit * period <= MAX_EXACT:
            return tick, period
    return MICROSECONDS, quota.period  # A quota for which that is not enough was refused.


def _fits_tick(window: int, current: int, previous: int, room: int, period: int) -> int:
    """The first tick at which ``current`` and what still counts of ``previous`` are at most ``room`` units."""
    if current <= room:
        return (window + 1) * period - (room - current) * period // previous
    return (window + 2) * period - room * period // current


def _reset_tick(window: int, current: int, previous: int, period: int) -> int:
    return _fits_tick(window, current, previous, 0, period) if current or previous else window * period


SLIDING_WINDOW = Algorithm(admit, settle, expires)
