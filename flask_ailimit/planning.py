"""What applies to a request, found out once: Flask-Limiter resolves the limits of an endpoint anew in every request.

A request goes through phases: before the view, in its decorator, and in whatever else it calls that is decorated. Each
phase is remembered behind the one before, so that the same way through an app is resolved the first time only. What may
differ from request to request (who, at what cost, whether exempt) is still asked in each; limits that a callable
answers are resolved each time.
"""

import itertools
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import flask
from flask import Request
from flask_limiter import ExemptionScope
from flask_limiter._limits import RuntimeLimit
from flask_limiter.util import get_qualified_name

from .engine import Charge, Quota
from .engine.charge import DENY, require_cost
from .engine.quota import CONCURRENCY, TOKEN_UNITS
from .tab import Tab
from .token_limit import Cost, RequestCost, quota_of

if TYPE_CHECKING:
    from .extension import AILimiter

_MOST_PHASES = 4096
_MOST_SUBJECTS = 128


@dataclass(slots=True, eq=False)
class Planned:
    """A limit, with all of its charge that doesn't depend on the request.

    Attributes:
        limit: As Flask-Limiter resolved it.
        quota: What it allows.
        on_store_error: Its failure policy.
        dry: It only takes part in the decision: a meta limit, which a refusal is charged to.
        scope: Sets its count apart; None if a callable answers that.
        cost: Of each request; None if a callable answers that.
    """

    limit: RuntimeLimit
    quota: Quota
    on_store_error: str
    dry: bool
    scope: str | None
    cost: int | None

    def charge(self, subject: bytes, scope: str, cost: int) -> Charge:
        """The charge to a subject."""
        return Charge(subject, self.quota, cost, scope, self.dry, self.on_store_error)


class Applied(NamedTuple):
    """A limit that applies to a request, and its charge."""

    limit: RuntimeLimit
    charge: Charge


@dataclass(slots=True, eq=False)
class Phase:
    """What applies in one phase of the requests that come this way.

    Attributes:
        metas: Limits on refusals, which are asked first.
        limits: The limits, in the order of Flask-Limiter: the shortest window first.
        seen: The default limits so far, which Flask-Limiter decides once in a request.
        counts_tokens: A limit is over tokens.
        holds: What a limit takes may be given back when the request ends.
        may_collide: Two of the limits may turn out to be one count.
        payer: The key function of all the limits, if nothing but its answer differs from request to request.
        known: What then applies to those who came lately.
        deducts: A limit is only charged if the answer says so (Flask-Limiter's ``deduct_when``).
        later: The phases that came next, by what they depend on.
    """

    metas: tuple[Planned, ...] = ()
    limits: tuple[Planned, ...] = ()
    seen: tuple[RuntimeLimit, ...] = ()
    counts_tokens: bool = False
    holds: bool = False
    may_collide: bool = False
    deducts: bool = False
    payer: Callable[[], str] | None = None
    known: dict[bytes, tuple[list[Applied], list[Charge]]] = field(default_factory=dict)
    later: dict[Hashable, "Phase"] = field(default_factory=dict)


def view_name() -> str:
    """What Flask-Limiter calls the current request's view: its qualified name; empty if there is none."""
    view = flask.current_app.view_functions.get(flask.request.endpoint or "")
    return get_qualified_name(view) if view else ""


def way(tab: Tab, request: Request, endpoint: str) -> Hashable:
    """What a phase depends on, besides those before it."""
    return (tab.state, tab.caller, tab.in_middleware, endpoint, request.endpoint, request.method)


def plan(limiter: "AILimiter", tab: Tab, endpoint: str, limits: Sequence[RuntimeLimit]) -> Phase:
    """The phase in which these limits apply, remembered if that will be the same in the next request."""
    last = _in_last_phase(limiter, tab)
    exempt = limiter.passes_unlimited(endpoint)
    if last and (limits or not exempt):
        limits = [*limits, *not_lifted(limiter, endpoint, flask.request.blueprint, limits)]
    phase = Phase(
        tuple(planned(limiter, each, endpoint, dry=True) for each in _in_order(_metas(limiter, endpoint, limits))),
        tuple(planned(limiter, each, endpoint) for each in _in_order(limits)),
        tuple(limiter.context.seen_limits),
    )
    phase.counts_tokens = any(each.quota.unit in TOKEN_UNITS for each in phase.limits)
    phase.deducts = any(each.limit.deduct_when for each in phase.limits)
    phase.holds = phase.deducts or any(each.quota.unit in (*TOKEN_UNITS, CONCURRENCY) for each in phase.limits)
    phase.may_collide = len({(each.quota, each.limit.deduct_when) for each in phase.limits}) < len(phase.limits)
    phase.payer = None if phase.may_collide else _only_payer(phase.limits)
    before, manager = tab.phase, limiter.limit_manager
    others = [*limiter.state.default_token_limits, *limiter._meta_limits]
    may_change = (exempt and limiter._request_filters) or manager.may_change(endpoint, tab.caller or "", others)
    known = before is not None and tab.start is manager.start and not may_change and len(before.later) < _MOST_PHASES
    if before and known:
        before.later[way(tab, flask.request, endpoint)] = phase
    tab.phase = phase if known else None
    return phase


def planned(limiter: "AILimiter", limit: RuntimeLimit, endpoint: str, *, dry: bool = False) -> Planned:
    """All that is known of a limit's charges before there is a request."""
    policy = getattr(limit.cost, "on_store_error", None) or limiter.state.settings.on_store_error
    if not limiter.decides_alone:
        policy = DENY  # The engine raises, and Flask-Limiter's own policies come first.
    scope = None if callable(limit.scope) else limit.scope_for(endpoint, flask.request.method)
    quota = quota_of(limit.limit, limiter.state.algorithm)
    return Planned(limit, quota, policy, dry, scope, _fixed_cost(limit.cost, quota))


def applied_to(phase: Phase, subject: bytes) -> tuple[list[Applied], list[Charge]]:
    """What applies to a subject in a phase that has an only payer. Who comes often gets the same objects."""
    known = phase.known.get(subject)
    if known is None:
        if len(phase.known) >= _MOST_SUBJECTS:
            phase.known.clear()
        applied = [Applied(each.limit, each.charge(subject, each.scope or "", each.cost or 0)) for each in phase.limits]
        known = phase.known[subject] = (applied, [each.charge for each in applied])
    return known


def not_lifted(
    limiter: "AILimiter", endpoint: str, blueprint: str | None, limits: Sequence[RuntimeLimit]
) -> list[RuntimeLimit]:
    """What a view's limit on requests must not lift: limits of other units of its blueprint, and default token limits.

    Flask-Limiter takes a view's limits in place of its blueprint's and of the defaults, whatever they count.
    """
    manager = limiter.limit_manager
    lifted = blueprint if any(limit.override_defaults for limit in limits) else None
    of_blueprint = manager.blueprint_limits(flask.current_app, lifted) if lifted else []
    kept = [limit for limit in of_blueprint if isinstance(limit.cost, Cost) and limit not in limits]
    exempt = manager.exemption_scope(flask.current_app, endpoint, blueprint) & ExemptionScope.DEFAULT
    if not exempt and not _overridden([*limits, *kept], "tokens"):
        kept += itertools.chain(*limiter.state.default_token_limits)
    return kept


def _overridden(limits: Iterable[RuntimeLimit], unit: str) -> bool:
    costs = [limit.cost for limit in limits]
    return any(isinstance(cost, Cost) and cost.overrides and cost.quota.unit == unit for cost in costs)


def _only_payer(limits: Sequence[Planned]) -> Callable[[], str] | None:
    payers = {each.limit.key_func for each in limits}
    asks_more = any(each.scope is None or each.cost is None or each.limit.exempt_when for each in limits)
    return None if asks_more or len(payers) != 1 else payers.pop()


def _in_order(limits: Iterable[RuntimeLimit]) -> list[RuntimeLimit]:
    return [limit for limit in sorted(limits, key=lambda each: each.limit) if not limit.method_exempt]


def _metas(limiter: "AILimiter", endpoint: str, limits: Sequence[RuntimeLimit]) -> list[RuntimeLimit]:
    exempt = limiter.limit_manager.exemption_scope(flask.current_app, endpoint, flask.request.blueprint)
    if exempt & ExemptionScope.META:
        return []
    return [*itertools.chain(*limiter._meta_limits, *(limit.meta_limits or () for limit in limits))]


def _in_last_phase(limiter: "AILimiter", tab: Tab) -> bool:
    """Whether this is the last phase before the view: its decorator's, or without one the application's."""
    name = view_name()
    return tab.in_middleware != (name in limiter._marked_for_limiting) and tab.caller in (None, name)


def _fixed_cost(cost: object, quota: Quota) -> int | None:
    """The cost, if it is the same for each request."""
    if quota.unit == CONCURRENCY:
        return 1
    if isinstance(cost, RequestCost):
        cost = cost.cost
    try:
        return require_cost(cost)
    except ValueError:
        return None
