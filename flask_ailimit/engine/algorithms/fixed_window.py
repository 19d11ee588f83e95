"""Fixed window: ``limit`` units in each period of the clock, counted from 1970-01-01 UTC.

Cheap and easy to explain; two windows' worth can pass around a boundary. What was used beyond the limit is owed: each
window that begins pays a limit's worth of it, and what is then left counts in that window.

State: ``(window, count)``, ``(window, count, carried)`` or ``(window, count, carried, owed)``. ``carried`` is the part
of ``count`` that earlier windows owed. A refund of the window before lowers it, which is exact; one of an older window
changes nothing. ``owed`` is the part that the next window begins with: what was used beyond the limit that was in
force. So what was granted under a higher limit counts until its window ends, and is never owed.
"""

from flask_ailimit.engine.quota import MAX_EXACT, Quota

from .base import Algorithm, State, Step, new


def admit(state: State, now_us: int, quota: Quota, cost: int, lease: int) -> Step:  # noqa: ARG001, D103  see Algorithm
    window, limit = now_us // quota.period_us, quota.limit
    if not state:
        count, carried, owed = 0, 0, 0
    elif state[0] == window and state[1] <= limit:
        count, carried, owed = state[1], state[2] if len(state) > 2 else 0, 0  # noqa: PLR2004  see the module
    else:
        count, carried, owed = _current(*_bounded(state, quota), window, limit)
    left = limit - count
    if cost > left:
        reset_us = _paid_at(window, limit + owed, quota) - now_us if count else 0
        wait_us = None if cost > limit else _paid_at(window, max(1, owed + cost), quota) - now_us
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
    window, limit = now_us // quota.period_us, quota.limit
    count, carried, owed = _current(*_read(state), window, limit) if state else (0, 0, 0)
    age = window - taken_at_us // quota.period_us
    if actual >= cost:
        added, room = actual - cost, 0 if owed else max(0, limit - count)
        if count - owed <= limit:  # Else it stands under a higher limit, and the next decision bounds what is owed.
            added = min(added, room + max(0, quota.ceiling - limit - owed))
        added = min(added, MAX_EXACT - count)
        count, owed = count + added, owed + max(0, added - room)
    elif age == 0:
        refund = min(cost - actual, count)
        count, owed = count - refund, max(0, owed - refund)
    elif age == 1:
        refund = min(cost - actual, carried)
        count, carried, owed = count - refund, carried - refund, max(0, owed - refund)
    if not count:
        return ()
    if owed:
        return window, count, min(count, carried), owed
    return (window, count, min(count, carried)) if carried else (window, count)


def expires(state: State, quota: Quota) -> int:  # noqa: D103  see Algorithm
    counted, _, _, owed = _bounded(state, quota)
    return _paid_at(counted, quota.limit + owed, quota)


def _read(state: State) -> tuple[int, int, int, int]:
    window, count, carried, owed = (*state, 0, 0)[:4]
    return window, count, carried, owed


def _bounded(state: State, quota: Quota) -> tuple[int, int, int, int]:
    """The state under a limit that may have changed: nothing within it is owed, and no more than may be."""
    window, count, carried, owed = _read(state)
    owed = min(owed, max(0, count - quota.limit))
    excess = max(0, owed - (quota.ceiling - quota.limit))
    return window, count - excess, carried, owed - excess


def _current(counted: int, count: int, carried: int, owed: int, window: int, limit: int) -> tuple[int, int, int]:
    """The units that count in this window, those of them that earlier windows owed, and those that it owes."""
    if counted == window:
        return count, carried, owed
    if counted > window:
        # The clock went back: the count moves along and is not forgotten. Older reservations get no refund.
        return count, 0, owed
    count = max(0, owed - (window - counted - 1) * limit)
    return count, count, max(0, count - limit)


def _paid_at(window: int, units: int, quota: Quota) -> int:
    """The microsecond at which the windows that have begun since ``window`` have paid so many units."""
    return (window - -units // quota.limit) * quota.period_us


FIXED_WINDOW = Algorithm(admit, settle, expires, follows_clock=True)
