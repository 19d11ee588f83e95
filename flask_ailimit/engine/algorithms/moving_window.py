"""Moving window: never more than ``limit`` units in any period, however the period is placed.

A log of (time, units), so a hit of 15,000 tokens is one entry. Up to 64 entries it is exact. Then entries within one
sixtieth of a period are merged, at the time of the latest: never more is admitted, and room comes back at most a
sixtieth of a period late. State: ``(t1, units1, t2, units2, ...)`` in rising order of microseconds.
"""

from flask_ailimit.engine.quota import MAX_EXACT, Quota

from .base import Algorithm, State, Step

_MAX_ENTRIES = 64
_SLOTS = 60

Log = list[tuple[int, int]]


def admit(state: State, now_us: int, quota: Quota, cost: int, lease: int) -> Step:  # noqa: ARG001, D103  see Algorithm
    log = _live(state, now_us, quota)
    used = sum(units for _, units in log)
    left = max(0, quota.limit - used)
    reset_us = log[-1][0] + quota.period_us - now_us if log else 0
    if cost > quota.limit:
        return Step(False, state, left, reset_us, None)
    if cost and used + cost > quota.limit:
        return Step(False, state, left, reset_us, _room_at(log, quota.limit - cost, quota) - now_us)
    if cost:
        state = _packed(_added(log, now_us, cost), quota)
        reset_us = quota.period_us
    return Step(True, state, max(0, left - cost), reset_us, 0)


def settle(  # noqa: D103  see Algorithm
    state: State,
    now_us: int,
    quota: Quota,
    taken_at_us: int,
    cost: int,
    actual: int,
    lease: int,  # noqa: ARG001  one shape for all
) -> State:
    log = _live(state, now_us, quota)
    if actual >= cost:
        return _packed(_added(log, now_us, actual - cost) if actual > cost else log, quota)
    if taken_at_us + quota.period_us <= now_us:
        return state
    for i, (t, units) in enumerate(log):
        # The charge is in the first entry that is not earlier: its own, or the one it was merged into. If that is
        # neither, the charge was forgotten, and the entry is somebody else's.
        if t >= taken_at_us:
            if _slot(t, quota) == _slot(taken_at_us, quota):
                log[i] = (t, max(0, units - (cost - actual)))
            break
    return _packed([entry for entry in log if entry[1]], quota)


def expires(state: State, quota: Quota) -> int:  # noqa: D103  see Algorithm
    return state[-2] + quota.period_us


def _live(state: State, now_us: int, quota: Quota) -> Log:
    """The entries of the last period; an entry of the future means that the clock went back, and counts as now."""
    start = now_us - quota.period_us
    log = [(t, units) for t, units in zip(state[::2], state[1::2], strict=True) if t > start]
    if not log or log[-1][0] <= now_us:
        return log
    present: Log = []
    for t, units in log:
        present = _added(present, min(t, now_us), units)
    return present


def _added(log: Log, t: int, units: int) -> Log:
    if log and log[-1][0] == t:
        log[-1] = (t, min(log[-1][1] + units, MAX_EXACT))
    else:
        log.append((t, units))
    return log


def _packed(log: Log, quota: Quota) -> State:
    if len(log) > _MAX_ENTRIES:
        log = _merged(log, quota)
    return tuple(number for entry in log for number in entry)


def _merged(log: Log, quota: Quota) -> Log:
    merged: Log = []
    for t, units in log:
        if merged and _slot(merged[-1][0], quota) == _slot(t, quota):
            merged[-1] = (t, min(merged[-1][1] + units, MAX_EXACT))
        else:
            merged.append((t, units))
    return merged


def _slot(t: int, quota: Quota) -> int:
    return t // (quota.period_us // _SLOTS)


def _room_at(log: Log, kept: int, quota: Quota) -> int:
    """The time at which no more than ``kept`` units are left in the window."""
    left = 0
    for t, units in reversed(log):
        left += units
        if left > kept:
            return t + quota.period_us
    raise AssertionError("unreachable: a charge that fits beside the whole log is not refused")


MOVING_WINDOW = Algorithm(admit, settle, expires)
