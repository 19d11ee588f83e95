"""Window: ``limit`` units in each window of a calendar, of a session or of the clock. Each window begins with nothing.

A window ends where it was to end when its first charge was taken. So if the calendar changes, the current window goes
on as it began, and the next one follows the new calendar. What was used beyond the limit is not owed later: customers
read such a window as a bill. What is used too much by a request that was decided in an earlier window is charged to the
current one; a refund to an earlier window changes nothing.

State: ``(began, ends, count)``, the first two in microseconds since the epoch. ``began`` is when the first charge was
taken.
"""

from flask_ailimit.engine.quota import MAX_EXACT, Quota

from .base import Algorithm, State, Step, new


def admit(state: State, now_us: int, quota: Quota, cost: int, lease: int) -> Step:  # noqa: ARG001, D103  see Algorithm
    limit = quota.limit
    if state and state[0] <= now_us < state[1]:
        began, ends, count = state
    else:
        began, ends, count = _current(state, now_us, quota)
    left = limit - count
    if cost > left:
        wait_us = None if cost > limit else ends - now_us
        return new(Step, (False, state, max(0, left), ends - now_us if count else 0, wait_us))
    if cost:
        count += cost
        state = began, ends, count
    return new(Step, (True, state, limit - count, ends - now_us if count else 0, 0))


def settle(  # noqa: D103  see Algorithm
    state: State,
    now_us: int,
    quota: Quota,
    taken_at_us: int,
    cost: int,
    actual: int,
    lease: int,  # noqa: ARG001  one shape for all
) -> State:
    began, ends, count = _current(state, now_us, quota)
    if actual >= cost:
        count += min(actual - cost, MAX_EXACT - count)
    elif taken_at_us >= began:
        count -= min(cost - actual, count)
    return (began, ends, count) if count else ()


def expires(state: State, quota: Quota) -> int:  # noqa: ARG001, D103  see Algorithm
    return state[1]


def _current(state: State, now_us: int, quota: Quota) -> tuple[int, int, int]:
    """The window at this time: when it began, when it ends, and what counts in it."""
    if not state or now_us >= state[1]:
        return now_us, quota.window_end_us(now_us), 0
    if now_us < state[0]:
        # The clock went back: the count moves along and is not forgotten. Older reservations get no refund.
        return now_us, quota.window_end_us(now_us), state[2]
    return state[0], state[1], state[2]


WINDOW = Algorithm(admit, settle, expires)
