"""Fixed window: ``limit`` units in each period of the clock, counted from 1970-01-01 UTC.

Cheap and easy to explain; two windows' worth can pass around a boundary. What was used beyond the limit is owed: each
window that begins pays a limit's worth of it, and what is then left counts in that window.

State: ``(window, count)`` or ``(window, count, carried)``. ``carried`` is the part of ``count`` that earlier windows
owed. A refund of the window before lowers it, which is exact; one of an older window changes nothing.
"""

from flask_ailimit.engine.quota import Quota

from .base import Algorithm, State, Step, new


def admit(state: State, now_us: int, quota: Quota, cost: int, lease: int) -> Step:  # noqa: ARG001, D103  see Algorithm
    window, count, carried = _current(state, now_us, quota)
    left = quota.limit - count
    if cost > left:
        reset_us = _paid_at(window, count, quota) - now_us if count else 0
        wait_us = None if cost > quota.limit else _paid_at(window, cost - left, quota) - now_us
        return new(Step, (False, state, max(0, left), reset_us, wait_us))
    if cost:
        count += cost
        state = (window, count, carried) if carried else (window, count)
    return new(Step, (True, state, left - cost, (window + 1) * quota.period_us - now_us if count else 0, 0))


def settle(  # noqa: D103  see Algorithm
    state: State,
    now_us: int,
    quota: Quota,
    taken_at_us: int,
    cost: int,
    actual: int,
    lease: int,  # noqa: ARG001  one shape for all
) -> State:
    window, count, carried = _current(state, now_us, quota)
    age = window - taken_at_us // quota.period_us
    if actual >= cost:
        count = min(count + actual - cost, quota.ceiling)
    elif age == 0:
        count = max(0, count - (cost - actual))
    elif age == 1:
        refund = min(cost - actual, carried)
        count, carried = count - refund, carried - refund
    if not count:
        return ()
    return (window, count, min(count, carried)) if carried else (window, count)


def expires(state: State, quota: Quota) -> int:  # noqa: D103  see Algorithm
    return _paid_at(state[0], min(state[1], quota.ceiling), quota)


def _current(state: State, now_us: int, quota: Quota) -> tuple[int, int, int]:
    """This window, the units that count in it, and those of them that earlier windows owed."""
    window = now_us // quota.period_us
    if not state:
        return window, 0, 0
    counted, count = state[:2]
    count = count if count < quota.ceiling else quota.ceiling  # noqa: FURB136  min() would take three times as long
    if counted == window:
        return window, count, state[2] if len(state) > 2 else 0  # noqa: PLR2004  see the module
    if counted > window:
        # The clock went back: the count moves along and is not forgotten. Older reservations get no refund.
        return window, count, 0
    count = max(0, count - (window - counted) * quota.limit)
    return window, count, count


def _paid_at(window: int, units: int, quota: Quota) -> int:
    """The microsecond at which the windows that have begun since ``window`` have paid so many units."""
    return (window - -units // quota.limit) * quota.period_us


FIXED_WINDOW = Algorithm(admit, settle, expires)
