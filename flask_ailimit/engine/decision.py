"""The answer for one request: allowed or refused, with a verdict for each charge."""

from collections.abc import Collection, Iterable, KeysView
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from .algorithms import Spending
from .charge import Charge
from .clock import MICROSECONDS
from .quota import Quota


class Verdict(NamedTuple):
    """The answer for one charge.

    Attributes:
        charge: What was asked.
        allowed: This charge alone would fit.
        remaining: Units left above the charge's floor, after the charge if the whole decision was allowed; never
            negative.
        reset_after_us: Microseconds until the count is as if never used, without further traffic.
        retry_after_us: 0 if allowed; microseconds until this same charge fits; None if it can never fit.
        share: The part of the charge's quota that decided while the store was away; None if the quota itself did.
        spending: How the budget stands afterwards; None if the count is no budget.
    """

    charge: Charge
    allowed: bool
    remaining: int
    reset_after_us: int
    retry_after_us: int | None
    share: Quota | None = None
    spending: Spending | None = None

    @property
    def quota(self) -> Quota:
        """The quota that decided: the charge's, or a share of it while the store is away."""
        return self.share or self.charge.quota

    @property
    def limit(self) -> int:
        """The quota's limit in units."""
        return self.quota.limit

    @property
    def used(self) -> int:
        """Units taken out of the most that can be had at once, from 0 to the quota's burst.

        In the answer to a charge with a floor, the floor is among them. What was used of credit is not among them,
        because it is no part of the burst.
        """
        burst, known = self.quota.burst, self.spending
        used = burst - min(self.remaining, burst)
        # What remains of a budget may be more than the burst, by the credit beside it.
        return used if known is None else max(used, min(known.spent + known.reserved, burst))

    @property
    def is_near(self) -> bool:
        """Whether the quota's soft percent is used: the count is nearly used up, or is so wholly.

        A charge's floor is not used. It is all that is left only for who is refused because of it.
        """
        quota, floor = self.share or self.charge.quota, self.charge.floor
        if floor and self.allowed:
            # What fits leaves the floor. What is too large to leave it fits if nothing is used.
            return self.remaining + min(floor, max(0, quota.burst - self.charge.cost)) <= quota.soft_left
        return self.remaining <= quota.soft_left

    @property
    def is_spent(self) -> bool:
        """Whether the charge was refused because the budget is spent: it would not fit if nothing were reserved.

        What is larger than the whole budget and all credit is not meant: it never fits, however little is spent. But
        who has neither has spent it. What a charge must leave to others is not there for it, as if it were spent.
        """
        quota, cost, known = self.quota, self.charge.cost, self.spending
        if known is None or self.allowed:
            return False
        cost += min(self.charge.floor, max(0, quota.burst - cost))
        whole = quota.limit + sum(grant.amount for grant in quota.credit)
        unspent = max(0, quota.limit - known.spent) + max(0, known.credit + known.reserved_credit)
        return max(1, cost) > unspent and (cost <= whole or not whole)

    @property
    def reset_after(self) -> float:
        """Seconds until the count is as if never used."""
        return self.reset_after_us / MICROSECONDS

    @property
    def retry_after(self) -> float | None:
        """Seconds until this charge fits: 0.0 if it did, None if it never can."""
        return None if self.retry_after_us is None else self.retry_after_us / MICROSECONDS


class Settled(NamedTuple):
    """What came of settlements.

    Attributes:
        unknown: How many counts were no longer known.
        passed: The counts that have passed their soft percent, and of which nobody was told in this window: each as it
            was after its settlement, whatever floor its charge had. Whoever gets this is the only one who can tell.
        below: The charges of settlements that corrected nothing and found their count below its soft percent, or of
            which a store that is away has not heard yet. Whoever asked has to ask again.
    """

    unknown: int
    passed: tuple[Verdict, ...] = ()
    below: tuple[Charge, ...] = ()


@dataclass(frozen=True)
class Decision:
    """The answer for all charges of one request, taken together or not at all.

    Attributes:
        verdicts: One for each charge, in the order asked.
        at_us: Store time of the decision, microseconds since the epoch.
        allowed: Every charge fits, except those that are only tried (``shadow``).
    """

    verdicts: tuple[Verdict, ...]
    at_us: int
    allowed: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        allowed = True
        for verdict in self.verdicts:
            if not verdict.allowed and not verdict.charge.shadow:
                allowed = False
                break
        object.__setattr__(self, "allowed", allowed)

    @property
    def quotas(self) -> tuple[Quota, ...]:
        """The quota of each verdict."""
        return tuple([verdict.quota for verdict in self.verdicts])

    @property
    def units(self) -> KeysView[str]:
        """The units of the quotas."""
        return self._nearest.keys()

    def taken_at_us(self, charge: Charge) -> int:  # noqa: ARG002  see SequencedDecision
        """When the charge was taken, by the clock of the store that took it."""
        return self.at_us

    @property
    def refused(self) -> tuple[Verdict, ...]:
        """The verdicts that said no; first those that can never fit, then the longest wait first.

        A balance that is spent waits longest: nothing renews it, but a grant may.
        """
        if self.allowed:
            return ()
        refused = (v for v in self.verdicts if not v.allowed and not v.charge.shadow)
        return tuple(sorted(refused, key=_severity, reverse=True))

    @property
    def taken(self) -> tuple[Verdict, ...]:
        """The verdicts of the charges that were taken: none if the decision refused, and none of a dry charge."""
        return tuple([v for v in self.verdicts if v.allowed and not v.charge.dry]) if self.allowed else ()

    @property
    def would_refuse(self) -> tuple[Verdict, ...]:
        """The verdicts of limits that are only tried (``shadow``), and would have refused."""
        return tuple([v for v in self.verdicts if v.charge.shadow and not v.allowed])

    @property
    def possible(self) -> bool:
        """No charge is larger than its whole limit: waiting helps."""
        return all(
            verdict.retry_after_us is not None or verdict.is_spent
            for verdict in self.verdicts
            if not verdict.charge.shadow
        )

    @property
    def binding(self) -> Verdict | None:
        """The verdict that matters most to the client.

        When refused: the one that can never fit, else the longest wait. When allowed: the one with the
        smallest part of its limit left. None without charges. A limit that is only tried is never meant.
        """
        return self.binding_of(None)

    def binding_of(self, units: Collection[str] | None) -> Verdict | None:
        """The verdict that matters most among those of some units, or of all. None if there is none."""
        if not self.allowed:
            for verdict in self.refused:
                if units is None or verdict.quota.unit in units:
                    return verdict
        nearest = self._nearest
        found = [nearest[unit] for unit in (nearest if units is None else units) if unit in nearest]
        return min(found)[-1] if found else None

    @cached_property
    def _nearest(self) -> dict[str, tuple[float, int, Verdict]]:
        """Of each unit, the verdict with the smallest part of its limit left: that part, its place, and it."""
        nearest: dict[str, tuple[float, int, Verdict]] = {}
        for place, verdict in enumerate(self.verdicts):
            quota = verdict.quota
            if verdict.charge.shadow:
                continue
            left = verdict.remaining / (quota.burst or 1)
            if quota.unit not in nearest or left < nearest[quota.unit][0]:
                nearest[quota.unit] = (left, place, verdict)
        return nearest

    @property
    def retry_after_us(self) -> int | None:
        """Microseconds until the whole request fits: 0 if it did, None if it never can."""
        return 0 if self.allowed else self.refused[0].retry_after_us

    @property
    def retry_after(self) -> float | None:
        """Seconds until the whole request fits: 0.0 if it did, None if it never can."""
        return None if self.retry_after_us is None else self.retry_after_us / MICROSECONDS

    def told(self) -> "Decision":
        """This decision without what clients are not told of: ``in_headers=False``, and limits that are only tried."""
        for verdict in self.verdicts:
            if not _is_told(verdict.charge):
                return Decision(tuple(each for each in self.verdicts if _is_told(each.charge)), self.at_us)
        return self

    def joined(self, other: "Decision") -> "Decision":
        """This decision with the verdicts of a later one of the same request, at the later one's time."""
        if not other.verdicts:
            return self
        elapsed = max(0, other.at_us - self.at_us)
        earlier = tuple(v._replace(reset_after_us=max(0, v.reset_after_us - elapsed)) for v in self.verdicts)
        return Decision(earlier + other.verdicts, other.at_us)

    def without(self, charges: Iterable[Charge]) -> "Decision":
        """This decision as it looks when these charges, which it took, have been given back."""
        returned = {id(charge) for charge in charges}
        verdicts = [_given_back(v) if id(v.charge) in returned else v for v in self.verdicts]
        return Decision(tuple(verdicts), self.at_us)


def _given_back(verdict: Verdict) -> Verdict:
    """The verdict as it looks when its charge was given back."""
    cost, known = verdict.charge.cost, verdict.spending
    if known is None:
        return verdict._replace(remaining=min(verdict.remaining + cost, verdict.quota.burst))
    of_window = min(known.reserved, cost)
    back = known._replace(
        reserved=known.reserved - of_window,
        credit=known.credit + cost - of_window,
        reserved_credit=max(0, known.reserved_credit - (cost - of_window)),
    )
    return verdict._replace(remaining=verdict.remaining + cost, spending=back)


def _is_told(charge: Charge) -> bool:
    return charge.quota.in_headers and not charge.shadow


def _severity(verdict: Verdict) -> tuple[bool, bool, int]:
    never = verdict.retry_after_us is None
    return never and not verdict.is_spent, never, verdict.retry_after_us or 0
