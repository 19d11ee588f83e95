"""Concurrency: at most ``limit`` calls in flight, each holding a lease.

A lease ends when its reservation does, or ``quota.period`` seconds after it was last renewed, so that a process that
was killed gives its slots back. State: ``(expires1, lease1, expires2, lease2, ...)``.

Nobody can know when somebody else's call ends. A refusal guesses that the oldest one takes as long again as it has run
since it was last renewed, and at least a second: short calls are tried again soon, and who waits for long ones is told
to wait longer each time.
"""

from flask_ailimit.engine.clock import MICROSECONDS
from flask_ailimit.engine.quota import Quota

from .base import Algorithm, State, Step

LEAST_RETRY_AFTER_US = MICROSECONDS


def admit(state: State, now_us: int, quota: Quota, cost: int, lease: int) -> Step:  # noqa: D103  see Algorithm
    live = _live(state, now_us, quota)
    left = quota.limit - len(live) // 2
    if cost > quota.limit:
        return Step(False, state, max(0, left), _reset_us(live, now_us), None)
    if cost > left and cost:
        left_us = min(live[::2]) - now_us
        ran_us = quota.period_us - left_us
        wait_us = min(max(ran_us, LEAST_RETRY_AFTER_US), left_us)
        return Step(False, state, max(0, left), _reset_us(live, now_us), wait_us)
    if cost:
        # No lease runs longer than one that begins now.
        return Step(True, live + (now_us + quota.period_us, lease) * cost, left - cost, quota.period_us, 0)
    return Step(True, state, max(0, left), _reset_us(live, now_us), 0)


def settle(  # noqa: D103  see Algorithm
    state: State,
    now_us: int,
    quota: Quota,
    taken_at_us: int,  # noqa: ARG001  one shape for all
    cost: int,  # noqa: ARG001
    actual: int,  # noqa: ARG001
    lease: int,
) -> State:
    live = _live(state, now_us, quota)
    leases = live[1::2]
    if leases.count(lease) == 1:
        i = 2 * leases.index(lease)
        return live[:i] + live[i + 2 :]
    return tuple(n for end, held in zip(live[::2], leases, strict=True) if held != lease for n in (end, held))


def renew(state: State, now_us: int, quota: Quota, lease: int) -> State:
    """Let the lease run for a whole period from now, if it is still held."""
    until = now_us + quota.period_us
    live = _live(state, now_us, quota)
    pairs = zip(live[::2], live[1::2], strict=True)
    return tuple(n for end, held in pairs for n in (until if held == lease else end, held))


def expires(state: State, quota: Quota) -> int:  # noqa: ARG001, D103  see Algorithm
    return max(state[::2])


def _live(state: State, now_us: int, quota: Quota) -> State:
    """The leases that hold; none runs longer than a period from now, even if the clock went back."""
    latest = now_us + quota.period_us
    ends = state[::2]
    if not state or (min(ends) > now_us and max(ends) <= latest):
        return state
    pairs = zip(ends, state[1::2], strict=True)
    return tuple(n for end, lease in pairs if end > now_us for n in (min(end, latest), lease))


def _reset_us(live: State, now_us: int) -> int:
    return max(live[::2]) - now_us if live else 0


CONCURRENCY = Algorithm(admit, settle, expires, renew)
