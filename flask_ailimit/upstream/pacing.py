"""Paces the calls to one group of models: what a call reserves, how it waits for its turn, what it settles.

All processes that share the store share this. A call asks the store once, for everything together: the gate (a pause
that the upstream asked for, and the breaker), the line of those that wait, the limits over time, and the calls in
flight. Who doesn't get it takes a place in the line, and asks again when its turn should have come.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from flask_ailimit.engine import Charge, ConfigurationError, Engine, Quota, Reservation, Settlement, StoreError
from flask_ailimit.engine.algorithms.gate import CLOSED, GOOD, HALF_OPEN, OPEN, PAUSED, probe_of, standing_of
from flask_ailimit.engine.charge import ALLOW, LOCAL
from flask_ailimit.engine.decision import Decision
from flask_ailimit.engine.quota import CONCURRENCY, GATE, MAX_EXACT, PROVIDER_BUCKET, REQUESTS, TOKEN_UNITS, TURNS
from flask_ailimit.engine.reservation import LEASE_BITS, end_together
from flask_ailimit.tokens import Usage

from .lowering import most_used, used_beyond
from .settings import TIMED, UpstreamSettings
from .told import MINUTE, Told

STATES = {CLOSED: "closed", PAUSED: "paused", OPEN: "open", HALF_OPEN: "half-open"}
"""How a gate stands, in words."""

SPENT = "spent"
"""Why calls wait whose account has no money left, or no quota: to wait for it is in vain."""

PAYMENT_REQUIRED = 402
"""The status with which a gate notes that, whatever status the answer had."""

PLACE_LEASE = 5
"""Seconds after which the place of a waiter that died is free."""

LEAST_WAIT = 0.01
"""Seconds. Nobody asks the store again sooner."""

SLOT_WAIT = 0.05
"""Seconds after which who waits for a call in flight to end looks again: nobody knows when it does."""

_GIVEN_BACK = (*TOKEN_UNITS, CONCURRENCY, "turn")
"""Why a call waits that may be over sooner than is known."""

_MOST_LEARNT = 2**40


Limits = tuple[tuple[Quota, Quota | None], ...]
"""Each limit that is in force, and the one that the app has named for it, if any."""


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
        least: Seconds that it waits in any case. Of tokens and of calls in flight some may be given back at any time.
        why: ``requests``, ``tokens``, ``input_tokens``, ``output_tokens``, ``concurrency``, ``turn``, or how the
            gate stands: ``paused``, ``spent``, ``open`` or ``half-open``.
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
        taken_again: When it is taken again, in seconds of a clock that never jumps, because it may be lost: with its
            lease, if the process stood still, or with the store's counts.
    """

    __slots__ = ("__weakref__", "open", "taken_again", "ticket")

    def __init__(self, *, is_batch: bool) -> None:
        self.ticket = (secrets.randbits(LEASE_BITS - 1) << 1 | is_batch) or 2
        self.open: list[int] = []
        self.taken_again = 0.0


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
        self._told: dict[str, tuple[int, int]] = {}
        self._most_left: dict[str, int] = {}
        self._limits: Limits = tuple((quota, quota) for quota in settings.quotas)

    def reserve(self, asked: Asked, place: Place) -> Reservation:
        """Take what the call needs, or nothing; one trip to the store."""
        return self._engine.reserve(self._charges(asked, place))

    def peek(self, asked: Asked) -> Decision:
        """Whether a call could be sent now, without taking anything."""
        return self._engine.peek(self._charges(asked, Place(is_batch=False)))

    def wait_of(self, decision: Decision) -> Wait:
        """Why a decision refused, and until when."""
        longest, least, why, gate, ahead, each, is_full, status = 0.0, 0.0, "turn", "", 0, 0.0, False, 0
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
                if told >= longest:
                    longest, why = told, unit
                if unit == GATE:
                    standing = standing_of(verdict.remaining)
                    gate, status = STATES[standing.kind], standing.status
                    gate = SPENT if (gate, status) == ("paused", PAYMENT_REQUIRED) else gate
                if unit == REQUESTS or (unit == GATE and gate != "half-open"):
                    least = max(least, told)
        return Wait(max(longest + ahead * each, LEAST_WAIT), least, gate or why, ahead, is_full, status)

    def nap(self, wait: Wait) -> float:
        """How long a waiter sleeps before it asks again.

        The first in line sleeps exactly as long as it must. Who is before others may leave the line, so the others look
        again after half of the time. Tokens and slots may be given back at any moment: then each looks again as often
        as its place in the line is near, so all together ask the store no more than some hundred times a second.
        """
        if not wait.ahead and wait.why in (REQUESTS, "paused"):
            return max(wait.seconds, LEAST_WAIT)
        half = max(wait.seconds / 2, min(wait.seconds, SLOT_WAIT))
        if wait.why in _GIVEN_BACK:
            half = min(half, (wait.ahead + 1) * SLOT_WAIT)
        return max(half, LEAST_WAIT)

    def line_up(self, place: Place) -> None:
        """Take a place at the end of the line, unless it is held. Without a store there is no line."""
        now, charge = self._now(), self._turn(place)
        if place.open and now < place.taken_again:
            return
        if not place.open:
            place.open.append(place.ticket)
            self._engine.leases.add(place.ticket, [charge], place)
        with suppress(StoreError):
            self._engine.store.settle([Settlement(charge.costing(0), 0, 1, place.ticket)])
            place.taken_again = now + PLACE_LEASE

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
        also: Sequence[Settlement] = (),
    ) -> bool:
        """End a call's reservation, in one trip to the store. Answers whether this call ended it.

        Args:
            reservation: The call's.
            gate: What its answer means for the gate, as of ``outcome_of``.
            used: The tokens that it used; None for what was reserved.
            sent: Whether the upstream has counted it as a request.
            also: Further settlements for the same trip.
        """

        def actual_of(charge: Charge) -> int:
            unit = charge.quota.unit
            if unit == GATE:
                return gate
            if unit == REQUESTS:
                return charge.cost if sent else 0
            return charge.cost if used is None else used.of(unit)

        return end_together([reservation], actual_of, also).was_open

    def proved(self, reservation: Reservation) -> list[Settlement]:
        """What tells the gate that the answer has begun, if the call is its probe: nobody else can wait for the end."""
        if not self.probe_of(reservation):
            return []
        return [Settlement(self._gate.costing(0), 0, GOOD, reservation.taken.lease)]

    def probe_of(self, reservation: Reservation) -> int:
        """By what the gate tells of a call that is its probe; 0 if it is none."""
        for verdict in reservation.decision.taken:
            if verdict.quota.unit == GATE and standing_of(verdict.remaining).kind == HALF_OPEN:
                return probe_of(reservation.taken.lease)
        return 0

    def lowered(self, reservation: Reservation, told: Told) -> list[Settlement]:
        """Settlements that lower our counts to what the upstream says is left of its own.

        There are none unless it has counted more than we did when the call was allowed: then somebody else uses the
        account. They are to be settled at once, while both count alike what the calls in flight have reserved.
        """
        lowered = []
        for verdict in reservation.decision.taken:
            charge, quota = verdict.charge, verdict.quota
            left = told.remaining.get(quota.unit)
            if quota.algorithm != PROVIDER_BUCKET or left is None:
                continue
            if told.periods.get(quota.unit, MINUTE) != quota.period:
                continue
            if told.limits.get(quota.unit, quota.limit) < quota.limit:
                continue  # It is a part of another limit, by which the next call is decided.
            most_left = self._most_left[quota.unit] = max(left, self._most_left.get(quota.unit, 0))
            used = used_beyond(quota, charge.cost, quota.burst - verdict.remaining, told, most_left)
            if used is not None:
                used = min(used, most_used(quota, charge.cost, self._settings.longest_pause), MAX_EXACT)
                taken_at_us = reservation.decision.taken_at_us(charge)
                lowered.append(Settlement(charge.costing(0), taken_at_us, used, reservation.taken.lease))
        return lowered

    def tell(self, settlements: Sequence[Settlement]) -> None:
        """Settle what :meth:`lowered` and :meth:`proved` answered."""
        with suppress(StoreError):
            self._engine.store.settle(settlements)

    def learn(self, told: Told) -> None:
        """Take over the limits that an answer names: never above those that the app has named.

        A limit per day is not: calls would be spread over the day. Nor is one by which each call would wait longer than
        an answer may stop calls.
        """
        believed = {
            unit: (limit, told.periods.get(unit, MINUTE))
            for unit, limit in told.limits.items()
            if limit <= _MOST_LEARNT and self._is_bearable(limit, told.periods.get(unit, MINUTE))
        }
        if any(self._told.get(unit) != each for unit, each in believed.items()):
            self._told.update(believed)
            seen = None
            while seen != self._told:  # Another thread may learn at the same time.
                seen = self._told.copy()
                self._limits = tuple(self._in_force())

    def _is_bearable(self, limit: int, period: int) -> bool:
        longest = self._settings.longest_pause
        return period <= max(MINUTE, longest) and period <= limit * longest

    @property
    def quotas(self) -> tuple[Quota, ...]:
        """The limits over time that are in force."""
        return tuple(quota for quota, _ in self._limits)

    @property
    def gate(self) -> Charge:
        """The charge that asks whether calls may be made at all."""
        return self._gate

    @property
    def counts(self) -> list[Charge]:
        """Charges that ask, and take nothing: how many calls wait, and what is left of each limit."""
        slots = [charge.costing(0) for charge in self._slot]
        return [self._charge(quota, 0) for quota in (self._line, *self.quotas)] + slots

    def _charges(self, asked: Asked, place: Place) -> list[Charge]:
        charges = [self._gate, self._turn(place)]
        for in_force, named in self._limits:
            cost = 1 if in_force.unit == REQUESTS else max(asked.usage.of(in_force.unit), 1)
            # A limit that was told and that no such call would ever fit into is none, or the upstream will say so.
            quota = in_force if cost <= in_force.limit else named
            if quota is not None and (asked.counts_tokens or quota.unit == REQUESTS):
                # What is larger than can be had at once is settled afterwards, as any other that used more.
                charges.append(self._charge(quota, min(cost, quota.burst)))
        return [*charges, *self._slot]

    def _turn(self, place: Place) -> Charge:
        return self._charge(self._line, place.ticket)

    def _charge(self, quota: Quota, cost: int) -> Charge:
        return Charge(self._subject, quota, cost, on_store_error=self._without_store)

    def _in_force(self) -> Iterator[tuple[Quota, Quota | None]]:
        """The limits that the app has named, lowered to those that were told; of what it hasn't named, those told."""
        settings = self._settings
        for quota in settings.quotas:
            yield self._lowest(quota), quota
        named = {quota.unit for quota in settings.quotas}
        for unit, (limit, period) in self._told.copy().items():
            if unit not in named:
                with suppress(ConfigurationError):  # Not a number that can be counted.
                    yield settings.paced(unit, limit, period), None

    def _lowest(self, quota: Quota) -> Quota:
        told, period = self._told.get(quota.unit, (quota.limit, quota.period))
        if told >= quota.limit or period != quota.period or quota.algorithm != PROVIDER_BUCKET:
            return quota
        try:
            lower = self._settings.paced(quota.unit, told, quota.period)
            return Quota(told, quota.period, quota.unit, PROVIDER_BUCKET, min(lower.burst, quota.burst))
        except ConfigurationError:
            return quota
