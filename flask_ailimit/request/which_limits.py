"""Finds the limits that apply in a phase of the current request.

Flask-Limiter would resolve the limits of an endpoint in each request. Here a phase is kept if it will be the same in
the next request with the same phases before it. Limits that a callable returns are resolved in each request.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence

import flask
from flask import Request
from flask_limiter import ExemptionScope

from flask_ailimit.current import current_app
from flask_ailimit.engine import Quota
from flask_ailimit.engine.charge import DENY, require_cost
from flask_ailimit.engine.quota import CONCURRENCY, REQUESTS, is_money
from flask_ailimit.http.errors import ModelNotAllowed
from flask_ailimit.limits.methods import counted_method, is_known, meets
from flask_ailimit.limits.phase import BlueprintLimit, PayerLimit, Phase, ResolvedLimit, RuntimeLimit
from flask_ailimit.limits.plans.credit import taking_credit
from flask_ailimit.limits.plans.plan import ALL_PAYERS, ModelRule
from flask_ailimit.limits.plans.plan_limits import limits_for_role
from flask_ailimit.limits.plans.selection import PlannedPayer, Selection
from flask_ailimit.limits.resolve import allows_nothing, is_no_limit
from flask_ailimit.limits.unit_limit import (
    RequestCost,
    UnitCost,
    UnitLimit,
    carried_by,
    enforced_percent,
    options_of,
    quota_of,
    told_as,
)

from .ledger import ADDRESS, Ledger
from .payers import payers_of, plans_of, selection_of, suspended


def known_phase(ledger: Ledger, request: Request, endpoint: str) -> Phase | None:
    """The kept phase of an equal earlier request; None if there is none or a request filter exempts this request.

    If the limits are by plan, it is the phase that stands for those of all selections.
    """
    flask_limiter = ledger.flask_limiter
    filters = flask_limiter.request_filters
    if (
        ledger.phase is None
        or ledger.root is not flask_limiter.registry.root
        or (filters and any(f() for f in filters))
    ):
        return None
    return ledger.phase.next_phases.get(_phase_key(ledger, request, endpoint))


def new_phase(ledger: Ledger, endpoint: str, limits: Sequence[RuntimeLimit]) -> Phase:
    """The phase of these limits, which Flask-Limiter resolved. It is kept if the next request will have the same."""
    flask_limiter, request = ledger.flask_limiter, flask.request
    exempt = flask_limiter.passes_unlimited(endpoint)
    if _is_last_phase(ledger) and (limits or not exempt):
        limits = [*limits, *limits_despite_override(ledger, endpoint, request.blueprint, limits)]
    selection = selection_now(ledger) if not exempt and _is_by_plan(ledger, request) else None
    phase = _phase_of(ledger, endpoint, limits, selection)
    before, registry = ledger.phase, flask_limiter.registry
    app_state = ledger.app_state
    others = [*app_state.default_token_limits, *app_state.application_limits, *flask_limiter.meta_limits]
    may_change = (exempt and flask_limiter.request_filters) or registry.may_change(
        ledger.limited_function or "", others
    )
    ledger.phase = None
    if before is not None and ledger.root is registry.root and not may_change and is_known(request):
        key = _phase_key(ledger, request, endpoint)
        if selection is not None:
            by_plan = before.next_phases.get(key)
            if by_plan is None:
                by_plan = Phase(is_by_plan=True)
                registry.remember(before, key, by_plan)
            of_any_model = Selection(selection.payers)
            if selection.rules and of_any_model.key not in by_plan.next_phases:
                registry.remember(by_plan, of_any_model.key, _phase_of(ledger, endpoint, limits, of_any_model))
            before, key = by_plan, selection.key
        registry.remember(before, key, phase)
        ledger.phase = phase
    return phase


def _phase_of(ledger: Ledger, endpoint: str, limits: Sequence[RuntimeLimit], selection: Selection | None) -> Phase:
    """A phase of these limits and of those of the plans."""
    flask_limiter = ledger.flask_limiter
    limits = [*limits, *(limits_of_payers(ledger, selection) if selection else ())]
    is_decided_in_view = ledger.before_view and flask_limiter.asks_itself(view_name(ledger))
    ordered, metas = _in_order(limits), [] if is_decided_in_view else _in_order(_metas(ledger, endpoint, limits))
    ordered.sort(key=_is_tried)  # The engine wants what is tried to come last.
    return Phase(
        tuple(resolved_limit(ledger, each, endpoint, only_checked=True) for each in counted(metas)),
        tuple(resolved_limit(ledger, each, endpoint) for each in counted(ordered)),
        tuple(each for each in [*metas, *ordered] if allows_nothing(each) and not _is_tried(each)),
        tuple(flask_limiter.defaults_decided),
    )


def _is_tried(limit: RuntimeLimit) -> bool:
    return enforced_percent(limit.cost) < ALL_PAYERS


def address_phase(ledger: Ledger) -> Phase:
    """The phase of the limits by address. The phases that follow are looked up as if there were no such phase."""
    registry, limits, request = ledger.flask_limiter.registry, ledger.app_state.address_limits, flask.request
    key = (ledger.app_state, ADDRESS, request.method)
    known = registry.root.next_phases.get(key)
    if known is not None:
        return known
    ordered = sorted(_in_order(registry.resolved(limits)), key=_is_tried)
    phase = Phase(
        limits=tuple(resolved_limit(ledger, each, ADDRESS) for each in counted(ordered)),
        zero_limits=tuple(each for each in ordered if allows_nothing(each) and not _is_tried(each)),
    )
    if is_known(request) and not any(callable(limit.limit_provider) for limit in limits):
        registry.remember(registry.root, key, phase)
    return phase


def resolved_limit(ledger: Ledger, limit: RuntimeLimit, endpoint: str, *, only_checked: bool = False) -> ResolvedLimit:
    """The limit with everything of its charges that is the same in each request."""
    quota = quota_now(ledger, limit)
    scope = None if callable(limit.scope) else limit.scope_for(endpoint, counted_method(flask.request))
    charged_once = quota.unit != REQUESTS or isinstance(limit, BlueprintLimit | PayerLimit)
    cost = _fixed_cost(limit.cost)
    policy, percent, floor = policy_of(ledger, limit), enforced_percent(limit.cost), _floor(limit, quota)
    takes_credit = isinstance(limit, PayerLimit) and limit.takes_credit
    return ResolvedLimit(limit, quota, policy, only_checked, scope, cost, charged_once, percent, floor, takes_credit)


def quota_now(ledger: Ledger, limit: RuntimeLimit) -> Quota:
    """What a limit allows, and how it is told of. The limit is counted: it is neither UNLIMITED nor 0."""
    settings, options = ledger.app_state.settings, options_of(limit.cost)
    quota = quota_of(limit.limit, ledger.app_state.algorithm, settings.max_debt_periods)
    soft_percent = settings.soft_percent if options is None or options.soft_percent is None else options.soft_percent
    label, in_headers = quota.label, quota.in_headers
    if isinstance(options, RequestCost):  # An item of Flask-Limiter's carries neither.
        label, in_headers = options.label, options.in_headers
    soft_percent = 0 if quota.unit == CONCURRENCY else soft_percent or 0
    if (label, in_headers, soft_percent) == (quota.label, quota.in_headers, quota.soft_percent):
        return quota
    return told_as(quota, label, in_headers=in_headers, soft_percent=soft_percent)


def policy_of(ledger: Ledger, limit: RuntimeLimit) -> str:
    """What the limit does while the store is away."""
    if not ledger.flask_limiter.handles_store_errors:
        return DENY  # The engine raises, and Flask-Limiter's own policies come first.
    options = options_of(limit.cost)
    of_all = ledger.app_state.settings.on_store_error
    if isinstance(options, UnitLimit) and is_money(options.unit):
        of_all = DENY  # An outage would grant a second budget.
    return (options and options.on_store_error) or of_all


def limits_despite_override(
    ledger: Ledger, endpoint: str, blueprint: str | None, limits: Sequence[RuntimeLimit]
) -> list[RuntimeLimit]:
    """The limits on tokens and calls in flight that a view's limit on requests must not override.

    These are those of the blueprint, of the defaults, and of all routes together. In Flask-Limiter, a view's limits
    override those of its blueprint and the defaults, even if they count another unit.
    """
    registry, app = ledger.flask_limiter.registry, ledger.app
    overridden = blueprint if any(limit.override_defaults for limit in limits) else None
    of_blueprint = registry.blueprint_limits(app, overridden) if overridden else []
    kept = [limit for limit in of_blueprint if isinstance(limit.cost, UnitCost) and limit not in limits]
    exempt = registry.exemption_scope(app, endpoint, blueprint)
    if not exempt & ExemptionScope.DEFAULT and not _overridden([*limits, *kept], "tokens"):
        kept += registry.resolved(ledger.app_state.default_token_limits)
    if not exempt & ExemptionScope.APPLICATION:
        kept += registry.resolved(ledger.app_state.application_limits)
    return kept


def limits_of_payers(ledger: Ledger, selection: Selection) -> Iterator[RuntimeLimit]:
    """The limits of the plans of a request's payers. Clients are told of those of the first, and of the told roles."""
    told = told_payers(ledger, selection.payers)
    for place, payer in enumerate(selection.payers):
        rule = selection.rules[place] if selection.rules else None
        for each in (None, rule) if rule else (None,):
            yield from limits_of_payer(ledger, payer, each, is_told=payer in told)


def limits_of_payer(ledger: Ledger, payer: PlannedPayer, rule: ModelRule | None, *, is_told: bool) -> list[PayerLimit]:
    """The limits of a payer's plan over all models; with a rule, those of the rule's models."""
    limits = limits_for_role(ledger.app_state.limits_of(payer.plan, rule), payer.role, is_told=is_told)
    found = [PayerLimit(**vars(each)) for each in ledger.flask_limiter.registry.resolved(limits)]
    if rule is None:
        for place in taking_credit((carried_by(each.limit), _is_tried(each)) for each in found):
            found[place].takes_credit = True
    return found


def told_payers(ledger: Ledger, payers: Sequence[PlannedPayer]) -> list[PlannedPayer]:
    """The payers of whose limits clients are told: the first, and those in the told roles."""
    told_roles = ledger.app_state.settings.told_roles
    return [payer for place, payer in enumerate(payers) if place == 0 or payer.role in told_roles]


def is_endpoint_by_plan(ledger: Ledger, endpoint: str, blueprint: str | None) -> bool:
    """Whether an endpoint's view is limited by plan. ``endpoint`` is Flask's name of it."""
    everywhere = ledger.app_state.settings.plan_everywhere and not is_static(endpoint)
    return ledger.flask_limiter.registry.is_view_by_plan(ledger.app, endpoint, blueprint, everywhere=everywhere)


def counted(limits: Iterable[RuntimeLimit]) -> list[RuntimeLimit]:
    """The limits that are counted: all but UNLIMITED and limits of 0."""
    return [limit for limit in limits if not is_no_limit(limit) and not allows_nothing(limit)]


def view_name(ledger: Ledger) -> str:
    """The name under which Flask-Limiter keeps limits of the current request's view; empty if there is no view."""
    return ledger.flask_limiter.registry.names.of_view(current_app(), flask.request.endpoint)


def is_inside_view(ledger: Ledger) -> bool:
    """Whether the view has begun. A refusal then leaves the earlier reservations open until the request is answered."""
    return not ledger.before_view and ledger.limited_function != view_name(ledger)


def is_static(endpoint: str | None) -> bool:
    """Whether the endpoint serves static files, which Flask-Limiter never limits."""
    return (endpoint or "").rpartition(".")[2] == "static"


def _phase_key(ledger: Ledger, request: Request, endpoint: str) -> Hashable:
    """Everything that a phase depends on besides the phases before it."""
    return (ledger.app_state, ledger.limited_function, ledger.before_view, endpoint, request.endpoint, request.method)


def _is_by_plan(ledger: Ledger, request: Request) -> bool:
    """Whether the limits of plans belong to this phase."""
    name = ledger.limited_function
    if name is not None and name != view_name(ledger):
        return ledger.flask_limiter.registry.is_function_by_plan(name)
    return _is_last_phase(ledger) and is_endpoint_by_plan(ledger, request.endpoint or "", request.blueprint)


def selection_now(ledger: Ledger) -> Selection:
    """The limits of plans that hold for the current request.

    Raises:
        Suspended: One of the payers is suspended. Nothing is charged, and the body is not read.
        ModelNotAllowed: One of the plans doesn't have the request's model. Nothing is charged.
        HTTPException: As :func:`.payers.selection_of`.
    """
    plans_of(ledger)
    payers_of(ledger)
    words = ledger.suspended
    selection = selection_of(ledger) if words is None else None
    if selection is not None and selection.is_allowed:
        return selection
    if not is_inside_view(ledger):
        ledger.cancel()
    if selection is None:
        raise suspended(ledger, words or "")
    raise ModelNotAllowed(names_model=selection.names_model, **ledger.answer_facts)


def _overridden(limits: Iterable[RuntimeLimit], unit: str) -> bool:
    costs = [limit.cost for limit in limits if meets(limit.methods, flask.request)]
    return any(isinstance(cost, UnitCost) and cost.limit.overrides and cost.limit.unit == unit for cost in costs)


def _in_order(limits: Iterable[RuntimeLimit]) -> list[RuntimeLimit]:
    return [limit for limit in sorted(limits, key=lambda each: each.limit) if meets(limit.methods, flask.request)]


def _metas(ledger: Ledger, endpoint: str, limits: Sequence[RuntimeLimit]) -> list[RuntimeLimit]:
    exempt = ledger.flask_limiter.registry.exemption_scope(ledger.app, endpoint, flask.request.blueprint)
    return [] if exempt & ExemptionScope.META else ledger.flask_limiter.metas_of(limits)


def _is_last_phase(ledger: Ledger) -> bool:
    """Whether this is the last phase before the view: that of its decorator, or without one that of the application."""
    name = view_name(ledger)
    return ledger.before_view != ledger.flask_limiter.asks_itself(name) and ledger.limited_function in (None, name)


def _floor(limit: RuntimeLimit, quota: Quota) -> int:
    """The units that a request leaves to others: so many percent of the burst, and no less."""
    percent = limit.cost.limit.floor if isinstance(limit.cost, UnitCost) else 0
    return -(-quota.burst * percent // 100)


def _fixed_cost(cost: object) -> int | None:
    """The cost, if it is the same for each request."""
    if isinstance(cost, UnitCost):
        return cost.fixed
    if isinstance(cost, RequestCost):
        cost = cost.cost
    try:
        return require_cost(cost)
    except ValueError:  # It is a callable.
        return None
