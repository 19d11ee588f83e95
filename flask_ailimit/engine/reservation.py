"""What an allowed decision took, until it is ended exactly once."""

import logging
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Self

from .announced import Announced
from .charge import Charge, Settlement, require_cost
from .decision import Decision, Verdict
from .errors import AILimitError
from .forking import lineage
from .leases import Leases
from .quota import BUDGET, CONCURRENCY, MAX_EXACT, PROVIDER_BUCKET, TURNS
from .stores.base import Store

LEASE_BITS = 53

_log = logging.getLogger("flask_ailimit")

_UNDECIDED = Decision((), 0)

ActualOf = Callable[[Charge], int]
"""Answers what a charge really cost."""


class Endable(ABC):
    """What was taken, and is ended exactly once.

    Attributes:
        passed: Once it has ended, the counts that have passed their soft percent by it, each as it stands. Nobody else
            is told of them in this window.
    """

    __slots__ = ()

    passed: Sequence[Verdict]

    @abstractmethod
    def end(self, actual_of: ActualOf) -> bool:
        """End it, asking for each charge what it really cost. Answers whether this call ended it."""

    def settle(self, usage: Mapping[str, int]) -> bool:
        """End it with what was really used, by unit; units that are not named cost what was reserved.

        What was used too much becomes debt. Answers whether this call ended it: later endings do nothing.

        Raises:
            ValueError: A number is not an integer from 0 to 2**53 - 1; it stays open.
        """
        checked = {unit: require_cost(number) for unit, number in usage.items()}
        return self.end(lambda charge: checked.get(charge.quota.unit, charge.cost))

    def settle_at_least(self, seen: Mapping[str, int]) -> bool:
        """End it with what is known to have been used, when more may have been: nothing is given back."""
        checked = {unit: require_cost(number) for unit, number in seen.items()}
        return self.end(lambda charge: max(charge.cost, checked.get(charge.quota.unit, 0)))

    def cancel(self) -> bool:
        """End it and give back everything."""
        return self.end(lambda _: 0)


class Taken(NamedTuple):
    """What a reservation holds, as long as it is open.

    Attributes:
        lease: The reservation's number.
        charges: Each charge, and when it was taken, by the store's clock.
    """

    lease: int
    charges: list[tuple[Charge, int]]


class Reservation(Endable):
    """The charges of one decision. A refused one holds nothing, and its endings do nothing.

    As a context manager it is cancelled if the block raises, and settled as reserved if not.
    """

    __slots__ = (
        "__weakref__",
        "_announced",
        "_lease",
        "_leases",
        "_lineage",
        "_store",
        "allowed",
        "decision",
        "open",
        "passed",
    )

    def __init__(self, lease: int, store: Store, leases: Leases, announced: Announced) -> None:
        self.decision = _UNDECIDED
        self.allowed = False
        self.passed: Sequence[Verdict] = ()
        self._announced = announced
        self._lease = lease
        self._store = store
        self._leases = leases
        self._lineage = lineage()
        self.open: list[int] = []  # Whoever takes the one thing out of it ends the reservation.

    def asked(self, charges: Iterable[Charge]) -> None:
        """Note that it is about to be asked for. Its slots are given back if nobody comes to hear the answer."""
        slots = slots_of(charges)
        if slots:
            self._leases.add(self._lease, slots, self)

    def decided(self, decision: Decision) -> None:
        """Note the answer. When this returns, whoever has the reservation must end it."""
        self.decision = decision
        if decision.allowed:
            self.allowed = True
            # No call: an exception might be raised after it, and the slot would be held by a reservation nobody has.
            self.open += (self._lease,)
        else:
            self._leases.remove(self._lease)

    def end(self, actual_of: ActualOf, also: Sequence[Settlement] = ()) -> bool:
        """End it, asking for each charge what it really cost; ``also`` as of :func:`end_together`."""
        ended = end_together([self], actual_of, also)
        self.passed = ended.passed
        return ended.was_open

    def close(self) -> bool:
        """Mark it ended, and answer whether it was open. Its lease is renewed no more.

        A child process that was forked has a copy, which ends nothing: the parent goes on.
        """
        if not self.begin_to_end():
            return False
        self.released()
        return True

    def begin_to_end(self) -> bool:
        """Mark it ended, and answer whether it was open. For whoever settles it, and calls :meth:`released` then.

        If that is interrupted, or the store fails, the slots are given back in the background.
        """
        if self._lineage != lineage():
            return False
        try:
            self.open.pop()
        except IndexError:
            return False
        return True

    def released(self) -> None:
        """Note that its slots are given back, or are somebody else's."""
        self._leases.remove(self._lease)

    def reopen(self) -> "Reservation":
        """After it has ended: take its slots again, beyond their limits if it must be, because the work goes on.

        Answers an open reservation over the same charges, which costs nothing so far: all that it is settled with is
        charged as overrun. One store call, and none without slots. A store that fails is logged: then the work goes on
        without its slots. Of a refused reservation the answer is itself.

        Raises:
            ValueError: It has not ended.
        """
        if self.open:
            raise ValueError("reopen: this reservation is still open. End it first.")
        if not self.allowed:
            return self
        # A number of its own: a store that knows this one to have ended would take the next ending for the same.
        lease = secrets.randbits(LEASE_BITS)
        verdicts = [verdict._replace(charge=_reopened(verdict.charge)) for verdict in self.decision.taken]
        reopened = Reservation(lease, self._store, self._leases, self._announced)
        reopened.asked(verdict.charge for verdict in verdicts)
        held = slots_of(verdict.charge for verdict in verdicts)
        if held:
            hold(self._store, lease, held)
        reopened.decided(Decision(tuple(verdicts), self.decision.at_us))
        return reopened

    @property
    def store(self) -> Store:
        """Where it is counted."""
        return self._store

    @property
    def taken(self) -> Taken:
        """What it took."""
        charges = [(verdict.charge, self.decision.taken_at_us(verdict.charge)) for verdict in self.decision.taken]
        return Taken(self._lease, charges)

    def settlements(self, actual_of: ActualOf) -> list[Settlement]:
        """What the store must correct to end it: :func:`ending`, without a list of what was taken.

        A charge that needs no correction is settled too, if its count may have to be told of.
        """
        corrected = []
        decision, lease = self.decision, self._lease
        for verdict in decision.taken:
            charge = verdict.charge
            actual = _corrected(charge, actual_of)
            if actual is None and charge.quota.soft_percent and self._is_to_ask(verdict):
                actual = charge.cost
            if actual is not None:
                corrected.append(_settlement(charge, decision.taken_at_us(charge), actual, lease))
        return corrected

    def ask_again(self, charges: Iterable[Charge]) -> None:
        """Note that nobody is known to have been told of these counts, about which the store may have been asked."""
        self._announced.ask_again(charges)

    def _is_to_ask(self, verdict: Verdict) -> bool:
        """Whether the store is to be asked if a count that stands as its charge left it is to be told of."""
        charge = verdict.charge
        if charge.shadow or not charge.cost or not verdict.is_near:
            return False
        return self._announced.is_to_ask(verdict, self.decision.taken_at_us(charge))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.settle({})
        else:
            self.cancel()


def slots_of(charges: Iterable[Charge]) -> list[Charge]:
    """Those of the charges that hold slots, or may hold the probe of a gate."""
    return [charge for charge in charges if charge.quota.is_held and charge.cost and not charge.dry]


def hold(store: Store, lease: int, slots: Sequence[Charge]) -> None:
    """Hold slots under a lease from now on, whether they are held or not."""
    try:
        store.settle([Settlement(charge.costing(0), 0, charge.cost, lease) for charge in slots])
    except AILimitError as error:
        _log.warning("Work goes on without its slots: %s", error)


def ending(taken: Taken, actual_of: ActualOf) -> list[Settlement]:
    """What the store must correct when each charge costs what ``actual_of`` says; slots are given back.

    Of a count that may have to be told of, the charge is settled too if it needs no correction: whoever ends the work
    has not seen the decision.
    """
    corrected = []
    for charge, taken_at_us in taken.charges:
        actual = _corrected(charge, actual_of)
        if actual is None and charge.quota.soft_percent and charge.cost and not charge.dry and not charge.shadow:
            actual = charge.cost
        if actual is not None:
            corrected.append(_settlement(charge, taken_at_us, actual, taken.lease))
    return corrected


def _corrected(charge: Charge, actual_of: ActualOf) -> int | None:
    """What the charge really costs, 0 for a slot; None if the store has nothing to correct, as of a turn."""
    if charge.quota.algorithm == TURNS:
        return None
    is_slot = charge.quota.unit == CONCURRENCY
    actual = 0 if is_slot else actual_of(charge)
    # What a budget has reserved counts as spent from its settlement on, also if that corrects nothing.
    is_needed = is_slot or actual != charge.cost or (charge.quota.algorithm == BUDGET and charge.cost)
    return actual if is_needed and not charge.dry else None


def _settlement(charge: Charge, taken_at_us: int, actual: int, lease: int) -> Settlement:
    if actual and not charge.cost and charge.quota.algorithm == PROVIDER_BUCKET:
        # At a cost of 0 it would be what the provider tells, and not what was used too much.
        return Settlement(charge.costing(1), taken_at_us, min(actual, MAX_EXACT - 1) + 1, lease)
    return Settlement(charge, taken_at_us, actual, lease)


def _reopened(charge: Charge) -> Charge:
    return charge if charge.quota.unit == CONCURRENCY else charge.costing(0)


class Ended(NamedTuple):
    """What came of ending reservations.

    Attributes:
        was_open: Whether any of them was still open.
        passed: See :class:`Endable`.
    """

    was_open: bool
    passed: tuple[Verdict, ...]


def end_together(reservations: Iterable[Reservation], actual_of: ActualOf, also: Sequence[Settlement] = ()) -> Ended:
    """End several reservations, those of one store in one step.

    What is to be settled ``also`` follows in the same step, in the store of the first that was still open. If none was,
    it is left out: whoever ended them has seen to it.
    """
    ended = [reservation for reservation in reservations if reservation.begin_to_end()]
    by_store: dict[Store, list[Settlement]] = {}
    for reservation in ended:
        by_store.setdefault(reservation.store, []).extend(reservation.settlements(actual_of))
    if ended:
        by_store[ended[0].store].extend(also)
    passed: tuple[Verdict, ...] = ()
    for store, settlements in by_store.items():
        if settlements:
            below: Sequence[Charge] = [settlement.charge for settlement in settlements]  # If it raises.
            try:
                settled = store.settle(settlements)
                passed, below = passed + settled.passed, settled.below
            finally:
                if below:
                    for reservation in ended:
                        reservation.ask_again(below)
    for reservation in ended:
        reservation.released()
    return Ended(bool(ended), passed)
