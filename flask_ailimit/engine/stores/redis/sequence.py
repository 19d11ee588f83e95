"""A decision over several slots of a cluster: one after the other, and given back if a later one refuses.

Each slot's part is atomic. Between two parts others may come in: a request that is refused in the end has for a moment
taken what another one could have had, so another may be refused too; never is more granted than a limit allows. A
process that dies between two parts leaves what it took to time, and slots to the end of their lease.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from flask_ailimit.engine.charge import Charge, Settlement
from flask_ailimit.engine.decision import Decision, Settled, Verdict
from flask_ailimit.engine.errors import StoreError


class Part(Protocol):
    """What can be done with the charges of one slot."""

    def decide(self, charges: Sequence[Charge], lease: int, *, dry: bool = False) -> Decision:
        """Take them, or with ``dry`` answer what would be."""

    def settle(self, settlements: Sequence[Settlement]) -> Settled:
        """Correct them."""


@dataclass(frozen=True)
class SequencedDecision(Decision):
    """A decision whose parts were made at different times, by different clocks.

    Attributes:
        times: When each subject's part was.
    """

    times: Mapping[bytes, int]

    def taken_at_us(self, charge: Charge) -> int:
        """When the charge was taken, by the clock of its own server."""
        return self.times[charge.subject]


def decide_in_sequence(
    part: Part, charges: Sequence[Charge], groups: Sequence[Sequence[int]], lease: int, *, dry: bool = False
) -> Decision:
    """Decide each group of charges, given by their places. After the first that refuses, the others are only asked.

    Charges that are only tried have no verdict if their server is away, as while a store is away.
    """
    decisions: list[Decision] = []
    taken: list[Decision] = []
    refused = dry
    try:
        for places in groups:
            decision = _decided(part, [charges[i] for i in places], lease, dry=refused, all_needed=dry)
            decisions.append(decision)
            refused = refused or not decision.allowed
            if not refused:
                taken.append(decision)
    except BaseException:  # Also what the app's own time-outs raise in the middle of it.
        _give_back(part, taken, lease)
        raise
    if refused and taken:
        _give_back(part, taken, lease)
        decisions[: len(taken)] = [each.without(v.charge for v in each.taken) for each in taken]
    return _in_the_order_asked(decisions, groups)


def _decided(part: Part, charges: Sequence[Charge], lease: int, *, dry: bool, all_needed: bool) -> Decision:
    """The decision of one group; without verdicts if its server is away, and all of it is only tried."""
    try:
        return part.decide(charges, lease, dry=dry)
    except StoreError:
        if all_needed or not all(charge.shadow for charge in charges):
            raise
        return Decision((), 0)


def _give_back(part: Part, taken: Iterable[Decision], lease: int) -> None:
    for decision in taken:
        charges = [verdict.charge for verdict in decision.taken]
        part.settle([Settlement(charge, decision.at_us, 0, lease) for charge in charges])


def _in_the_order_asked(decisions: Sequence[Decision], groups: Sequence[Sequence[int]]) -> Decision:
    verdicts: dict[int, Verdict] = {}
    times: dict[bytes, int] = {}
    for places, decision in zip(groups, decisions, strict=True):
        for place, verdict in zip(places if decision.verdicts else (), decision.verdicts, strict=True):
            verdicts[place] = verdict
            times[verdict.charge.subject] = decision.at_us
    in_order = tuple(verdicts[place] for place in sorted(verdicts))
    return SequencedDecision(in_order, max(times.values(), default=0), times)
