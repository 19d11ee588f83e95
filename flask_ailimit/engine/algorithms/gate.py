"""Gate: whether calls to a provider may be made at all. A pause that the provider asked for, and a circuit breaker.

While the breaker is closed it counts answers, in windows of 30 s. It opens for 1 s when at least 10 were counted and at
least half of them are faults. Then it is half-open: one call is let through, the probe, and holds a lease until it is
answered. A good answer to the probe closes the breaker; a fault opens it for twice as long as before, 10 s at most. Any
other answer gives the probe back, and the next call is the probe. What comes of other calls counts for nothing
meanwhile: a good answer to one that was made before does not say that the provider is well again. A breaker that has
been half-open for 30 s without a probe is closed, because what it knew is too old.

A charge costs 1 for a call. What it is settled with tells what came of the call, see :func:`packed`. At a cost of 0
nothing is counted: an ``actual`` of 0 gives the probe back, and :data:`GOOD` tells that the answer to the probe has
begun, which closes the breaker: a stream may last for minutes. ``Step.remaining`` tells how the gate stands, see
:func:`standing_of`.

State: ``()`` while nothing is known, ``(started, good, faults)`` while answers are counted, and behind these, while
there is a pause or the breaker isn't closed, ``(paused_until, pause_us, paused_by, opened_until, open_us, opened_by,
probe, probe_ends)``. ``paused_by`` and ``opened_by`` are the statuses of the answers that paused or opened it.
"""

from collections.abc import Container
from typing import NamedTuple

from flask_ailimit.engine.clock import MICROSECONDS
from flask_ailimit.engine.quota import MAX_EXACT, Quota

from .base import Algorithm, State, Step

NEUTRAL, NOTHING, GOOD, FAULT = range(4)
"""What came of a call: nothing that says how the provider is; nothing to correct; a good answer; a fault."""

CLOSED, PAUSED, OPEN, HALF_OPEN = range(4)
"""How a gate stands."""

_OUTCOMES = 4
_STATUSES = 1024
_HIGHEST_STATUS = 999
_PROBES = 2**40
_MOST_PAUSE_MS = MAX_EXACT // (_OUTCOMES * _STATUSES) - 1
_MILLISECOND = 1000

_COUNTED_FOR_US = 30 * MICROSECONDS
_LEAST_COUNTED = 10
_FIRST_OPEN_US = MICROSECONDS
_LONGEST_OPEN_US = 10 * MICROSECONDS
_LONGEST_PROBE_WAIT_US = MICROSECONDS


class Outcome(NamedTuple):
    """What came of a call.

    Attributes:
        kind: :data:`NEUTRAL`, :data:`NOTHING`, :data:`GOOD` or :data:`FAULT`.
        status: The HTTP status of the answer; 0 without one.
        pause_ms: How many milliseconds nobody is to call, from now on.
    """

    kind: int
    status: int = 0
    pause_ms: int = 0


class Standing(NamedTuple):
    """How a gate stands.

    Attributes:
        kind: :data:`CLOSED`, :data:`PAUSED`, :data:`OPEN` or :data:`HALF_OPEN`.
        status: The HTTP status of the answer that paused or opened it; 0 without one, or while it is closed.
        probe: The lowest 40 bits of the probe's lease, while there is one; else 0.
    """

    kind: int
    status: int
    probe: int = 0


def packed(outcome: Outcome) -> int:
    """The number with which a call is settled, ``pause_ms * 4096 + status * 4 + kind``. Only ``NOTHING`` is 1.

    Raises:
        ValueError: The status is not from 0 to 999, or the pause is below 0. One of more than 69 years is cut.
    """
    kind, status, pause_ms = outcome
    if kind == NOTHING:
        return NOTHING
    if not 0 <= status <= _HIGHEST_STATUS or pause_ms < 0:
        raise ValueError(f"gate: a status from 0 to 999 and a pause of 0 ms or more are needed. Got {outcome}.")
    return (min(pause_ms, _MOST_PAUSE_MS) * _STATUSES + status) * _OUTCOMES + kind


def outcome_of(actual: int) -> Outcome:
    """What :func:`packed` was given."""
    rest, kind = divmod(actual, _OUTCOMES)
    pause_ms, status = divmod(rest, _STATUSES)
    return Outcome(kind, status, pause_ms)


def standing_of(remaining: int) -> Standing:
    """How the gate stands of which so much remains: ``probe * 4096 + status * 4 + kind``."""
    rest, kind = divmod(remaining, _OUTCOMES)
    probe, status = divmod(rest, _STATUSES)
    return Standing(kind, status, probe)


def probe_of(lease: int) -> int:
    """By what a gate tells of the probe that has this lease: its lowest 40 bits."""
    return lease % _PROBES


class _Gate(NamedTuple):
    """A state in full. What is not, is 0: what is counted, a pause, a breaker that isn't closed, its probe."""

    started: int = 0
    good: int = 0
    faults: int = 0
    paused_until: int = 0
    pause_us: int = 0
    paused_by: int = 0
    opened_until: int = 0
    open_us: int = 0
    opened_by: int = 0
    probe: int = 0
    probe_ends: int = 0


_COUNTED = 3
_NO_COUNT = {"started": 0, "good": 0, "faults": 0}
_NO_PAUSE = {"paused_until": 0, "pause_us": 0, "paused_by": 0}
_NO_PROBE = {"probe": 0, "probe_ends": 0}
_CLOSED = {"opened_until": 0, "open_us": 0, "opened_by": 0, **_NO_PROBE}


def admit(state: State, now_us: int, quota: Quota, cost: int, lease: int) -> Step:
    """Let a call through, as the probe if the breaker is half-open. At a cost of 0 it tells how it stands."""
    gate = _present(state, now_us, quota)
    kind, status, probe = _standing(gate, now_us)
    stands, reset_us = (probe * _STATUSES + status) * _OUTCOMES + kind, max(0, _ends(gate) - now_us)
    if not cost or kind == CLOSED:
        return Step(True, state, stands, reset_us, 0)
    if kind != HALF_OPEN:
        return Step(False, state, stands, reset_us, max(gate.paused_until, gate.opened_until) - now_us)
    if gate.probe_ends > now_us:
        return Step(False, state, stands, reset_us, min(gate.probe_ends - now_us, _LONGEST_PROBE_WAIT_US))
    probing = gate._replace(probe=lease, probe_ends=now_us + quota.period_us)
    return Step(True, _state(probing), stands, _ends(probing) - now_us, 0)


def settle(
    state: State,
    now_us: int,
    quota: Quota,
    taken_at_us: int,  # noqa: ARG001  one shape for all
    cost: int,
    actual: int,
    lease: int,
) -> State:
    """Note what came of a call: ``actual`` is what :func:`packed` answers."""
    gate = _present(state, now_us, quota)
    kind, status, pause_ms = outcome_of(actual) if cost else Outcome(actual if actual in (NEUTRAL, GOOD) else NOTHING)
    if kind == NOTHING:
        return _state(gate)
    pause_us = pause_ms * _MILLISECOND
    if pause_us and now_us + pause_us > gate.paused_until:
        gate = gate._replace(paused_until=now_us + pause_us, pause_us=pause_us, paused_by=status)
    if gate.probe_ends and gate.probe == lease:
        return _state(_after_probe(gate, now_us, kind, status))
    if kind == NEUTRAL or gate.open_us or not cost:
        return _state(gate)
    started = gate.started if gate.good + gate.faults else now_us
    good, faults = gate.good + (kind == GOOD), gate.faults + (kind == FAULT)
    if kind == FAULT and good + faults >= _LEAST_COUNTED and 2 * faults >= good + faults:
        return _state(_opened(gate, now_us, _FIRST_OPEN_US, status))
    return _state(gate._replace(started=started, good=good, faults=faults))


def renew(state: State, now_us: int, quota: Quota, leases: Container[int]) -> State:
    """Let the lease of the probe run for a whole period from now, if it is one of these and still runs."""
    gate = _present(state, now_us, quota)
    if gate.probe_ends > now_us and gate.probe in leases:
        gate = gate._replace(probe_ends=now_us + quota.period_us)
    return _state(gate)


def expires(state: State, quota: Quota) -> int:  # noqa: ARG001, D103  see Algorithm
    return _ends(_Gate(*state))


def _after_probe(gate: _Gate, now_us: int, kind: int, status: int) -> _Gate:
    if kind == GOOD:
        return gate._replace(**_CLOSED)
    if kind == FAULT:
        return _opened(gate, now_us, min(2 * gate.open_us, _LONGEST_OPEN_US), status)
    # It is half-open from now on, or a long probe would leave it as one that nobody probed.
    return gate._replace(opened_until=max(gate.opened_until, now_us), **_NO_PROBE)


def _opened(gate: _Gate, now_us: int, open_us: int, status: int) -> _Gate:
    opened = {"opened_until": now_us + open_us, "open_us": open_us, "opened_by": status}
    return gate._replace(**_NO_COUNT, **opened, **_NO_PROBE)


def _present(state: State, now_us: int, quota: Quota) -> _Gate:
    """The gate now, without what has ended. Nothing lasts longer than from now on, even if the clock went back."""
    gate = _Gate(*state)
    if gate.started > now_us:
        gate = gate._replace(started=now_us)
    elif gate.started and gate.started + _COUNTED_FOR_US <= now_us:
        gate = gate._replace(**_NO_COUNT)
    if gate.paused_until:
        until = min(gate.paused_until, now_us + gate.pause_us)
        gate = gate._replace(paused_until=until) if until > now_us else gate._replace(**_NO_PAUSE)
    if gate.open_us:
        until, probe_ends = (
            min(gate.opened_until, now_us + gate.open_us),
            min(gate.probe_ends, now_us + quota.period_us),
        )
        is_known = max(until, probe_ends) + _COUNTED_FOR_US > now_us
        gate = gate._replace(**({"opened_until": until, "probe_ends": probe_ends} if is_known else _CLOSED))
    return gate


def _standing(gate: _Gate, now_us: int) -> Standing:
    if gate.paused_until > now_us:
        return Standing(PAUSED, gate.paused_by)
    if gate.open_us:
        probe = probe_of(gate.probe) if gate.probe_ends > now_us else 0
        return Standing(OPEN if gate.opened_until > now_us else HALF_OPEN, gate.opened_by, probe)
    return Standing(CLOSED, 0)


def _ends(gate: _Gate) -> int:
    """When all of it has ended."""
    counted = gate.started + _COUNTED_FOR_US if gate.started else 0
    known = max(gate.opened_until, gate.probe_ends) + _COUNTED_FOR_US if gate.open_us else 0
    return max(counted, gate.paused_until, known)


def _state(gate: _Gate) -> State:
    if gate.paused_until or gate.open_us:
        return tuple(gate)
    return gate[:_COUNTED] if gate.started else ()


GATE = Algorithm(admit, settle, expires, renew)
