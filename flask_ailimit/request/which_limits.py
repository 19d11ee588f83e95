"""Finds the limits that apply in a phase of the current request.

Flask-Limiter would resolve the limits of an endpoint in each request. Here a phase is kept if it will be the same in
the next request with the same phases before it. Limits that a callable returns are resolved in each request.
"""

from collections.abc import Hashable, Iterable, Sequence

import flask
from flask import Request
from flask_limiter import ExemptionScope

from flask_ailimit.current import current_app
from flask_ailimit.engine import Quota
from flask_ailimit.engine.charge import DENY, require_cost
from flask_ailimit.engine.quota import REQUESTS
from flask_ailimit.limits.methods import counted_method, is_known, meets
from flask_ailimit.limits.phase import BlueprintLimit, Phase, ResolvedLimit, RuntimeLimit
from flask_ailimit.limits.resolve import allows_nothing, is_no_limit
from flask_ailimit.limits.unit_limit import RequestCost, UnitCost, options_of, quota_of, told_as

from .ledger import ADDRESS, Ledger


def known_phase(ledger: Ledger, request: Request, endpoint: str) -> Phase | None:
    """The kept phase of an equal earlier request; None if there is none or a request filter exempts this request."""
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
    is_decided_in_view = ledger.before_view and flask_limiter.asks_itself(view_name(ledger))
    ordered, metas = _in_order(limits), [] if is_decided_in_view else _in_order(_metas(ledger, endpoint, limits))
    phase = Phase(
        tuple(resolved_limit(ledger, each, endpoint, only_checked=True) for each in counted(metas)),
        tuple(resolved_limit(ledger, each, endpoint) for each in counted(ordered)),
        tuple(each for each in [*metas, *ordered] if allows_nothing(each)),
        tuple(flask_limiter.defaults_decided),
    )
    before, registry = ledger.phase, flask_limiter.registry
    app_state = ledger.app_state
    others = [*app_state.default_token_limits, *app_state.application_limits, *flask_limiter.meta_limits]
    may_change = (exempt and flask_limiter.request_filters) or registry.may_change(
        ledger.limited_function or "", others
    )
    ledger.phase = None
    if before is not None and ledger.root is registry.root and not may_change and is_known(request):
        registry.remember(before, _phase_key(ledger, request, endpoint), phase)
        ledger.phase = phase
    return phase


def address_phase(ledger: Ledger) -> Phase:
    """The phase of the limits by address. The phases that follow are looked up as if there were no such phase."""
    registry, key, limits = ledger.flask_limiter.registry, (ledger.app_state, ADDRESS), ledger.app_state.address_limits
    known = registry.root.next_phases.get(key)
    if known is not None:
        return known
    ordered = _in_order(registry.resolved(limits))
    phase = Phase(
        limits=tuple(resolved_limit(ledger, each, ADDRESS) for each in counted(ordered)),
        zero_limits=tuple(each for each in ordered if allows_nothing(each)),
    )
    if not any(callable(limit.limit_provider) for limit in limits):
        registry.remember(registry.root, key, phase)
    return phase


def resolved_limit(ledger: Ledger, limit: RuntimeLimit, endpoint: str, *, only_checked: bool = False) -> ResolvedLimit:
    """The limit with everything of its charges that is the same in each request."""
    quota = quota_now(ledger, limit)
    scope = None if callable(limit.scope) else limit.scope_for(endpoint, counted_method(flask.request))
    charged_once = quota.unit != REQUESTS or isinstance(limit, BlueprintLimit)
    cost = _fixed_cost(limit.cost)
    return ResolvedLimit(limit, quota, policy_of(ledger, limit), only_checked, scope, cost, charged_once)


def quota_now(ledger: Ledger, limit: RuntimeLimit) -> Quota:
    """What a limit allows, and what clients are told of it. The limit is counted: it is neither UNLIMITED nor 0."""
    quota = quota_of(limit.limit, ledger.app_state.algorithm, ledger.app_state.settings.max_debt_periods)
    if isinstance(limit.cost, RequestCost):
        return told_as(quota, limit.cost.label, in_headers=limit.cost.in_headers)
    return quota


def policy_of(ledger: Ledger, limit: RuntimeLimit) -> str:
    """What the limit does while the store is away."""
    if not ledger.flask_limiter.handles_store_errors:
        return DENY  # The engine raises, and Flask-Limiter's own policies come first.
    options = options_of(limit.cost)
    return (options and options.on_store_error) or ledger.app_state.settings.on_store_error


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
