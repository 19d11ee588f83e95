"""Sliding window counter: this window's count plus the part of the last one's that still overlaps.

``current + previous * (period - elapsed) / period <= limit``, the approximation that Cloudflare described
(blog.cloudflare.com/counting-things-a-lot-of-different-things): two numbers, smooth at the boundary, and up to
twice the limit for an adversary who knows it.

What was used beyond the limit is owed. ``previous`` is all that the last window came to: what it has beyond the limit
counts in full as part of this window, and only the rest of it fades. So each window pays at most one limit.

State: ``(window, current, previous)``, and while something is owed ``(window, current, previous, owed, beyond)``;
windows are aligned to the clock. ``owed`` is the part of ``previous`` that counts in full. ``beyond`` is what of this
window was used beyond the limit that was in force, and so will be owed. What was granted under a higher limit fades.
"""

from flask_ailimit.engine.clock import MICROSECONDS
from flask_ailimit.engine.quota import MAX_EXACT, Quota

from .base import Algorithm, State, Step, new


def admit(state: State, now_us: int, quota: Quota, cost: int, lease: int) -> Step:  # noqa: ARG001, D103  see Algorithm
    window = now_us // quota.period_us
    current, previous, owed, beyond = _current(*_bounded(state, quota), window, quota.limit) if state else (0, 0, 0, 0)
    full, fading = current + owed, previous - owed
    tick, period = _resolution(quota, max(fading, full - beyond))
    left = quota.limit - full - -(-fading * ((window + 1) * period - now_us // tick) // period)
    if cost > left:
        reset_us = 0
        if full or fading:
            reset_us = _fits_tick(window, full, fading, beyond, 0, quota, period) * tick - now_us
        wait_us = None
        if cost <= quota.limit:
            wait_us = _fits_tick(window, full, fading, beyond, quota.limit - cost, quota, period) * tick - now_us
        return new(Step, (False, state, max(0, left), reset_us, wait_us))
    if cost:
        state = _packed(window, current + cost, previous, owed, beyond)
        full += cost
    reset_us = _fits_tick(window, full, fading, beyond, 0, quota, period) * tick - now_us if full or fading else 0
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
    window, limit = now_us // quota.period_us, quota.limit
    current, previous, owed, beyond = _current(*_read(state), window, limit) if state else (0, 0, 0, 0)
    age = window - taken_at_us // quota.period_us
    if actual >= cost:
        full, added = current + owed, actual - cost
        room = 0 if beyond else max(0, limit - full)
        if full - beyond <= limit:  # Else it stands under a higher limit, and the next decision bounds what is owed.
            added = min(added, room + max(0, quota.ceiling - limit - beyond))
        added = min(added, MAX_EXACT - full)
        current, beyond = current + added, beyond + max(0, added - room)
    elif age == 0:
        refund = min(cost - actual, current)
        current, beyond = current - refund, max(0, beyond - refund)
    elif age == 1:
        refund = min(cost - actual, previous)
        previous, beyond = previous - refund, max(0, beyond - min(refund, owed))
        owed = max(0, owed - refund)
    return _packed(window, current, previous, owed, beyond)


def expires(state: State, quota: Quota) -> int:  # noqa: D103  see Algorithm
    window, current, previous, owed, beyond = _bounded(state, quota)
    full, fading = current + owed, previous - owed
    tick, period = _resolution(quota, max(fading, full - beyond))
    return _fits_tick(window, full, fading, beyond, 0, quota, period) * tick


def _read(state: State) -> tuple[int, int, int, int, int]:
    window, current, previous, owed, beyond = (*state, 0, 0)[:5]
    return window, current, previous, owed, beyond


def _bounded(state: State, quota: Quota) -> tuple[int, int, int, int, int]:
    """The state under a limit that may have changed: nothing within it is owed, and no more than may be."""
    window, current, previous, owed, beyond = _read(state)
    limit, most = quota.limit, quota.ceiling - quota.limit
    owed = min(owed, max(0, previous - limit))
    excess = max(0, owed - most)
    previous, owed = previous - excess, owed - excess
    beyond = min(max(0, beyond - excess), max(0, current + owed - limit))
    excess = min(max(0, beyond - most), current)
    return window, current - excess, previous, owed, beyond - excess


def _current(
    counted: int, current: int, previous: int, owed: int, beyond: int, window: int, limit: int
) -> tuple[int, int, int, int]:
    if counted >= window:
        # Equal, or later because the clock went back: the counts move along and are not forgotten.
        return current, previous, owed, beyond
    passed = window - counted
    if passed == 1:
        return 0, current + owed, beyond, max(0, beyond - limit)
    owed = max(0, beyond - (passed - 1) * limit)
    return 0, max(0, beyond - (passed - 2) * limit), owed, max(0, owed - limit)


def _packed(window: int, current: int, previous: int, owed: int, beyond: int) -> State:
    if owed or beyond:
        return window, current, previous, owed, beyond
    return (window, current, previous) if current or previous else ()


def _resolution(quota: Quota, units: int) -> tuple[int, int]:
    """Microseconds per tick and ticks per period: the finest that keeps so many units times the period exact."""
    most = max(quota.limit, units)
    for tick in (1, 1000):
        period = quota.period_us // tick
        if 4 * most * period <= MAX_EXACT:
            return tick, period
    return MICROSECONDS, quota.period  # A quota for which that is not enough was refused.


def _fits_tick(window: int, full: int, fading: int, beyond: int, room: int, quota: Quota, period: int) -> int:
    """The first tick at which no more than ``room`` units count; now there are more."""
    if full <= room:
        return (window + 1) * period - (room - full) * period // fading
    # Each window that begins pays a limit's worth; in the first that begins with few enough, the rest fades.
    later = 1 + max(0, -((room - beyond) // quota.limit))
    before = full if later == 1 else beyond - (later - 2) * quota.limit
    full = max(0, beyond - (later - 1) * quota.limit)
    return (window + 1 + later) * period - (room - full) * period // (before - full)


SLIDING_WINDOW = Algorithm(admit, settle, expires)
