"""A plan with other values, as it holds for a payer for whom an operator has changed some."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from hashlib import blake2b
from types import MappingProxyType

from flask_ailimit.engine.limit_text import parts_of
from flask_ailimit.engine.quota import CONCURRENCY
from flask_ailimit.unlimited import UNLIMITED, Unlimited

from .change import WhichLimit
from .plan import TRY, Plan, PlanLimit, Plans, Source
from .trail import Values

Window = tuple[int, str]
"""The window of a limit: its period in seconds, and when it ends, as of a quota."""

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
    return plans._replace(
        plans=MappingProxyType(named),
        service=None if plans.service is None else keyed(plans.service),
        default=None if plans.default is None else named[plans.default.name],
        classes=MappingProxyType({name: keyed(plan) for name, plan in plans.classes.items()}),
    )


def limits_in(plan: Plan) -> dict[WhichLimit, PlanLimit]:
    """Each single limit of a plan that has a number: a text with two of them has two."""
    found: dict[WhichLimit, PlanLimit] = {}
    for model, limits in [(None, plan.limits), *((rule.pattern, rule.limits) for rule in plan.models or ())]:
        for limit in limits:
            for part, (period, every) in () if limit.beside else windows_of(limit):
                which = WhichLimit(limit.unit, period, model, every)
                if which not in found or number_of(part.value, part.unit) < number_of(found[which].value, part.unit):
                    found[which] = part  # Of several limits of one window the lowest holds.
    return found


def number_of(value: object, unit: str) -> int:
    """How many of a unit a value allows."""
    return value if isinstance(value, int) else parts_of(str(value), unit=unit)[0].limit


def _replaced(limits: Iterable[PlanLimit], model: str | None, wanted: _Wanted) -> Iterator[PlanLimit]:
    for limit in limits:
        if limit.beside:
            yield limit
            continue
        parts = windows_of(limit)
        if not any(WhichLimit(limit.unit, period, model, every) in wanted for _, (period, every) in parts):
            yield limit
            continue
        for part, (period, every) in parts:
            values = wanted.get(WhichLimit(limit.unit, period, model, every), {})
            yield with_value(part, *values[False]) if False in values else part
            if True in values:
                yield replace(with_value(part, *values[True]), shadow=True, beside=True)


def with_value(limit: PlanLimit, value: str | int | Unlimited, source: Source) -> PlanLimit:
    """The limit with another value. A burst changes in proportion; in another window it is the limit."""
    other = replace(limit, value=value, source=source)
    if limit.burst is None or UNLIMITED in (value, limit.value):
        return other
    burst = number_of(value, limit.unit)
    if [window for _, window in windows_of(other)] == [window for _, window in windows_of(limit)]:
        # Else a limit that was lowered to 10 would still give 600 at once.
        burst = limit.burst * burst // max(1, number_of(limit.value, limit.unit))
    return replace(other, burst=max(limit.cost, burst, 1))


def windows_of(limit: PlanLimit) -> list[tuple[PlanLimit, Window]]:
    """The single limits of one, each with its window."""
    if limit.value is UNLIMITED:
        return []
    if limit.unit == CONCURRENCY or not isinstance(limit.value, str):
        return [(limit, (0, ""))]
    return [
        (replace(limit, value=part.text, name=part.label), (part.period, part.every))
        for part in parts_of(limit.value, limit.name, limit.unit)
    ]
