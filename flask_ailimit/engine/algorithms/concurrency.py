"""Concurrency: at most ``limit`` calls in flight, each holding a lease.

A lease ends when its reservation does, or ``quota.period`` seconds after it was last renewed, so that a process that
was killed gives its slots back. State: ``(expires1, lease1, expires2, lease2, ...)``.

Nobody can know when somebody else's call ends. A refusal guesses that the oldest one takes as long again as it has run
since it was last renewed, and at least a second: short calls are tried again soon, and who waits for long ones is told
to wait longer each time.

Work that goes on after its reservation ended takes its slots again, beyond the limit if it must be. Until there are
fewer than that again nobody else gets one, at no cost either.
"""

from collections.abc import Container

from flask_ailimit.engine.clock import MICROSECONDS
from flask_ailimit.engine.quota import MOST_IN_FLIGHT, Quota

from .base import Algorithm, State, Step

LEAST_RETRY_AFTER_US = MICROSECONDS
_MOST_LEASES = 2 * MOST_IN_FLIGHT


def admit(state: State, now_us: int, quota: Quota, cost: int, lease: int) -> Step:  # noqa: D103  see Algorithm
    live = running(state, now_us, quota)
    left = quota.limit - len(live) // 2
    if cost > quota.limit:
        return Step(False, state, max(0, left), _reset_us(live, now_us), None)
    if cost > left:
        left_us = min(live[::2]) - now_us
        ran_us = quota.period_us - left_us
        wait_us = min(max(ran_us, LEAST_RETRY_AFTER_US), left_us)
        return Step(False, state, max(0, left), _reset_us(live, now_us), wait_us)
    if cost:
        # No lease runs longer than one that begins now.
        return Step(True, live + (now_us + quota.period_us, lease) * cost, left - cost, quota.period_us, 0)
    return Step(True, state, max(0, left), _reset_us(live, now_us), 0)


def settle(
    state: State,
    now_us: int,
    quota: Quota,
    taken_at_us: int,  # noqa: ARG001  one shape for all
    cost: int,
    actual: int,
    lease: int,
) -> State:
    """Give the lease's slots back; at a cost of 0, with something used, let it hold ``actual`` slots from now on."""
    if actual and not cost:
        held = renew(state, now_us, quota, (lease,))
        leases = held[1::2]
        more = min(min(actual, quota.limit) - leases.count(lease), _MOST_LEASES - len(leases))
        return held + (now_us + quota.period_us, lease) * more
    live = running(state, now_us, quota)
    leases = live[1::2]
    if leases.count(lease) == 1:
        i = 2 * leases.index(lease)
        return live[:i] + live[i + 2 :]
    return tuple(n for end, held in zip(live[::2], leases, strict=True) if held != lease for n in (end, held))


def renew(state: State, now_us: int, quota: Quota, leases: Container[int]) -> State:
    """Let these leases run for a whole period from now, those of them that are still held."""
    until = now_us + quota.period_us
    renewed = [*running(state, now_us, quota)]
    pairs = zip(renewed[::2], renewed[1::2], strict=True)
    renewed[::2] = [until if held in leases else end for end, held in pairs]
    return tuple(renewed)


def expires(state: State, quota: Quota) -> int:  # noqa: ARG001, D103  see Algorithm
    return max(state[::2])


def running(state: State, now_us: int, quota: Quota) -> State:
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
