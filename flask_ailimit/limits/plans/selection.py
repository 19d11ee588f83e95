"""Which limits of plans hold for one request: its payers with their plans, and what these say of its model."""

from typing import NamedTuple

from .credit import NO_GRANTS, Grants
from .plan import ModelRule, Plan


class PlannedPayer(NamedTuple):
    """A payer of a request, and its plan.

    Attributes:
        role: Its role.
        id: Its id within the role.
        subject: The hash of both.
        plan: Its plan.
        label: Its name in events; None without one.
        is_default: Whether it has this plan because it has none of its own.
        credit: What it was granted beside its plan's budgets.
    """

    role: str
    id: str
    subject: bytes
    plan: Plan
    label: str | None
    is_default: bool = False
    credit: Grants = NO_GRANTS


class Selection(NamedTuple):
    """The payers of a request with the rules of their plans for its model.

    Attributes:
        payers: The payers; the first is the caller itself, and the last everybody together, if they have limits.
        rules: For each payer the rule of its plan for the request's model, None if no rule matches; empty if none of
            the plans has rules for models.
        is_allowed: Whether each of the plans has the model.
        names_model: Whether the request names a model, also one that nobody can tell.
    """

    payers: tuple[PlannedPayer, ...]
    rules: tuple[ModelRule | None, ...] = ()
    is_allowed: bool = True
    names_model: bool = True

    @property
    def key(self) -> tuple[tuple[str, ...], tuple[str | None, ...]]:
        """Everything that the limits depend on: roles, plans and patterns, all of them the app's own words."""
        plans = [word for payer in self.payers for word in (payer.role, payer.plan.key)]
        patterns = [None if rule is None else rule.pattern for rule in self.rules] if self.rules else ()
        return tuple(plans), tuple(patterns)

    @property
    def pattern(self) -> str | None:
        """The pattern that the model matches in the plan of the first payer that has rules for models."""
        return next((rule.pattern for rule in self.rules if rule is not None), None)
