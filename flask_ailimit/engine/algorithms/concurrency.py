"""Concurrency: at most ``limit`` calls in flight, each holding a lease.

A lease ends when its reservation does, or ``quota.period`` seconds after it was last renewed, so that a process that
was killed gives its slots back. State: ``(expires1, lease1, expires2, lease2, ...)``.

Nobody can know when somebody else's call ends. A refusal guesses that the oldest one takes as long again as it has run
since it was last renewed, and at least a second: short calls are tried again soon, and who waits for long ones is told
to wait longer each time.
"""

from collections.abc import Iterator

from flask_ailimit.engine.clock import MICROSECONDS
from flask_ailimit.engine.quota import Quota

from .base import Algorithm, State, Step

LEAST_RETRY_AFTER_US = MICROSECONDS


def admit(state: State, now_us: int, quota: Quota, cost: int, lease: int) -> Step:  # noqa: D103  see Algorithm
    live = _live(state, now_us, quota)
    held = len(live) // 2
    if cost > quota.limit:
        return Step(False, state, max(0, quota.limit - held), _reset_us(live, now_us), None)
    if cost and held + cost > quota.limit:
        left_us = min(live[::2]) - now_us
        ran_us = quota.period * MICROSECONDS - left_us
        wait_us = min(max(ran_us, LEAST_RETRY_AFTER_US), left_us)
        return Step(False, state, max(0, quota.limit - held), _reset_us(live, now_us), wait_us)
    if cost:
        state = live = live + (now_us + quota.period * MICROSECONDS, lease) * cost
    return Step(True, state, max(0, quota.limit - held - cost), _reset_us(live, now_us), 0)


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
    return tuple(n for entry in _pairs(live) if entry[1] != lease for n in entry)


def renew(state: State, now_us: int, quota: Quota, lease: int) -> State:
    """Let the lease run for a whole period from now, if it is still held."""
    until = now_us + quota.period * MICROSECONDS
    live = _live(state, now_us, quota)
    return tuple(n for end, held in _pairs(live) for n in (until if held == lease else end, held))


def expires(state: State, quota: Quota) -> int:  # noqa: ARG001, D103  see Algorithm
    return max(state[::2])


def _live(state: State, now_us: int, quota: Quota) -> State:
    """The leases that hold; none runs longer than a period from now, even if the clock went back."""
    latest = now_us + quota.period * MICROSECONDS
    return tuple(n for end, lease in _pairs(state) if end > now_us for n in (min(end, latest), lease))


def _pairs(state: State) -> Iterator[tuple[int, int]]:
    return zip(state[::2], state[1::2], strict=True)


def _reset_us(live: State, now_us: int) -> int:
    return max(live[::2]) - now_us if live else 0


CONCURRENCY = Algorithm(admit, settle, expires, renew)
