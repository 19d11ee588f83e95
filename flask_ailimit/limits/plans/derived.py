"""A plan with other values, as it holds for a payer for whom an operator has changed some."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from hashlib import blake2b
from types import MappingProxyType

from flask_ailimit.engine.quota import CONCURRENCY, parts_of
from flask_ailimit.unlimited import UNLIMITED, Unlimited

from .change import WhichLimit
from .plan import TRY, Plan, PlanLimit, Plans, Source
from .trail import Values

_Wanted = dict[WhichLimit, dict[bool, tuple[str | int, Source]]]
"""The values of limits, and those that are tried beside them."""


def derived(plan: Plan, values: Values) -> Plan:
    """The plan with these values. Those of limits that it doesn't have change nothing. What is tried stands beside."""
    wanted: _Wanted = {}
    for limit, value, source in values:
        wanted.setdefault(limit, {})[source.kind == TRY] = value, source
    limits = tuple(_replaced(plan.limits, None, wanted))
    rules = plan.models and tuple(
        replace(rule, limits=tuple(_replaced(rule.limits, rule.pattern, wanted))) for rule in plan.models
    )
    if (limits, rules) == (plan.limits, plan.models):
        return plan
    return keyed(replace(plan, limits=limits, models=rules))


def keyed(plan: Plan) -> Plan:
    """The plan with a key that is made of all that it says, and not of its name alone."""
    # No name has this sign: so it is no other plan's key.
    said = (plan.limits, plan.models, plan.has_others, plan.service_class, plan.floor)
    digest = blake2b(repr(said).encode(), digest_size=16).hexdigest()
    return replace(plan, key=f"{plan.name}#{digest}")


def all_keyed(plans: Plans) -> Plans:
    """The same plans, each :func:`keyed`: for those that come in place of others with the same names."""
    named = {name: keyed(plan) for name, plan in plans.plans.items()}
    return Plans(
        plans.source,
        MappingProxyType(named),
        None if plans.service is None else keyed(plans.service),
        None if plans.default is None else named[plans.default.name],
        MappingProxyType({name: keyed(plan) for name, plan in plans.classes.items()}),
    )


def limits_in(plan: Plan) -> dict[WhichLimit, PlanLimit]:
    """Each single limit of a plan that has a number: a text with two of them has two."""
    found: dict[WhichLimit, PlanLimit] = {}
    for model, limits in [(None, plan.limits), *((rule.pattern, rule.limits) for rule in plan.models or ())]:
        for limit in limits:
            for part, period in () if limit.beside else windows_of(limit):
                which = WhichLimit(limit.unit, period, model)
                if which not in found or number_of(part.value) < number_of(found[which].value):
                    found[which] = part  # Of several limits of one period the lowest holds.
    return found


def number_of(value: object) -> int:
    """How many a value allows."""
    return value if isinstance(value, int) else parts_of(str(value))[0].limit


def _replaced(limits: Iterable[PlanLimit], model: str | None, wanted: _Wanted) -> Iterator[PlanLimit]:
    for limit in limits:
        if limit.beside:
            yield limit
            continue
        parts = windows_of(limit)
        if not any(WhichLimit(limit.unit, period, model) in wanted for _, period in parts):
            yield limit
            continue
        for part, period in parts:
            values = wanted.get(WhichLimit(limit.unit, period, model), {})
            yield with_value(part, *values[False]) if False in values else part
            if True in values:
                yield replace(with_value(part, *values[True]), shadow=True, beside=True)


def with_value(limit: PlanLimit, value: str | int | Unlimited, source: Source) -> PlanLimit:
    """The limit with another value. A burst changes in proportion; in another window it is the limit."""
    other = replace(limit, value=value, source=source)
    if limit.burst is None or UNLIMITED in (value, limit.value):
        return other
    burst = number_of(value)
    if [period for _, period in windows_of(other)] == [period for _, period in windows_of(limit)]:
        # Else a limit that was lowered to 10 would still give 600 at once.
        burst = limit.burst * burst // max(1, number_of(limit.value))
    return replace(other, burst=max(limit.cost, burst, 1))


def windows_of(limit: PlanLimit) -> list[tuple[PlanLimit, int]]:
    """The single limits of one, each with its window in seconds."""
    if limit.value is UNLIMITED:
        return []
    if limit.unit == CONCURRENCY or not isinstance(limit.value, str):
        return [(limit, 0)]
    return [
        (replace(limit, value=text, name=name), period) for text, _, period, name in parts_of(limit.value, limit.name)
    ]
