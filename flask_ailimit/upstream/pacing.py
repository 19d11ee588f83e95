"""Paces the calls to one group of models: what a call reserves, how it waits for its turn, what it settles.

All processes that share the store share this. A call asks the store once, for everything together: the gate (a pause
that the upstream asked for, and the breaker), the line of those that wait, the limits over time, and the calls in
flight. Who doesn't get it takes a place in the line, and asks again when its turn should have come.
"""

import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import ceil
from typing import NamedTuple

from flask_ailimit.engine import Charge, ConfigurationError, Engine, Quota, Reservation, Settlement, StoreError
from flask_ailimit.engine.algorithms.gate import CLOSED, HALF_OPEN, OPEN, PAUSED, standing_of
from flask_ailimit.engine.charge import ALLOW, LOCAL
from flask_ailimit.engine.decision import Decision
from flask_ailimit.engine.quota import CONCURRENCY, MAX_EXACT, REQUESTS
from flask_ailimit.engine.reservation import LEASE_BITS, end_together
from flask_ailimit.tokens import Usage

from .settings import PROVIDER_BUCKET, TIMED, UpstreamSettings
from .told import Told

GATE, TURNS = "gate", "turns"

STATES = {CLOSED: "closed", PAUSED: "paused", OPEN: "open", HALF_OPEN: "half-open"}
"""How a gate stands, in words."""

PLACE_LEASE = 5
"""Seconds after which the place of a waiter that died is free."""

LEAST_WAIT = 0.01
"""Seconds. Nobody asks the store again sooner."""

SLOT_WAIT = 0.05
"""Seconds after which who waits for a call in flight to end looks again: nobody knows when it does."""

_HEADROOM = 10
"""A tenth of what the upstream allows is left to who else uses the account, once so little is left."""

_MOST_LEARNT = 2**40


class Asked(NamedTuple):
    """What a call asks of an upstream.

    Attributes:
        model: The model that it names; "" if it names none.
        usage: What it may use.
        counts_tokens: Whether it may use tokens at all.
        has_known_end: Whether a stream that answers it has an event by which its end is known.
    """

    model: str
    usage: Usage
    counts_tokens: bool = True
    has_known_end: bool = False


class Wait(NamedTuple):
    """Why a call can't be sent now.

    Attributes:
        seconds: When it can be, as far as is known.
        least: Seconds that it waits even if nobody is before it.
        why: ``requests``, ``tokens``, ``input_tokens``, ``output_tokens``, ``concurrency``, ``turn``, or how the
            gate stands: ``paused``, ``open`` or ``half-open``.
        ahead: How many calls are before it.
        is_full: Whether the line has no place for it.
        status: The HTTP status of the answer that closed the gate; 0 for none.
    """

    seconds: float
    least: float
    why: str
    ahead: int
    is_full: bool
    status: int = 0


class Place:
    """A place in the line. It is held by a lease, so that the place of a process that dies is given back.

    Attributes:
        ticket: Its number; odd for a batch's call.
        open: Holds something while the place is held.
    """

    __slots__ = ("__weakref__", "open", "ticket")

    def __init__(self, *, is_batch: bool) -> None:
        self.ticket = (secrets.randbits(LEASE_BITS - 1) << 1 | is_batch) or 2
        self.open: list[int] = []


class Group:
    """A group of models that share their limits.

    Args:
        engine: Whose store everybody shares.
        settings: What the app says of the upstream.
        name: The group's name.
        seconds_running: Seconds of a clock that never jumps.
    """

    def __init__(
        self, engine: Engine, settings: UpstreamSettings, name: str, seconds_running: Callable[[], float]
    ) -> None:
        self.name = name
        self._engine = engine
        self._settings = settings
        self._now = seconds_running
        self._subject = engine.subject("upstream", settings.name, name)
        self._without_store = LOCAL if engine.store.nearby else ALLOW
        lease = settings.lease
        self._gate = self._charge(Quota(1, lease, GATE, GATE), 1)
        self._line = Quota(settings.max_waiting, PLACE_LEASE, TURNS, TURNS)
        self._slot = () if settings.slots is None else (self._charge(settings.slots, 1),)
        self._told: dict[tuple[str, int], int] = {}
        self._quotas = settings.quotas

    def reserve(self, asked: Asked, place: Place) -> Reservation:
        """Take what the call needs, or nothing; one trip to the store."""
        return self._engine.reserve(self._charges(asked, place))

    def peek(self, asked: Asked) -> Decision:
        """Whether a call could be sent now, without taking anything."""
        return self._engine.peek(self._charges(asked, Place(is_batch=False)))

    def wait_of(self, decision: Decision) -> Wait:
        """Why a decision refused, and until when."""
        least, why, gate, ahead, each, is_full, status = 0.0, "turn", "", 0, 0.0, False, 0
        for verdict in decision.verdicts:
            unit = verdict.quota.unit
            if unit == TURNS:
                ahead = round(verdict.retry_after or 0)
                is_full = verdict.retry_after is None
                continue
            pace = SLOT_WAIT
            if unit in TIMED:
                pace = verdict.charge.cost * verdict.quota.period / verdict.quota.limit
            each = max(each, pace if unit != GATE else 0.0)
            if not verdict.allowed:
                told = SLOT_WAIT if unit == CONCURRENCY else verdict.retry_after or 0.0
                if told >= least:
                    least, why = told, unit
                if unit == GATE:
                    standing = standing_of(verdict.remaining)
                    gate, status = STATES[standing.kind], standing.status
        return Wait(max(least + ahead * each, LEAST_WAIT), least, gate or why, ahead, is_full, status)

    def nap(self, wait: Wait) -> float:
        """How long a waiter sleeps before it asks again.

        The first in line sleeps exactly as long as it must. Tokens and slots may be given back sooner, and who is
        before others may leave the line, so the others look again after half of the time.
        """
        if not wait.ahead and wait.why in (REQUESTS, "paused"):
            return max(wait.seconds, LEAST_WAIT)
        return max(wait.seconds / 2, min(wait.seconds, SLOT_WAIT), LEAST_WAIT)

    def line_up(self, place: Place) -> None:
        """Take a place at the end of the line. Without a store there is no line."""
        if place.open:
            return
        place.open.append(place.ticket)
        charge = self._turn(place)
        self._engine.leases.add(place.ticket, [charge], place)
        with suppress(StoreError):
            self._engine.store.settle([Settlement(charge.costing(0), 0, 1, place.ticket)])

    def left(self, place: Place) -> None:
        """Note that the call got its turn, which took it out of the line."""
        place.open.clear()
        self._engine.leases.remove(place.ticket)

    def leave(self, place: Place) -> None:
        """Give the place back."""
        if place.open:
            place.open.clear()
            with suppress(StoreError):  # Then its lease ends.
                self._engine.store.settle([Settlement(self._turn(place).costing(0), 0, 0, place.ticket)])
            self._engine.leases.remove(place.ticket)

    def settle(
        self,
        reservation: Reservation,
        gate: int,
        used: Usage | None,
        *,
        sent: bool = True,
        told: "Heard | None" = None,
        also: Sequence[Settlement] = (),
    ) -> bool:
        """End a call's reservation, in one trip to the store. Answers whether this call ended it.

        Args:
            reservation: The call's.
            gate: What its answer means for the gate, as of ``outcome_of``.
            used: The tokens that it used; None for what was reserved.
            sent: Whether the upstream has counted it as a request.
            told: What the answer says of the upstream's own counts.
            also: Further settlements for the same trip.
        """

        def actual_of(charge: Charge) -> int:
            unit = charge.quota.unit
            if unit == GATE:
                return gate
            if unit == REQUESTS:
                return charge.cost if sent else 0
            return charge.cost if used is None else used.of(unit)

        lowered = [] if told is None else list(self._lowered(reservation, told))
        return end_together([reservation], actual_of, [*lowered, *also]).was_open

    def learn(self, told: Told) -> None:
        """Take over the limits that an answer names: never above those that the app has named."""
        changed = False
        for unit, limit in told.limits.items():
            count = unit, told.periods.get(unit, 60)
            if unit in TIMED and 0 < limit <= _MOST_LEARNT and self._told.get(count) != limit:
                self._told[count] = limit
                changed = True
        if changed:
            self._quotas = self._in_force()

    @property
    def quotas(self) -> tuple[Quota, ...]:
        """The limits over time that are in force."""
        return self._quotas

    @property
    def gate(self) -> Charge:
        """The charge that asks whether calls may be made at all."""
        return self._gate

    @property
    def counts(self) -> list[Charge]:
        """Charges that ask, and take nothing: how many calls wait, and what is left of each limit."""
        slots = [charge.costing(0) for charge in self._slot]
        return [self._charge(quota, 0) for quota in (self._line, *self._quotas)] + slots

    def _charges(self, asked: Asked, place: Place) -> list[Charge]:
        charges = [self._gate, self._turn(place)]
        for quota in self._quotas:
            if quota.unit == REQUESTS:
                charges.append(self._charge(quota, 1))
            elif asked.counts_tokens:
                # What is larger than can be had at once is settled afterwards, as any other that used more.
                charges.append(self._charge(quota, min(max(asked.usage.of(quota.unit), 1), quota.burst)))
        return [*charges, *self._slot]

    def _turn(self, place: Place) -> Charge:
        return self._charge(self._line, place.ticket)

    def _charge(self, quota: Quota, cost: int) -> Charge:
        return Charge(self._subject, quota, cost, on_store_error=self._without_store)

    def _in_force(self) -> tuple[Quota, ...]:
        """The limits that the app has named, lowered to those that were told; of what it hasn't named, those told."""
        settings = self._settings
        quotas = [self._lowest(quota) for quota in settings.quotas]
        named = {quota.unit for quota in quotas}
        for (unit, period), limit in self._told.items():
            if unit not in named:
                try:
                    quotas.append(settings.paced(unit, limit, period))
                except ConfigurationError:
                    continue  # Not a number that can be counted.
        return tuple(quotas)

    def _lowest(self, quota: Quota) -> Quota:
        told = self._told.get((quota.unit, quota.period), quota.limit)
        if told >= quota.limit or quota.algorithm != PROVIDER_BUCKET:
            return quota
        try:
            lower = self._settings.paced(quota.unit, told, quota.period)
            return Quota(told, quota.period, quota.unit, PROVIDER_BUCKET, min(lower.burst, quota.burst))
        except ConfigurationError:
            return quota

    def _lowered(self, reservation: Reservation, heard: "Heard") -> "Sequence[Settlement]":
        """Settlements that lower our counts to what the upstream says is left of its own."""
        taken = reservation.taken
        elapsed = max(0.0, self._now() - heard.at)
        lowered = []
        for charge, taken_at_us in taken.charges:
            quota = charge.quota
            left = heard.told.remaining.get(quota.unit)
            if quota.algorithm != PROVIDER_BUCKET or left is None:
                continue
            if heard.told.periods.get(quota.unit, 60) != quota.period:
                continue
            headroom = max(1, quota.limit // _HEADROOM)
            leaked = elapsed * quota.limit / quota.period
            used = ceil(quota.burst + headroom - left - leaked)
            if used > 0:
                used = min(used, quota.burst + headroom, MAX_EXACT)
                lowered.append(Settlement(charge.costing(0), taken_at_us, used, taken.lease))
        return lowered


class Heard(NamedTuple):
    """What an answer said of the upstream's own counts, and when.

    Attributes:
        told: What it said.
        at: When it came, in seconds of a clock that never jumps.
    """

    told: Told
    at: float
