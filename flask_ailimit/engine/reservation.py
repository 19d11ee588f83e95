"""What an allowed decision took, until it is ended exactly once."""

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Self

from .charge import Charge, Settlement, require_cost
from .decision import Decision
from .leases import Leases
from .quota import CONCURRENCY
from .stores.base import Store

ActualOf = Callable[[Charge], int]
"""Answers what a charge really cost."""


class Reservation:
    """The charges of one decision. A refused one holds nothing, and its endings do nothing.

    As a context manager it is cancelled if the block raises, and settled as reserved if not.
    """

    __slots__ = ("__weakref__", "_lease", "_leases", "_open", "_store", "allowed", "decision")

    def __init__(self, decision: Decision, lease: int, store: Store, leases: Leases) -> None:
        self.decision = decision
        self.allowed = decision.allowed
        self._lease = lease
        self._store = store
        self._leases = leases
        self._open = [lease] if decision.allowed else []  # Whoever takes the one thing out of it ends the reservation.

    def settle(self, usage: Mapping[str, int]) -> bool:
        """End it with what was really used, by unit; units that are not named cost what was reserved.

        What was used too much becomes debt. Answers whether this call ended it: later endings do nothing.

        Raises:
            ValueError: A number is not an integer from 0 to 2**53 - 1; the reservation stays open.
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

    def end(self, actual_of: ActualOf) -> bool:
        """End it, asking for each charge what it really cost."""
        return end_together([self], actual_of)

    def close(self) -> bool:
        """Mark it ended, and answer whether it was open. For whoever collects settlements."""
        try:
            self._leases.remove(self._open.pop())
        except IndexError:
            return False
        return True

    def settlements(self, actual_of: ActualOf) -> list[Settlement]:
        """What the store must correct to end it."""
        corrected = []
        for verdict in self.decision.verdicts:
            charge = verdict.charge
            actual = actual_of(charge)
            if (actual != charge.cost or charge.quota.unit == CONCURRENCY) and not charge.dry:
                corrected.append(Settlement(charge, self.decision.taken_at_us(charge), actual, self._lease))
        return corrected

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.settle({})
        else:
            self.cancel()


def end_together(reservations: Iterable[Reservation], actual_of: ActualOf) -> bool:
    """End several reservations, those of one store in one step; answers whether any was still open."""
    ended = [reservation for reservation in reservations if reservation.close()]
    by_store: dict[Store, list[Settlement]] = {}
    for reservation in ended:
        by_store.setdefault(reservation._store, []).extend(reservation.settlements(actual_of))  # noqa: SLF001  same file
    for store, settlements in by_store.items():
        if settlements:
            store.settle(settlements)
    return bool(ended)
