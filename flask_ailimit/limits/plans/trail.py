"""What is in force: nothing but the trail of changes says so, from its first entry to its last.

An undone change is as if it had never been made. An ``undo`` can't be undone: whoever wants the change back makes it
again. ``forget`` takes its entries out, in the store as here.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from flask_ailimit.engine.grant import Grant

from .change import BOOST, CREDIT, FORGET, LOWER, MOVE, RAISE, RESUME, SUSPEND, UNDO, Change, PayerName, WhichLimit
from .credit import NO_GRANTS, Grants, by_unit, still_granted
from .plan import TRY, Source

Values = tuple[tuple[WhichLimit, str | int, Source], ...]
"""The values that replace those of a plan."""


@dataclass(frozen=True, slots=True)
class InForce:
    """What the trail says of one payer.

    Attributes:
        suspended: What it is told if it is suspended, else None.
        plan: The plan to which it was moved; None for the one that the app names.
        limits: The changes of its limits, in order: of two for one limit the later holds.
        boosts: Those that have an end, in order.
        tried: What is tried beside its limits, in order.
        grants: Its credit. Each grant has the number of its entry, under which a store keeps how much of it was used.
    """

    suspended: str | None = None
    plan: str | None = None
    limits: tuple[Change, ...] = ()
    boosts: tuple[Change, ...] = ()
    tried: tuple[Change, ...] = ()
    grants: Grants = field(default_factory=dict)

    def values(self, plan: str, now_s: float, *, with_boosts: bool = True) -> Values:
        """The values that hold now under a plan."""
        found: dict[tuple[WhichLimit, bool], tuple[str | int, Source]] = {}
        for change in (*self.limits, *(self.boosts if with_boosts else ()), *self.tried):
            if change.plan in (None, plan) and (change.until is None or change.until > now_s):
                assert change.limit  # noqa: S101  a change of a limit has one
                assert change.value is not None  # noqa: S101  and so a value
                kind = change.kind if change.kind in (BOOST, TRY) else "change"
                found[change.limit, kind == TRY] = change.value, Source(kind, change.until)
        return tuple((limit, *value) for (limit, _), value in found.items())

    def credit(self, now_s: float) -> Grants:
        """Its grants without those that have ended; also those that begin later, because the store's clock counts."""
        return still_granted(self.grants, now_s) if self.grants else NO_GRANTS

    def next_end(self, now_s: float) -> int | None:
        """When the next boost ends; None if none is left."""
        return min((each.until for each in self.boosts if each.until and each.until > now_s), default=None)


_NOTHING = InForce()


def in_force(changes: Iterable[Change], undone: Iterable[int] = ()) -> InForce | None:
    """What the changes of one payer, in their order, come to; None if that is nothing.

    Args:
        changes: All of the changes.
        undone: The numbers of those that were undone.
    """
    suspended = plan = None
    limits: dict[object, Change] = {}
    boosts: dict[object, Change] = {}
    tried: dict[object, Change] = {}
    granted: list[tuple[str, Grant]] = []
    for change in changes:
        if change.number in undone:
            continue
        if change.kind in (RAISE, LOWER):
            _put(limits, (change.limit, change.plan), change)
        elif change.kind == BOOST:
            _put(boosts, (change.limit, change.plan, change.until), change)
        elif change.kind == TRY:
            _put(tried, (change.limit, change.plan), change)
        elif change.kind == MOVE:
            plan = change.plan
        elif change.kind == CREDIT and change.credit is not None:
            unit, *grant = change.credit
            granted.append((unit, Grant(change.number, *grant)))
        elif change.kind in (SUSPEND, RESUME):
            suspended = change.words if change.kind == SUSPEND else None
    now, for_a_time, beside = (tuple(each.values()) for each in (limits, boosts, tried))
    found = InForce(suspended, plan, now, for_a_time, beside, by_unit(granted))
    return None if found == _NOTHING else found


def _put(changes: dict[object, Change], key: object, change: Change) -> None:
    changes.pop(key, None)  # It is the last from now on.
    changes[key] = change


@dataclass
class Trail:
    """The entries so far, and what they come to. It is read by requests while an entry is added.

    Attributes:
        last: The number of the last entry; 0 without any.
        last_text: Its text.
        entries: The entries that are understood, by their numbers.
        undone: The numbers of undone changes, each with that of the entry that undid it.
        in_force: What holds for each payer for whom something does.
    """

    last: int = 0
    last_text: str = ""
    entries: dict[int, Change] = field(default_factory=dict)
    undone: dict[int, int] = field(default_factory=dict)
    in_force: dict[PayerName, InForce] = field(default_factory=dict)
    _of_payer: dict[PayerName, list[int]] = field(default_factory=dict)

    def add(self, number: int, text: str, change: Change | None) -> None:
        """Add the next entry; None for one that only a newer version of this library understands."""
        self.last, self.last_text = number, text
        if change is None:
            return
        self.entries[number] = change
        if change.payer is not None:
            self._of_payer.setdefault(change.payer, []).append(number)
            self._see_to(change.payer)
        elif change.kind == UNDO and change.undone is not None and self.can_undo(change.undone):
            self.undone[change.undone] = number
            self._see_to(self.entries[change.undone].payer)
        elif change.kind == FORGET:
            self._forget(change.forgotten)

    def can_undo(self, number: int) -> bool:
        """Whether there is such a change, and nobody has undone it."""
        change = self.entries.get(number)
        return change is not None and change.payer is not None and number not in self.undone

    def of_payer(self, payer: PayerName) -> list[int]:
        """The numbers of the entries about a payer, and of those that undo one of them."""
        own = self._of_payer.get(payer, [])
        return sorted({*own, *(self.undone[number] for number in own if number in self.undone)})

    def _forget(self, numbers: Iterable[int]) -> None:
        gone = {number: self.entries.pop(number) for number in numbers if number in self.entries}
        for number in gone:
            self.undone.pop(number, None)
        for payer in {change.payer for change in gone.values() if change.payer}:
            left = [number for number in self._of_payer.pop(payer) if number not in gone]
            if left:
                self._of_payer[payer] = left
            self._see_to(payer)

    def _see_to(self, payer: PayerName | None) -> None:
        if payer is None:
            return
        found = in_force((self.entries[number] for number in self._of_payer.get(payer, ())), self.undone)
        if found is None:
            self.in_force.pop(payer, None)
        else:
            self.in_force[payer] = found
