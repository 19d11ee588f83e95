"""Sliding window counter: this window's count plus the part of the last one's that still overlaps.

``current + previous * (period - elapsed) / period <= limit``, the approximation that Cloudflare described
(blog.cloudflare.com/counting-things-a-lot-of-different-things): two numbers, smooth at the boundary, and up to
twice the limit for an adversary who knows it.

What was used beyond the limit is owed. ``previous`` is all that the last window came to: what it has beyond the limit
counts in full as part of this window, and only the limit's worth of it fades. So each window pays at most one limit.

State: ``(window, current, previous)``; windows are aligned to the clock.
"""

from flask_ailimit.engine.clock import MICROSECONDS
from flask_ailimit.engine.quota import MAX_EXACT, Quota

from .base import Algorithm, State, Step, new


def admit(state: State, now_us: int, quota: Quota, cost: int, lease: int) -> Step:  # noqa: ARG001, D103  see Algorithm
    tick, period = _resolution(quota)
    window, current, previous = _current(state, now_us, quota)
    full, fading = _counted(current, previous, quota)
    left = quota.limit - full - -(-fading * ((window + 1) * period - now_us // tick) // period)
    if cost > left:
        reset_us = _fits_tick(window, full, fading, 0, quota, period) * tick - now_us if full or fading else 0
        wait_us = None
        if cost <= quota.limit:
            wait_us = _fits_tick(window, full, fading, quota.limit - cost, quota, period) * tick - now_us
        return new(Step, (False, state, max(0, left), reset_us, wait_us))
    if cost:
        state = (window, current + cost, previous)
        full += cost
    reset_us = _fits_tick(window, full, fading, 0, quota, period) * tick - now_us if full or fading else 0
    return new(Step, (True, state, left - cost, reset_us, 0))


def settle(  # noqa: D103  see Algorithm
    state: State,
    now_us: int,
    quota: Quota,
    taken_at_us: int,
    cost: int,
    actual: int,
    lease: int,  # noqa: ARG001  one shape for all
) -> State:
    window, current, previous = _current(state, now_us, quota)
    age = window - taken_at_us // quota.period_us
    if actual >= cost:
        current = min(current + actual - cost, quota.ceiling - max(0, previous - quota.limit))
    elif age == 0:
        current = max(0, current - (cost - actual))
    elif age == 1:
        previous = max(0, previous - (cost - actual))
    return (window, current, previous) if current or previous else ()


def expires(state: State, quota: Quota) -> int:  # noqa: D103  see Algorithm
    tick, period = _resolution(quota)
    window, current, previous = _bounded(state, quota)
    return _fits_tick(window, *_counted(current, previous, quota), 0, quota, period) * tick


def _current(state: State, now_us: int, quota: Quota) -> tuple[int, int, int]:
    window = now_us // quota.period_us
    if not state:
        return window, 0, 0
    counted, current, previous = _bounded(state, quota)
    if counted >= window:
        # Equal, or later because the clock went back: the counts move along and are not forgotten.
        return window, current, previous
    ended = current + max(0, previous - quota.limit)
    return window, 0, max(0, ended - (window - counted - 1) * quota.limit)


def _bounded(state: State, quota: Quota) -> tuple[int, int, int]:
    """The state with no more owed than may be."""
    window, current, previous = state
    previous = min(previous, quota.ceiling)
    return window, min(current, quota.ceiling - max(0, previous - quota.limit)), previous


def _counted(current: int, previous: int, quota: Quota) -> tuple[int, int]:
    """The units that count in full until this window ends, and those that fade until then."""
    owed = previous - quota.limit
    return (current + owed, quota.limit) if owed > 0 else (current, previous)


def _resolution(quota: Quota) -> tuple[int, int]:
    """Microseconds per tick and ticks per period: the finest that keeps count times period exact."""
    for tick in (1, 1000):
        period = quota.period_us // tick
        if 4 * quota.limit * period <= MAX_EXACT:
            return tick, period
    return MICROSECONDS, quota.period  # A quota for which that is not enough was refused.


def _fits_tick(window: int, full: int, fading: int, room: int, quota: Quota, period: int) -> int:
    """The first tick at which no more than ``room`` units count; now there are more."""
    if full <= room:
        return (window + 1) * period - (room - full) * period // fading
    # Each window that begins pays a limit's worth; in the first that begins with few enough, the rest fades.
    later = max(1, -((room - full) // quota.limit))
    fading = full - (later - 1) * quota.limit
    full = max(0, fading - quota.limit)
    return (window + 1 + later) * period - (room - full) * period // (fading - full)


SLIDING_WINDOW = Algorithm(admit, settle, expires)
