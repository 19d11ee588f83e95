"""Plans in words, as the command prints them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

from flask_ailimit.engine.calendars import EVERY
from flask_ailimit.engine.quota import CONCURRENCY, is_money
from flask_ailimit.money.unknown import FREE, PRICE_AS
from flask_ailimit.unlimited import UNLIMITED
from flask_ailimit.upstream.settings import TIMED, UpstreamSettings

from .derived import windows_of
from .plan import BUDGET, ModelRule, Plan, PlanLimit, Plans
from .said import listed


def plans_in_words(plans: Plans) -> Iterator[str]:
    """The lines that say what each plan allows."""
    for plan in plans.plans.values():
        yield f"{plan.name}  (the default plan)" if plan is plans.default else plan.name
        yield from _plan(plan)
    if plans.service is not None:
        yield "everybody together"
        yield from _plan(plans.service)
        for name, plan in plans.classes.items():
            yield f"    class {name}"
            yield f"        leaves {plan.floor} % of each limit to others" if plan.floor else "        may take all"
    if plans.prices is not None:
        names = [price.name for price in plans.prices.own]
        yield f"prices of {listed([*names, *(['those of genai-prices'] if plans.prices.has_genai else [])])}"
    for settings in plans.upstreams.values():
        yield from _upstream(settings)
    if plans.default is None:
        yield "There is no default_plan: a payer without a plan gets a 503."


def _upstream(settings: UpstreamSettings) -> Iterator[str]:
    yield f"upstream {settings.name}"
    for unit in TIMED:
        given = getattr(settings, unit)
        if isinstance(given, Mapping):
            burst = f", up to {given['burst']} at once" if "burst" in given else ""
            yield f"    {unit.replace('_', ' ')}: {given['limit']}{burst}"
        elif given is not None:
            yield f"    {unit.replace('_', ' ')}: {given}"
    if settings.concurrency is not None:
        yield f"    concurrency: {settings.concurrency}"
    if settings.fallback:
        yield f"    fallback: {', '.join(settings.fallback)}"


def _plan(plan: Plan) -> Iterator[str]:
    if plan.service_class is not None:
        yield f"    class: {plan.service_class}"
    every = [*plan.limits, *(limit for rule in plan.models or () for limit in rule.limits)]
    calendar = next((limit.calendar for limit in every if _has_calendar(limit)), None)
    if calendar is not None:
        yield f"    {calendar}"
    yield from _indented(_limits(plan.limits), 4)
    for rule in plan.models or ():
        yield f"    model {rule.pattern}"
        yield from _indented(_rule(rule), 8)
    if not plan.has_others:
        yield "    no other model"


def _rule(rule: ModelRule) -> Iterator[str]:
    if not rule.is_allowed:
        yield "not allowed"
    elif rule.limits:
        yield from _limits(rule.limits)
    else:
        yield "allowed"


def _limits(limits: Iterable[PlanLimit]) -> Iterator[str]:
    for limit in limits:
        unit = BUDGET if is_money(limit.unit) else limit.unit.replace("_", " ")
        yield ", ".join([f"{unit}: {_value(limit)}", *_options(limit)])


def _has_calendar(limit: PlanLimit) -> bool:
    return any(every in EVERY for _, (_, every) in windows_of(limit))


def _value(limit: PlanLimit) -> str:
    if limit.value is UNLIMITED:
        return "unlimited"
    return f"{limit.value} in flight" if limit.unit == CONCURRENCY else str(limit.value)


def _options(limit: PlanLimit) -> Iterator[str]:
    if limit.burst is not None:
        yield f"up to {limit.burst} at once"
    if limit.algorithm is not None:
        yield limit.algorithm
    yield from _worth(limit)
    if limit.cost != 1:
        yield f"{limit.cost} a request"
    if limit.name:
        yield f"named {limit.name!r}"
    if not limit.in_headers:
        yield "in no header"
    if limit.soft_percent:
        yield f"soft percent {limit.soft_percent}"
    if limit.candidate is not None:
        candidate = _value(replace(limit, value=limit.candidate))
        held = f", which holds for {limit.percent} % of its payers" if limit.percent else ""
        yield f"tries {candidate}{held}"
    elif limit.tries:
        yield f"enforced for {limit.percent} % of its payers" if limit.percent else "only tried"


def _worth(limit: PlanLimit) -> Iterator[str]:
    """What tokens count for, and what models without a price cost."""
    if limit.weights is not None:
        yield from (f"{kind.replace('_', ' ')} count {_factor(factor)}" for kind, factor in limit.weights.factors)
    if limit.unknown_price.kind == FREE:
        yield "a model without a price is free"
    if limit.unknown_price.kind == PRICE_AS:
        yield f"a model without a price costs what {limit.unknown_price.model} costs"


def _factor(factor: Fraction) -> str:
    return f"{Decimal(factor.numerator) / factor.denominator:f}"


def _indented(lines: Iterable[str], spaces: int) -> Iterator[str]:
    for line in lines:
        yield " " * spaces + line
