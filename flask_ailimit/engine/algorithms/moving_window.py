"""Moving window: never more than ``limit`` units in any period, however the period is placed.

A log of (time, units), so a hit of 15,000 tokens is one entry. Up to 64 entries it is exact. Then entries within one
sixtieth of a period are merged, at the time of the latest: never more is admitted, and room comes back at most a
sixtieth of a period late.

What was used beyond the limit is owed beside the log. Whatever room then becomes free, the debt takes it at that
moment, as an entry of its own, until it is paid. So a period pays one limit, and until then nothing is admitted.

State: ``(t1, units1, t2, units2, ...)`` in rising order of microseconds; while there is a debt, the last pair is it,
at a time that never comes. Where the limit is raised, the debt takes the new room at the next decision.
"""

from flask_ailimit.engine.quota import MAX_EXACT, Quota

from .base import Algorithm, State, Step

_MAX_ENTRIES = 64
_SLOTS = 60
_NEVER = MAX_EXACT

Log = list[tuple[int, int]]


def admit(state: State, now_us: int, quota: Quota, cost: int, lease: int) -> Step:  # noqa: ARG001, D103  see Algorithm
    log, debt = _read(state)
    log, debt = _present(log, min(debt, quota.ceiling - quota.limit), now_us, quota)
    taken = min(debt, max(0, quota.limit - _units(log)))
    if taken:  # The limit was raised.
        state = _packed(_added(log, now_us, taken), debt - taken, quota)
        log, debt = _read(state)
    used = _units(log) + debt
    left = max(0, quota.limit - used)
    if used + cost > quota.limit:
        log, _ = _repaid(log, debt, _NEVER, quota)
        reset_us = log[-1][0] + quota.period_us - now_us if log else 0
        wait_us = None if cost > quota.limit else _room_at(log, quota.limit - cost, quota) - now_us
        return Step(False, state, left, reset_us, wait_us)
    reset_us = log[-1][0] + quota.period_us - now_us if log else 0
    if cost:
        state = _packed(_added(log, now_us, cost), 0, quota)
        reset_us = quota.period_us
    return Step(True, state, left - cost, reset_us, 0)


def settle(  # noqa: D103  see Algorithm
    state: State,
    now_us: int,
    quota: Quota,
    taken_at_us: int,
    cost: int,
    actual: int,
    lease: int,  # noqa: ARG001  one shape for all
) -> State:
    log, owed = _present(*_read(state), now_us, quota)
    debt = owed
    if actual > cost:
        debt += min(actual - cost, MAX_EXACT - owed)
    elif actual < cost and taken_at_us + quota.period_us > now_us:
        for i, (t, units) in enumerate(log):
            # The charge is in the first entry that is not earlier: its own, or the one it was merged into. If that is
            # neither, the charge was forgotten, and the entry is somebody else's.
            if t >= taken_at_us:
                if _slot(t, quota) == _slot(taken_at_us, quota):
                    log[i] = (t, max(0, units - (cost - actual)))
                break
        log = [entry for entry in log if entry[1]]
    used = _units(log)
    taken = min(debt, max(0, quota.limit - used))
    if taken:
        log = _added(log, now_us, taken)
    debt -= taken
    if used <= quota.limit:  # Else it stands under a higher limit, and the next decision bounds what is owed.
        debt = min(debt, max(owed, quota.ceiling - quota.limit))
    return _packed(log, debt, quota)


def expires(state: State, quota: Quota) -> int:  # noqa: D103  see Algorithm
    if state[-2] != _NEVER:
        return state[-2] + quota.period_us
    log, debt = _read(state)
    return _repaid(log, min(debt, quota.ceiling - quota.limit), _NEVER, quota)[0][-1][0] + quota.period_us


def _read(state: State) -> tuple[Log, int]:
    """The log, and what is owed beside it."""
    debt = 0
    if state[2:] and state[-2] == _NEVER:  # Nothing owes beside an empty log.
        debt = state[-1]
        state = state[:-2]
    return list(zip(state[::2], state[1::2], strict=True)), debt


def _present(log: Log, debt: int, now_us: int, quota: Quota) -> tuple[Log, int]:
    """The entries of the last period, and what is owed. An entry of the future counts as now: the clock went back."""
    log, debt = _repaid(log, debt, now_us, quota)
    start = now_us - quota.period_us
    log = [entry for entry in log if entry[0] > start]
    if not log or log[-1][0] <= now_us:
        return log, debt
    present: Log = []
    for t, units in log:
        present = _added(present, min(t, now_us), units)
    return present, debt


def _repaid(log: Log, debt: int, until_us: int, quota: Quota) -> tuple[Log, int]:
    """The log and the debt after every entry that ends until then, as long as there is a debt to take its room."""
    used = _units(log) if debt else 0
    while debt and log and log[0][0] + quota.period_us <= until_us:
        if used == quota.limit:
            # A period in which the debt takes the room of every entry is the one before, later.
            periods = min(debt // quota.limit, (until_us - log[-1][0]) // quota.period_us)
            if periods:
                log = [(t + periods * quota.period_us, units) for t, units in log]
                debt -= periods * quota.limit
                continue
        (t, units), *log = log
        taken = min(debt, max(0, quota.limit - used + units))
        if taken:
            log = _added(log, t + quota.period_us, taken)
        debt -= taken
        used += taken - units
    return log, debt


def _units(log: Log) -> int:
    return sum(units for _, units in log)


def _added(log: Log, t: int, units: int) -> Log:
    if log and log[-1][0] == t:
        log[-1] = (t, min(log[-1][1] + units, MAX_EXACT))
    else:
        log.append((t, units))
    return log


def _packed(log: Log, debt: int, quota: Quota) -> State:
    if len(log) > _MAX_ENTRIES:
        log = _merged(log, quota)
    state = tuple(number for entry in log for number in entry)
    return (*state, _NEVER, debt) if debt else state


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
    """The time from which no more than ``kept`` units are left of a log, which is without a debt by then."""
    left = 0
    for t, units in reversed(log):
        left += units
        if left > kept:
            return t + quota.period_us
    return log[-1][0]  # As soon as the debt was paid.


MOVING_WINDOW = Algorithm(admit, settle, expires)
