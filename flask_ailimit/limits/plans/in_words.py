"""Plans in words, as the command prints them."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from flask_ailimit.engine.quota import CONCURRENCY
from flask_ailimit.unlimited import UNLIMITED

from .plan import ModelRule, Plan, PlanLimit, Plans


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
    if plans.default is None:
        yield "There is no default_plan: a payer without a plan gets a 503."


def _plan(plan: Plan) -> Iterator[str]:
    if plan.service_class is not None:
        yield f"    class: {plan.service_class}"
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
        yield ", ".join([f"{limit.unit.replace('_', ' ')}: {_value(limit)}", *_options(limit)])


def _value(limit: PlanLimit) -> str:
    if limit.value is UNLIMITED:
        return "unlimited"
    return f"{limit.value} in flight" if limit.unit == CONCURRENCY else str(limit.value)


def _options(limit: PlanLimit) -> Iterator[str]:
    if limit.burst is not None:
        yield f"up to {limit.burst} at once"
    if limit.algorithm is not None:
        yield limit.algorithm
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


def _indented(lines: Iterable[str], spaces: int) -> Iterator[str]:
    for line in lines:
        yield " " * spaces + line
