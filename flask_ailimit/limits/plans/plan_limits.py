"""Makes limits of what plans say, and gives them to the payer of a role."""

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from types import MappingProxyType
from typing import Any

from flask_ailimit.engine.quota import CONCURRENCY, SESSION
from flask_ailimit.limits.count_names import marked
from flask_ailimit.limits.unit_limit import UnitLimit

from .caller import USER
from .credit import is_budget
from .payer_key import payer_key
from .plan import ALL_PAYERS, NO_PAYERS, ModelRule, Plan, PlanLimit, Plans

_SCOPE = "plan"

LimitsOfPlans = Mapping[tuple[Plan, ModelRule | None], Sequence[UnitLimit]]
"""The limits of each plan over all models, and those of each of its rules for models."""


def limits_of_plans(limiter: Any, plans: Plans, algorithm_of_requests: str) -> LimitsOfPlans:
    """The limits of all plans, each on all routes together.

    The plan's name is no part of a count's name, so that a payer's usage can go on under another plan.

    Args:
        limiter: The limiter, to which the limits belong.
        plans: The plans.
        algorithm_of_requests: The algorithm of the app's limits on requests.
    """
    every = [*plans.plans.values(), *([plans.service] if plans.service else []), *plans.classes.values()]
    found: dict[tuple[Plan, ModelRule | None], Sequence[UnitLimit]] = {}
    for plan in every:
        found[plan, None] = [_made(limiter, each, _SCOPE, algorithm_of_requests, plan.floor) for each in plan.limits]
        for rule in plan.models or ():
            scope = f"{_SCOPE}/models/{rule.pattern}"
            found[plan, rule] = [_made(limiter, each, scope, algorithm_of_requests, plan.floor) for each in rule.limits]
    return found


def windows_of_budgets(
    limits: LimitsOfPlans, known: Mapping[str, tuple[tuple[int, str], ...]] = MappingProxyType({})
) -> Mapping[str, tuple[tuple[int, str], ...]]:
    """The windows of all budgets over all models that are of no calendar, as ``(period, every)`` by their units.

    Args:
        limits: The limits of the plans.
        known: Those of plans before.
    """
    found = {unit: dict.fromkeys(windows) for unit, windows in known.items()}
    for (_, rule), some in limits.items():
        for quota in [quota for limit in some if rule is None for quota in limit.static_quotas()]:
            if is_budget(quota) and quota.every in ("", SESSION):
                found.setdefault(quota.unit, {})[quota.period, quota.every] = None
    return {unit: tuple(sorted(windows)) for unit, windows in found.items()}


def limits_for_role(limits: Sequence[UnitLimit], role: str, *, is_told: bool) -> Iterator[UnitLimit]:
    """The same limits for the payer of a role. ``is_told`` is whether clients are told of the limits of this role."""
    for limit in limits:
        own = copy(limit)
        own.key_function = payer_key(role)
        own.in_headers = limit.in_headers and is_told
        yield own


def _made(limiter: Any, limit: PlanLimit, scope: str, algorithm_of_requests: str, floor: int) -> UnitLimit:
    return UnitLimit(
        limit_provider=limit.value,  # type: ignore[arg-type]  # a number and UNLIMITED are ours
        limiter=limiter,
        key_function=payer_key(USER),
        scope=scope + marked(limit.source.kind) if limit.beside else scope,
        shared=True,
        unit=limit.unit,
        algorithm=CONCURRENCY if limit.unit == CONCURRENCY else limit.algorithm,
        usual_algorithm=limit.usual_algorithm(algorithm_of_requests),
        burst=limit.burst,
        lease=limit.lease,
        cost=limit.cost,
        overrides=False,
        label=limit.name,
        in_headers=limit.in_headers,
        enforced_percent=NO_PAYERS if limit.shadow else ALL_PAYERS,
        soft_percent=limit.soft_percent,
        source=limit.source,
        floor=floor,
        calendar=limit.calendar,
        weights=limit.weights,
        unknown_price=limit.unknown_price,
    )
