"""The limits of one phase of a request, with everything that is the same in each request.

A request goes through phases: before the view, in the view's decorator, and in each decorated function that the view
calls. Each phase is kept in the phase before it, so that the same sequence of phases is resolved only once. The
subject, the cost and the exemption may differ between requests, and are found out in each request.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from flask_limiter._limits import RuntimeLimit

from flask_ailimit.engine import Charge, Quota
from flask_ailimit.engine.grant import Grant
from flask_ailimit.engine.quota import BUDGET, CONCURRENCY, REQUESTS, is_of_tokens

from .count_names import CountedLimit, unmarked
from .plans.plan import ALL_PAYERS, NO_PAYERS
from .plans.tried import holds_for
from .unit_limit import with_credit

__all__ = ["BlueprintLimit", "LimitCharge", "PayerLimit", "Phase", "ResolvedLimit", "RuntimeLimit"]

_MOST_SUBJECTS = 128


class BlueprintLimit(CountedLimit):
    """A limit of the view's blueprint."""


@dataclass(eq=True, unsafe_hash=True)
class PayerLimit(CountedLimit):
    """A limit of the plan of one of the request's payers. A plan has at most one for each of its counts.

    Attributes:
        takes_credit: It is the budget beside which the payer may use its credit.
    """

    takes_credit: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.mark_of = unmarked


@dataclass(slots=True, eq=False)
class ResolvedLimit:
    """A limit, with everything of its charges that is the same in each request.

    Attributes:
        limit: The limit as Flask-Limiter resolved it.
        quota: What it allows.
        on_store_error: Its failure policy.
        only_checked: It is checked but not charged: a meta limit, which is charged when another limit refuses.
        scope: Separates its count from others, with its mark; None if a callable returns the scope.
        cost: The cost of each request; None if it differs between requests.
        enforced_percent: The part of the subjects for whom it holds. On the others it is only tried.
        charged_once: The request pays once, however often it meets the count. This is so for tokens, for calls in
            flight, for limits of plans, and for a blueprint's limits on requests. Any other limit on requests counts
            each call of the function or block that it limits, as Flask-Limiter does.
        floor: Units that a request leaves to others.
        takes_credit: It is the budget beside which its payer may use its credit.
    """

    limit: RuntimeLimit
    quota: Quota
    on_store_error: str
    only_checked: bool
    scope: str | None
    cost: int | None
    charged_once: bool
    enforced_percent: int = ALL_PAYERS
    floor: int = 0
    takes_credit: bool = False

    def charge(
        self,
        subject: bytes,
        scope: str,
        cost: int,
        credit: tuple[Grant, ...] = (),
        credit_windows: tuple[tuple[int, str], ...] = (),
    ) -> Charge:
        """The charge of this limit to a subject with this credit, which budgets in other windows may share."""
        quota = self.quota
        shadow = not holds_for(subject, quota.label, self.enforced_percent)
        if credit:
            quota = with_credit(quota, credit, credit_windows, is_tried=shadow)
        return Charge(subject, quota, cost, scope, self.only_checked, self.on_store_error, self.floor, shadow)


class LimitCharge(NamedTuple):
    """A limit that applies to a request, and its charge."""

    resolved: ResolvedLimit
    charge: Charge

    @property
    def limit(self) -> RuntimeLimit:
        """The limit as Flask-Limiter resolved it."""
        return self.resolved.limit


@dataclass(slots=True, eq=False)
class Phase:
    """The limits in one phase of all requests that went through the same phases before.

    Attributes:
        metas: Limits on refusals, which are checked first.
        limits: The limits, in the order of Flask-Limiter: the shortest window first.
        zero_limits: Limits of 0.
        defaults_decided: The default limits that are decided so far. A request decides each of them once.
        counts_tokens: Whether a limit is on tokens, or on the money that they cost.
        counts_units: Whether a limit is on tokens or on a unit of the app's own.
        needs_settling: Whether the end of the request may give back what a limit took.
        has_soft_percent: Whether of a limit is told that it is nearly used up.
        charged_once: Whether a limit is charged once in a request, which may have met its count in an earlier phase.
        tries: Whether a limit holds for a part of the subjects only.
        only_tries: Whether each limit does.
        may_collide: Whether two of the limits may have the same count.
        has_deduct_when: Whether a limit is charged only if the response says so (Flask-Limiter's ``deduct_when``).
        sole_key_func: The one key function of all the limits, if scope, cost and exemption are all fixed; else None.
        charges_by_subject: The charges of up to 128 subjects, to be reused. Needs a sole key function.
        next_phases: The phases that follow, by the key of everything that they depend on.
        is_by_plan: It is no phase itself, but stands for one for each selection of plans: its next phases.
    """

    metas: tuple[ResolvedLimit, ...] = ()
    limits: tuple[ResolvedLimit, ...] = ()
    zero_limits: tuple[RuntimeLimit, ...] = ()
    defaults_decided: tuple[RuntimeLimit, ...] = ()
    counts_tokens: bool = field(init=False)
    counts_units: bool = field(init=False)
    needs_settling: bool = field(init=False)
    has_soft_percent: bool = field(init=False)
    charged_once: bool = field(init=False)
    tries: bool = field(init=False)
    only_tries: bool = field(init=False)
    may_collide: bool = field(init=False)
    has_deduct_when: bool = field(init=False)
    sole_key_func: Callable[[], str] | None = field(init=False)
    charges_by_subject: dict[bytes, tuple[list[LimitCharge], list[Charge]]] = field(default_factory=dict)
    next_phases: dict[Hashable, "Phase"] = field(default_factory=dict)
    is_by_plan: bool = False

    def __post_init__(self) -> None:
        limits = self.limits
        self.counts_tokens = any(is_of_tokens(each.quota.unit) for each in limits)
        self.has_deduct_when = any(each.limit.deduct_when for each in limits)
        self.counts_units = any(each.quota.unit not in (REQUESTS, CONCURRENCY) for each in limits)
        self.needs_settling = self.has_deduct_when or any(_needs_settling(each.quota) for each in limits)
        self.has_soft_percent = any(each.quota.soft_percent for each in limits)
        self.charged_once = any(each.charged_once for each in limits)
        self.tries = any(each.enforced_percent < ALL_PAYERS for each in limits)
        self.only_tries = self.tries and all(each.enforced_percent < ALL_PAYERS for each in limits)
        is_known = all(each.scope is not None for each in limits)
        self.may_collide = len({_count_of(each, is_known=is_known) for each in limits}) < len(limits)
        self.sole_key_func = None if self.may_collide else _sole_key_func(limits)

    def charges_of(self, subject: bytes) -> tuple[list[LimitCharge], list[Charge]]:
        """The charges of a subject, in a phase that has a sole key function. They are kept for later requests."""
        charges = self.charges_by_subject.get(subject)
        if charges is None:
            if len(self.charges_by_subject) >= _MOST_SUBJECTS:
                self.charges_by_subject.clear()
            limits = [LimitCharge(each, each.charge(subject, each.scope or "", each.cost or 0)) for each in self.limits]
            charges = self.charges_by_subject[subject] = (limits, [each.charge for each in limits])
        return charges


def _needs_settling(quota: Quota) -> bool:
    """Whether the end of the request tells the store something: what it cost, or that it is not reserved any more."""
    return quota.unit != REQUESTS or quota.algorithm == BUDGET


def _count_of(each: ResolvedLimit, *, is_known: bool) -> Hashable:
    """What two limits of one count have in common, and what makes Flask-Limiter charge it for each of them."""
    quota, scope = each.quota, each.scope if is_known else None
    return quota.unit, quota.algorithm, quota.every, quota.period, scope, each.limit.deduct_when


def _sole_key_func(limits: Sequence[ResolvedLimit]) -> Callable[[], str] | None:
    key_funcs = {each.limit.key_func for each in limits}
    asks_more = any(each.scope is None or each.cost is None or each.limit.exempt_when for each in limits)
    has_budget = any(
        each.quota.algorithm == BUDGET for each in limits
    )  # Its charges have the payer's credit, which changes.
    all_tried = all(each.enforced_percent == NO_PAYERS for each in limits)  # Then it may fail, see charges_for.
    return None if asks_more or has_budget or all_tried or len(key_funcs) != 1 else key_funcs.pop()
