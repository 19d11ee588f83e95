"""Finds out who pays for the current request, by which plans, and what these say of its model."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from werkzeug.exceptions import HTTPException

from flask_ailimit.current import current_request
from flask_ailimit.engine.few_lines import once_a_minute
from flask_ailimit.http.errors import BodyTooLarge, LimiterUnavailable, Suspended
from flask_ailimit.limits.keys import remote_address
from flask_ailimit.limits.plans.caller import ADDRESS, SERVICE, USER, Caller, Payer
from flask_ailimit.limits.plans.change import EVERYBODY
from flask_ailimit.limits.plans.credit import NO_GRANTS, Grants
from flask_ailimit.limits.plans.plan import ModelRule, Plan, Plans
from flask_ailimit.limits.plans.selection import PlannedPayer, Selection
from flask_ailimit.limits.plans.trail import InForce
from flask_ailimit.limits.plans.tried import as_tried
from flask_ailimit.signals import request_refused, tell

from .asking import ask
from .ledger import Ledger
from .models import model_named

_PlanIfAny = TypeVar("_PlanIfAny", Plan, Plan | None)


def payers_of(ledger: Ledger) -> tuple[PlannedPayer, ...]:
    """The payers of the current request with their plans; last everybody together, if they have limits.

    The app's function is asked once a request, also if it fails.

    Raises:
        HTTPException: The app's function turns the client away.
        LimiterUnavailable: It failed, or a payer has no plan and there is no default plan.
    """
    if not ledger.payers:
        if ledger.unidentified is not None:
            raise ledger.unidentified
        try:
            ledger.payers = tuple(_planned_payers(ledger))
        except HTTPException as error:
            ledger.unidentified = error
            raise
    return ledger.payers


def payer_in(ledger: Ledger, role: str) -> PlannedPayer:
    """The payer of a role that the request has."""
    for payer in payers_of(ledger):
        if payer.role == role:
            return payer
    raise LookupError(f"The request has no payer of the role {role!r}.")


def plans_of(ledger: Ledger) -> Plans:
    """The app's plans.

    Raises:
        LimiterUnavailable: It has none, and so nobody knows what a request that is limited by plan may use.
    """
    plans = ledger.app_state.plans
    if plans is None:
        ledger.flask_limiter.logger.error(
            "A request was refused: its route is limited by plan, and this app has no plans. Set AILIMIT_PLANS."
        )
        raise LimiterUnavailable(**ledger.answer_facts)
    return plans


def selection_of(ledger: Ledger) -> Selection:
    """The payers of the current request, with the rules of their plans for its model.

    The body is read only if one of the plans has rules for models, and the app has no ``model_of``.

    Raises:
        HTTPException: As :func:`payers_of`; or the body is too large; or ``model_of`` turns the client away or failed.
    """
    if ledger.selection is None:
        payers = payers_of(ledger)
        ledger.selection = _for_model(ledger, payers) if _have_rules(payers) else Selection(payers)
    return ledger.selection


def must_read_model(ledger: Ledger) -> bool:
    """Whether the request's body is going to be read for its model. Raises the errors of :func:`payers_of`."""
    is_known = ledger.selection is not None or ledger.app_state.settings.model_of is not None or ledger.estimates
    return not is_known and _have_rules(payers_of(ledger)) and ledger.suspended is None


def suspended(ledger: Ledger, words: str) -> Suspended:
    """The error for a request of which a payer is suspended. The event is sent."""
    ledger.selection = Selection(payers_of(ledger))  # The event is about them, whatever the model is.
    tell(request_refused, ledger.app, **ledger.facts)
    return Suspended(words, **ledger.answer_facts)


def _have_rules(payers: Iterable[PlannedPayer]) -> bool:
    for payer in payers:  # noqa: SIM110  any() would take three times as long
        if payer.plan.models is not None:
            return True
    return False


def _for_model(ledger: Ledger, payers: tuple[PlannedPayer, ...]) -> Selection:
    needs_model = any(payer.plan.needs_model for payer in payers)
    try:
        is_known, model = model_named(ledger, current_request())
    except BodyTooLarge:
        raise
    except HTTPException:  # The app's model_of failed, or turns the client away.
        if needs_model:
            raise
        is_known, model = False, None
    if ledger.invalid is not None:
        return Selection(payers)  # It gets its 400 after the decision.
    rules: list[ModelRule | None] = []
    is_allowed = True
    for payer in payers:
        plan = payer.plan
        rule = plan.rule_for(model) if is_known and plan.models else None
        rules.append(rule)
        # A plan without rules has every model, also one that nobody knows.
        if plan.needs_model and not (is_known and plan.has(rule)):
            is_allowed = False
    return Selection(payers, tuple(rules), is_allowed, names_model=not is_known or model is not None)


def _planned_payers(ledger: Ledger) -> Iterator[PlannedPayer]:
    plans = plans_of(ledger)
    subject, prefix = ledger.engine_now().subject, ledger.flask_limiter.key_prefix
    before = (prefix,) if prefix else ()
    in_force = ledger.app_state.changes.in_force()
    payers, service_class = _payers_named(ledger)
    service = plans.service if service_class is None else _service_in(ledger, plans, service_class)
    for role, payer in payers:
        name = str(payer.id)
        changed = in_force.get((role, name)) if in_force else None  # type: ignore[call-overload]  # a name is a tuple
        moved = None if changed is None or changed.plan is None else plans.plans.get(changed.plan)
        plan = moved or _plan_of(ledger, plans, role, payer.plan)
        is_default = moved is None and plan.name != payer.plan
        hashed = subject(*before, role, name)
        plan = as_tried(plan, hashed)
        if changed is not None:
            plan = _as_changed(ledger, (role, name), changed, plan)
        if plan.service_class is not None and service_class is None:
            service = _leaving_more(service, plans.classes[plan.service_class])
        yield PlannedPayer(role, name, hashed, plan, payer.label, is_default, _credit(ledger, changed))
    hashed = b""
    if service is not None:
        hashed = subject(*before, SERVICE, "")
        service = as_tried(service, hashed)
    changed = in_force.get(EVERYBODY) if in_force else None
    if changed is not None:
        service = _as_changed(ledger, EVERYBODY, changed, service)
    if service is not None:
        yield PlannedPayer(SERVICE, "", hashed, service, None, credit=_credit(ledger, changed))


def _as_changed(ledger: Ledger, payer: tuple[str, str], changed: InForce, plan: _PlanIfAny) -> _PlanIfAny:
    """The plan as operators changed it for a payer. If they suspended the payer, the ledger notes that."""
    ledger.suspended = ledger.suspended or changed.suspended
    return plan and ledger.app_state.changes.plan_of(payer, changed, plan)


def _credit(ledger: Ledger, changed: InForce | None) -> Grants:
    """What operators granted a payer."""
    return changed.credit(ledger.app_state.changes.now_s()) if changed is not None and changed.grants else NO_GRANTS


def _payers_named(ledger: Ledger) -> tuple[Iterable[tuple[str, Payer]], str | None]:
    """The payers by role, and the class that the app names for the request; None for that of the plans.

    If the app names no payer, the client's address pays, under the default plan.
    """
    service_class = None
    access = ledger.flask_limiter
    if access.identify is not None:
        caller = ask(ledger, "identify", access.identify)
        if caller is not None and not isinstance(caller, Caller):
            access.logger.error("identify: %r returned a %s, and no Caller.", access.identify, type(caller).__name__)
            raise LimiterUnavailable(**ledger.answer_facts)
        if caller is not None:
            service_class = caller.service_class
            if caller.payers:
                return caller.payers, service_class
    elif access.payer_key is not None:
        key = ask(ledger, "key_func", access.payer_key)
        if key:
            return [(USER, Payer(str(key)))], None
    return [(ADDRESS, Payer(remote_address() or "unknown"))], service_class


def _service_in(ledger: Ledger, plans: Plans, name: str) -> Plan:
    """The service's plan as it holds for the class that the app names."""
    plan = plans.classes.get(name)
    if plan is None:
        ledger.flask_limiter.logger.error(
            "A request was refused: identify returned a Caller in the class %r, which [service.classes] of %s doesn't "
            "have.",
            *(name[:40], plans.source),
            extra=once_a_minute(name),
        )
        raise LimiterUnavailable(**ledger.answer_facts)
    return plan


def _leaving_more(plan: Plan | None, other: Plan) -> Plan:
    """Of the service's plans for two classes the one that leaves more to others."""
    return plan if plan is not None and plan.floor >= other.floor else other


def _plan_of(ledger: Ledger, plans: Plans, role: str, name: str | None) -> Plan:
    plan = None if name is None else plans.plans.get(name)
    if plan is not None:
        return plan
    logger = ledger.flask_limiter.logger
    what = "no plan" if name is None else f"the plan {name[:40]!r}, which is not in {plans.source}"
    if plans.default is None:
        logger.error(
            "A request was refused: its payer in the role %r has %s, and there is no default_plan.",
            *(role, what),
            extra=once_a_minute(f"{role}: {what}"),
        )
        raise LimiterUnavailable(**ledger.answer_facts)
    if name is not None:
        logger.warning(
            "A payer in the role %r has %s. It counts under %s, the default_plan.",
            *(role, what, plans.default.name),
            extra=once_a_minute(f"{role}: {what}"),
        )
    return plans.default
