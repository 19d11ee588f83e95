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

from .current import current_app
from .engine import Charge, Quota
from .engine.charge import DENY, require_cost
from .engine.quota import CONCURRENCY, REQUESTS, TOKEN_UNITS
from .methods import counted_method, is_known, meets
from .resolving import all_resolved, allows_nothing, is_no_limit
from .tab import Tab
from .token_limit import Cost, RequestCost, quota_of

if TYPE_CHECKING:
    from .extension import AILimiter

_MOST_SUBJECTS = 128

ADDRESS = "address"
"""The name of the phase, and of the counts, of limits by address."""


class BlueprintLimit(RuntimeLimit):
    """A limit that a view has from its blueprint."""


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
        once: A request is charged for it once, however often it meets its count. The estimate, the usage and the call
            in flight are the request's, and so is what its blueprint limits. Any other limit on requests counts each
            call of what it limits, as Flask-Limiter does.
    """

    limit: RuntimeLimit
    quota: Quota
    on_store_error: str
    dry: bool
    scope: str | None
    cost: int | None
    once: bool

    def charge(self, subject: bytes, scope: str, cost: int) -> Charge:
        """The charge to a subject."""
        return Charge(subject, self.quota, cost, scope, self.dry, self.on_store_error)


class Applied(NamedTuple):
    """A limit that applies to a request, and its charge."""

    planned: Planned
    charge: Charge

    @property
    def limit(self) -> RuntimeLimit:
        """As Flask-Limiter resolved it."""
        return self.planned.limit

    @property
    def counted_in(self) -> tuple[bytes, bytes]:
        """What it is charged to: a subject, and the name of one of its counts."""
        return self.charge.subject, self.charge.bucket


@dataclass(slots=True, eq=False)
class Phase:
    """What applies in one phase of the requests that come this way.

    Attributes:
        metas: Limits on refusals, which are asked first.
        limits: The limits, in the order of Flask-Limiter: the shortest window first.
        forbidding: Limits of 0.
        seen: The default limits so far, which Flask-Limiter decides once in a request.
        counts_tokens: A limit is over tokens.
        holds: What a limit takes may be given back when the request ends.
        once: A limit is charged once in a request, which may have met it before.
        may_collide: Two of the limits may turn out to be one count.
        payer: The key function of all the limits, if nothing but its answer differs from request to request.
        known: What then applies to those who came lately.
        deducts: A limit is only charged if the answer says so (Flask-Limiter's ``deduct_when``).
        later: The phases that came next, by what they depend on.
    """

    metas: tuple[Planned, ...] = ()
    limits: tuple[Planned, ...] = ()
    forbidding: tuple[RuntimeLimit, ...] = ()
    seen: tuple[RuntimeLimit, ...] = ()
    counts_tokens: bool = field(init=False)
    holds: bool = field(init=False)
    once: bool = field(init=False)
    may_collide: bool = field(init=False)
    deducts: bool = field(init=False)
    payer: Callable[[], str] | None = field(init=False)
    known: dict[bytes, tuple[list[Applied], list[Charge]]] = field(default_factory=dict)
    later: dict[Hashable, "Phase"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        limits = self.limits
        self.counts_tokens = any(each.quota.unit in TOKEN_UNITS for each in limits)
        self.deducts = any(each.limit.deduct_when for each in limits)
        self.holds = self.deducts or any(each.quota.unit in (*TOKEN_UNITS, CONCURRENCY) for each in limits)
        self.once = any(each.once for each in limits)
        self.may_collide = len({(each.quota, each.limit.deduct_when) for each in limits}) < len(limits)
        self.payer = None if self.may_collide else _only_payer(limits)


def view_name(limiter: "AILimiter") -> str:
    """What Flask-Limiter calls the current request's view: its qualified name; empty if there is none."""
    return limiter.limit_manager.names.of_view(current_app(), flask.request.endpoint)


def way(tab: Tab, request: Request, endpoint: str) -> Hashable:
    """What a phase depends on, besides those before it."""
    return (tab.state, tab.caller, tab.in_middleware, endpoint, request.endpoint, request.method)


def plan(limiter: "AILimiter", tab: Tab, endpoint: str, limits: Sequence[RuntimeLimit]) -> Phase:
    """The phase in which these limits apply, remembered if that will be the same in the next request."""
    last = _in_last_phase(limiter, tab)
    exempt = limiter.passes_unlimited(endpoint)
    if last and (limits or not exempt):
        limits = [*limits, *not_lifted(limiter, endpoint, flask.request.blueprint, limits)]
    later = tab.in_middleware and view_name(limiter) in limiter._marked_for_limiting
    ordered, metas = _in_order(limits), [] if later else _in_order(_metas(limiter, endpoint, limits))
    phase = Phase(
        tuple(planned(limiter, each, endpoint, dry=True) for each in counted(metas)),
        tuple(planned(limiter, each, endpoint) for each in counted(ordered)),
        tuple(each for each in [*metas, *ordered] if allows_nothing(each)),
        tuple(limiter.context.seen_limits),
    )
    before, manager = tab.phase, limiter.limit_manager
    others = [*limiter.state.default_token_limits, *limiter._meta_limits]
    may_change = (exempt and limiter._request_filters) or manager.may_change(tab.caller or "", others)
    known = tab.start is manager.start and not may_change and is_known(flask.request)
    if before is not None and known:
        manager.remember(before, way(tab, flask.request, endpoint), phase)
        tab.phase = phase
    else:
        tab.phase = None
    return phase


def plan_address(limiter: "AILimiter", tab: Tab) -> Phase:
    """The phase of the limits by address. The next one begins where it would without them."""
    manager, key = limiter.limit_manager, (tab.state, ADDRESS)
    known = manager.start.later.get(key)
    if known is not None:
        return known
    ordered = _in_order(all_resolved(tab.state.address_limits))
    phase = Phase(
        limits=tuple(planned(limiter, each, ADDRESS) for each in counted(ordered)),
        forbidding=tuple(each for each in ordered if allows_nothing(each)),
    )
    if not any(callable(limit.limit_provider) for limit in tab.state.address_limits):
        manager.remember(manager.start, key, phase)
    return phase


def is_static(endpoint: str | None) -> bool:
    """Whether it serves static files, which Flask-Limiter never limits."""
    return (endpoint or "").rpartition(".")[2] == "static"


def planned(limiter: "AILimiter", limit: RuntimeLimit, endpoint: str, *, dry: bool = False) -> Planned:
    """All that is known of a limit's charges before there is a request."""
    policy = getattr(limit.cost, "on_store_error", None) or limiter.state.settings.on_store_error
    if not limiter.decides_alone:
        policy = DENY  # The engine raises, and Flask-Limiter's own policies come first.
    scope = None if callable(limit.scope) else limit.scope_for(endpoint, counted_method(flask.request))
    quota = quota_of(limit.limit, limiter.state.algorithm, limiter.state.settings.max_debt_periods)
    once = quota.unit != REQUESTS or isinstance(limit, BlueprintLimit)
    return Planned(limit, quota, policy, dry, scope, _fixed_cost(limit.cost, quota), once)


def counted(limits: Iterable[RuntimeLimit]) -> list[RuntimeLimit]:
    """Those of the limits that something is charged to."""
    return [limit for limit in limits if not is_no_limit(limit) and not allows_nothing(limit)]


def applied_to(phase: Phase, subject: bytes) -> tuple[list[Applied], list[Charge]]:
    """What applies to a subject in a phase that has an only payer. Who comes often gets the same objects."""
    known = phase.known.get(subject)
    if known is None:
        if len(phase.known) >= _MOST_SUBJECTS:
            phase.known.clear()
        applied = [Applied(each, each.charge(subject, each.scope or "", each.cost or 0)) for each in phase.limits]
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
        kept += all_resolved(limiter.state.default_token_limits)
    return kept


def _overridden(limits: Iterable[RuntimeLimit], unit: str) -> bool:
    costs = [limit.cost for limit in limits if meets(limit.methods, flask.request)]
    return any(isinstance(cost, Cost) and cost.overrides and cost.unit == unit for cost in costs)


def _only_payer(limits: Sequence[Planned]) -> Callable[[], str] | None:
    payers = {each.limit.key_func for each in limits}
    asks_more = any(each.scope is None or each.cost is None or each.limit.exempt_when for each in limits)
    return None if asks_more or len(payers) != 1 else payers.pop()


def _in_order(limits: Iterable[RuntimeLimit]) -> list[RuntimeLimit]:
    return [limit for limit in sorted(limits, key=lambda each: each.limit) if meets(limit.methods, flask.request)]


def _metas(limiter: "AILimiter", endpoint: str, limits: Sequence[RuntimeLimit]) -> list[RuntimeLimit]:
    exempt = limiter.limit_manager.exemption_scope(flask.current_app, endpoint, flask.request.blueprint)
    if exempt & ExemptionScope.META:
        return []
    return [*all_resolved(limiter._meta_limits), *itertools.chain(*(limit.meta_limits or () for limit in limits))]


def _in_last_phase(limiter: "AILimiter", tab: Tab) -> bool:
    """Whether this is the last phase before the view: its decorator's, or without one the application's."""
    name = view_name(limiter)
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
