"""What the current caller has used of its limits and has left, and where each limit's value was set.

Shown are the limits that clients are told of: those of the payers' plans for all models, those over all routes
together, and on request those of endpoints. It takes one question to the store, which charges nothing and makes no
count.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from flask_ailimit.engine import Charge, Verdict
from flask_ailimit.engine.quota import CONCURRENCY, EVER, REQUESTS
from flask_ailimit.engine.standing import Standing, standing_of
from flask_ailimit.headers.durations import milliseconds_up, seconds_up
from flask_ailimit.limits.count_names import method_in
from flask_ailimit.limits.in_words import label_of
from flask_ailimit.limits.phase import PayerLimit
from flask_ailimit.limits.plans.caller import SERVICE
from flask_ailimit.limits.plans.plan import ALL_PAYERS, IN_PLAN, ModelRule, Plan, Plans
from flask_ailimit.limits.plans.selection import PlannedPayer
from flask_ailimit.limits.resolve import allows_nothing
from flask_ailimit.limits.unit_limit import UnitCost, enforced_percent, is_told

from .endpoint_limits import EndpointLimit, limits_of, limits_of_application, limits_of_plan, methods_of
from .ledger import Ledger
from .payers import payers_of
from .which_limits import told_payers

_DEFAULT = "default"
_PLAN = IN_PLAN.kind
_MODEL = "model"
_APPLICATION = "application"
_ROUTE = "route"
_MILLISECONDS = 1000


@dataclass(frozen=True)
class LimitSource:
    """Where the value of a limit was set.

    Attributes:
        type: ``plan``; ``default``, a plan that the payer has because it has none of its own; ``model``, what the plan
            says of some models; ``candidate``, a value that the plan tries; ``change``, what an operator set for this
            payer; ``boost``, the same for a time; ``try``, what an operator tries on this payer; ``application``, a
            limit over all routes; or ``route``, a limit of one route.
        plan: The name of the payer's plan; None for the last two.
        until: The end of a boost, in seconds since 1970; else None.
    """

    type: str
    plan: str | None = None
    until: int | None = None


@dataclass(frozen=True)
class InheritedLimit:
    """What stands behind the value of a limit: the plan's value before an operator's, or that over all models.

    Attributes:
        limit: As of :class:`LimitUsage`.
        burst: As of :class:`LimitUsage`.
        period: As of :class:`LimitUsage`.
        source: Where this value was set.
    """

    limit: int | None
    burst: int | None
    period: int | None
    source: LimitSource


@dataclass(frozen=True)
class LimitUsage:
    """How much of a limit is used and left.

    Attributes:
        role: The role of the payer; None for a limit that is of no plan.
        model: The pattern of the models that share the count; None for all models.
        route: The path of a route's limit, as the app wrote it; else None.
        methods: The HTTP methods on which it holds, or the one that is counted by itself; None for all.
        name: What headers and refusals call it. One name may stand for several limits, of different roles, models or
            routes.
        unit: What is counted.
        limit: Units in a period, or calls in flight. 0 allows nothing, and None is no limit.
        burst: The most units at once: the limit, unless it is a token bucket with a burst of its own.
        period: Seconds; of a window of a calendar the longest usual ones. None for calls in flight, for a balance,
            for 0 and for no limit.
        used: Units that are taken of the burst, from 0 to the burst; None for no limit.
        remaining: Units that are left of the burst; None for no limit.
        reset_after: Seconds until the burst is there again, if nothing more is used, rounded up to a millisecond. None
            where there is no period.
        reset: The same as a time, in whole seconds since 1970, rounded up.
        source: Where its value was set.
        budget: How a budget stands, in amounts for people; None for a limit that is no budget.
        tried: It is only tried, and refuses nothing. Clients are told of no such limit.
        inherited: For a limit that an operator set, that of the plan, which holds again when the change ends. For a
            limit of a model, those on the unit over all models, which hold beside it. Else empty; None if nobody asked
            for it.
    """

    role: str | None
    model: str | None
    route: str | None
    methods: tuple[str, ...] | None
    name: str
    unit: str
    limit: int | None
    burst: int | None
    period: int | None
    used: int | None
    remaining: int | None
    reset_after: float | None
    reset: int | None
    source: LimitSource
    budget: Standing | None = None
    tried: bool = False
    inherited: tuple[InheritedLimit, ...] | None = None


@dataclass(frozen=True)
class UsageReport:
    """What the caller has used and has left.

    Attributes:
        limits: The limits: for each payer those over all models and then those of models, as the plan lists them; then
            those over all routes together; then those of endpoints.
    """

    limits: tuple[LimitUsage, ...]

    def to_dict(self) -> dict[str, Any]:
        """The report as it is in JSON, for clients. ``inherited`` is left out where nobody asked for it."""
        left_out = {"tried", *(["inherited"] if all(each.inherited is None for each in self.limits) else [])}
        return {"limits": [_in_json(each, left_out) for each in self.limits]}


def _in_json(limit: LimitUsage, left_out: Collection[str]) -> dict[str, Any]:
    told = {name: value for name, value in asdict(limit).items() if name not in left_out}
    if limit.budget is None:
        del told["budget"]
    else:
        told["budget"] = limit.budget._asdict()
    return told


class _Shown(NamedTuple):
    """A limit that is to be shown, before the store is asked about its counts."""

    limit: EndpointLimit
    source: LimitSource
    role: str | None = None
    model: str | None = None
    route: str | None = None
    inherited: tuple[InheritedLimit, ...] | None = None


def usage(ledger: Ledger, endpoints: Iterable[str] = (), *, inherited: bool = False) -> UsageReport:
    """What the current caller has used and has left.

    Args:
        ledger: That of the current request.
        endpoints: Flask-Limiter's names of endpoints, whose own limits are shown too.
        inherited: Show what each limit inherits.

    Raises:
        StoreError: The store can't answer.
        HTTPException: The app turns the client away, as :func:`.payers.payers_of` says.
        ValueError: The app has no such endpoint.
    """
    payers = payers_of(ledger) if ledger.app_state.plans else ()
    shown = [each for payer in told_payers(ledger, payers) for each in _of_payer(ledger, payer, inherited=inherited)]
    nothing = () if inherited else None
    shown += [_Shown(each, LimitSource(_APPLICATION), inherited=nothing) for each in limits_of_application(ledger)]
    for endpoint in endpoints:
        route, limits = _of_endpoint(ledger, endpoint)
        shown += [_Shown(limit, LimitSource(_ROUTE), route=route, inherited=nothing) for limit in limits]
    return _report(ledger, [each for each in shown if is_told(each.limit.limit.cost) and not _is_tried(each)])


def usage_of_payer(ledger: Ledger, payer: PlannedPayer) -> UsageReport:
    """What a payer has used and has left of its plan, also of limits that clients are not told of.

    Raises:
        StoreError: The store can't answer.
    """
    return _report(ledger, [*_of_payer(ledger, payer, inherited=True)])


def _of_payer(ledger: Ledger, payer: PlannedPayer, *, inherited: bool) -> Iterator[_Shown]:
    for rule in (None, *(payer.plan.models or ())):
        for limit in limits_of_plan(ledger, payer, rule):
            source = _source(payer, rule, limit)
            found = tuple(_inherited(ledger, payer, rule, limit, source.type)) if inherited else None
            pattern = None if rule is None else rule.pattern
            yield _Shown(limit, source, payer.role, pattern, inherited=found)


def _source(payer: PlannedPayer, rule: ModelRule | None, limit: EndpointLimit) -> LimitSource:
    cost = limit.limit.cost
    kind, until = (isinstance(cost, UnitCost) and cost.limit.source) or IN_PLAN
    if kind == _PLAN and rule is not None:
        kind = _MODEL
    elif kind == _PLAN and payer.is_default:
        kind = _DEFAULT
    return LimitSource(kind, payer.plan.name, until)


def _inherited(
    ledger: Ledger, payer: PlannedPayer, rule: ModelRule | None, limit: EndpointLimit, kind: str
) -> Iterator[InheritedLimit]:
    """The limits on the same unit that stand behind one.

    Behind one of a model these are all over all models. Behind one that was changed it is that of the same window.
    """
    if kind in (_PLAN, _DEFAULT):
        return
    if kind == _MODEL:
        rule = None
    else:
        written = _as_written(ledger.app_state.plans, payer)
        if written is None:
            return
        payer = payer._replace(plan=written)
        if rule is not None:
            rule = next((each for each in written.models or () if each.pattern == rule.pattern), None)
    window = None if kind == _MODEL else _window(limit)
    for each in limits_of_plan(ledger, payer, rule):
        is_behind = window is None or _window(each) in (window, None)
        if is_behind and _unit(each) == _unit(limit) and is_told(each.limit.cost) and not _is_only_tried(each):
            yield InheritedLimit(*_value(each), _source(payer, rule, each))


def _as_written(plans: Plans | None, payer: PlannedPayer) -> Plan | None:
    """The plan of a payer as the app wrote it, without what an operator has set for this payer."""
    if plans is None or payer.role == SERVICE:
        return plans and plans.service
    return plans.plans.get(payer.plan.name)


def _of_endpoint(ledger: Ledger, endpoint: str) -> tuple[str, list[EndpointLimit]]:
    """The path of an endpoint, and its limits without those of plans and those on refusals."""
    methods = methods_of(ledger.app, endpoint)
    if methods is None and ledger.flask_limiter.request_identifier is None:
        raise ValueError(f"usage: the app has no endpoint {endpoint!r:.80}. Name one as for url_for, such as 'chat'.")
    path = next((rule.rule for rule in ledger.app.url_map.iter_rules() if rule.endpoint == endpoint), endpoint)
    limits = limits_of(ledger, endpoint, methods, None)
    return path, [each for each in limits if not each.is_meta and not isinstance(each.limit, PayerLimit)]


def _report(ledger: Ledger, shown: Iterable[_Shown]) -> UsageReport:
    """Ask the store once about all counts. A count of which two limits say the same is shown once."""
    rows: dict[object, tuple[_Shown, Charge | None]] = {}
    for number, each in enumerate(shown):
        for charge in each.limit.counts:
            rows.setdefault((charge.counted_in, charge.quota.given), (each, charge))
        if not each.limit.counts:
            rows[number] = each, None
    decision = ledger.engine_now().store.peek([charge for _, charge in rows.values() if charge is not None])
    verdicts = iter(decision.verdicts)
    found = [_row(each, None if charge is None else next(verdicts), decision.at_us) for each, charge in rows.values()]
    return UsageReport(tuple(found))


def _row(shown: _Shown, verdict: Verdict | None, at_us: int) -> LimitUsage:
    limit, unit = shown.limit, _unit(shown.limit)
    most, burst, period = _value(limit)
    nothing = 0 if most == 0 else None
    reset_us = None if verdict is None or period is None else verdict.reset_after_us
    methods = limit.methods
    if verdict is not None and limit.limit.per_method:
        methods = (method_in(verdict.charge.scope),)
    return LimitUsage(
        role=shown.role,
        model=shown.model,
        route=shown.route,
        methods=methods or None,
        name=label_of(limit.limit) or unit.replace("_", "-") if verdict is None else verdict.quota.name,
        unit=unit,
        limit=most,
        burst=burst,
        period=period,
        used=nothing if verdict is None else verdict.used,
        remaining=nothing if verdict is None else verdict.quota.burst - verdict.used,
        reset_after=None if reset_us is None else milliseconds_up(reset_us) / _MILLISECONDS,
        reset=None if reset_us is None else seconds_up(at_us + reset_us),
        source=shown.source,
        budget=None if verdict is None else standing_of(verdict),
        tried=_is_tried(shown),
        inherited=shown.inherited,
    )


def _is_tried(shown: _Shown) -> bool:
    return _is_only_tried(shown.limit)


def _is_only_tried(limit: EndpointLimit) -> bool:
    """Whether a limit is only tried on its subject. One that counts nothing is, if it is so for anybody."""
    return limit.counts[0].shadow if limit.counts else enforced_percent(limit.limit.cost) < ALL_PAYERS


def _unit(limit: EndpointLimit) -> str:
    cost = limit.limit.cost
    return cost.limit.unit if isinstance(cost, UnitCost) else REQUESTS


def _window(limit: EndpointLimit) -> tuple[int, str] | None:
    """The window of a limit; None of one without a number, and of calls in flight."""
    if not limit.counts or limit.counts[0].quota.unit == CONCURRENCY:
        return None
    quota = limit.counts[0].quota
    return quota.period, quota.every


def _value(limit: EndpointLimit) -> tuple[int | None, int | None, int | None]:
    """Limit, burst and period of a limit; of no limit none of them, and of 0 no period."""
    if not limit.counts:
        nothing = 0 if allows_nothing(limit.limit) else None
        return nothing, nothing, None
    quota = limit.counts[0].quota
    has_no_window = quota.unit == CONCURRENCY or quota.every == EVER
    return quota.limit, quota.burst, None if has_no_window else quota.period
