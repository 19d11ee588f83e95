"""Fixed window: ``limit`` units in each period of the clock, counted from 1970-01-01 UTC.

Cheap and easy to explain; two windows' worth can pass around a boundary. State: ``(window, count)``.
A refund never reaches a later window than its charge, and an overrun is forgotten when its window ends.
"""

from flask_ailimit.engine.quota import MAX_EXACT, Quota

from .base import Algorithm, State, Step, new


def admit(state: State, now_us: int, quota: Quota, cost: int, lease: int) -> Step:  # noqa: ARG001, D103  see Algorithm
    window, count = _current(state, now_us, quota)
    ends_after = quota.period_us - now_us % quota.period_us
    left = quota.limit - count
    if cost > left and cost:
        wait = None if cost > quota.limit else ends_after
        return Step(False, state, max(0, left), ends_after if count else 0, wait)
    if cost:
        return new(Step, (True, (window, count + cost), left - cost, ends_after, 0))
    return Step(True, state, max(0, left), ends_after if count else 0, 0)


def settle(  # noqa: D103  see Algorithm
    state: State,
    now_us: int,
    quota: Quota,
    taken_at_us: int,
    cost: int,
    actual: int,
    lease: int,  # noqa: ARG001  one shape for all
) -> State:
    window, count = _current(state, now_us, quota)
    if actual >= cost:
        return _packed(window, min(count + actual - cost, MAX_EXACT))
    if taken_at_us // quota.period_us != window:
        return state
    return _packed(window, max(0, count - (cost - actual)))


def expires(state: State, quota: Quota) -> int:  # noqa: D103  see Algorithm
    return (state[0] + 1) * quota.period_us


def _current(state: State, now_us: int, quota: Quota) -> tuple[int, int]:
    window = now_us // quota.period_us
    # A count from a later window means that the clock went back: it moves along and is not forgotten.
    return window, state[1] if state and state[0] >= window else 0


def _packed(window: int, count: int) -> State:
    return (window, count) if count else ()


FIXED_WINDOW = Algorithm(admit, settle, expires)
