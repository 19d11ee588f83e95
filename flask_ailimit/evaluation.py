"""The seam: limits that apply become charges, the charges one decision, and the decision a tab or a 429.

Flask-Limiter finds out which limits apply, twice in a request: before it for those of the application (and the defaults
of views without limits of their own), and in the decorator for the rest. Each time is one atomic decision. If the
second refuses, what the first took is given back.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import flask
from flask_limiter import ExemptionScope, RequestLimit
from flask_limiter._limits import RuntimeLimit
from flask_limiter.util import get_qualified_name

from .engine import Charge, Engine, StoreError
from .engine.charge import require_cost
from .errors import LimiterUnavailable, QuotaExceeded
from .keys import remote_address
from .signals import request_refused
from .tab import Tab
from .token_limit import Cost, quota_of

if TYPE_CHECKING:
    from .extension import AILimiter


class Applied(NamedTuple):
    """A limit that applies to this request, and what it charges."""

    limit: RuntimeLimit
    identifiers: list[str]
    charge: Charge


def evaluate(limiter: "AILimiter", endpoint: str, limits: list[RuntimeLimit]) -> None:
    """Decide one phase of the current request. Takes the place of Flask-Limiter's own evaluation.

    Raises:
        QuotaExceeded: A limit refused.
        LimiterUnavailable: The store can't answer and the policy is to refuse.
    """
    tab = limiter.tab
    engine = limiter.engine
    metas = list(_apply(limiter, engine, endpoint, _meta_limits(limiter, endpoint, limits), dry=True))
    applied = list(_apply(limiter, engine, endpoint, [*limits, *_default_token_limits(limiter, tab, endpoint, limits)]))
    if not metas and not applied:
        limiter.context.view_rate_limits = []
        limiter.context.view_rate_limit = None
        return
    try:
        reservation = engine.reserve([each.charge for each in (*metas, *applied)])
    except StoreError as error:
        _store_failed(limiter, tab, error)
        return
    tab.add(reservation)
    tab.deductions += [(each.charge, each.limit.deduct_when) for each in applied if each.limit.deduct_when]
    allowed = {id(verdict.charge): verdict.allowed for verdict in reservation.decision.verdicts}
    refused_metas = [each for each in metas if not allowed[id(each.charge)]]
    refused = [each for each in applied if not allowed[id(each.charge)]]
    if limiter._fail_on_first_breach:
        refused = refused[:1]
    _tell_flask_limiter(limiter, refused_metas[:1] or applied, refused_metas[:1] or refused)
    if reservation.allowed:
        return
    if not _inside_view(tab):
        tab.cancel()
    if refused_metas:
        response = _call_back(limiter, refused_metas[:1], limiter._on_meta_breach, first_wins=True)
        _refuse(limiter, tab, refused_metas[0], response)
    response = _call_back(limiter, refused, limiter._on_breach)
    _hit_metas(limiter, engine, endpoint, refused)
    _refuse(limiter, tab, refused[0], response)


def applicable(limiter: "AILimiter", endpoint: str, subject: str | None = None) -> list[Charge]:
    """Dry charges of cost 0 for every limit of an endpoint, to ask what is left.

    ``subject`` takes the place of each limit's key function, where there is no request to ask it.
    """
    app = flask.current_app
    blueprint = endpoint.rpartition(".")[0]
    application = limiter.limit_manager.application_limits
    defaults, decorated = limiter.limit_manager.resolve_limits(app, endpoint, blueprint or None)
    limits = [*application, *defaults, *decorated]
    tokens = list(itertools.chain(*limiter.state.default_token_limits)) if not _overridden(limits, "tokens") else []
    charges = []
    for limit in [*limits, *tokens]:
        key = subject if subject is not None else _key(limit)
        identifiers = _identifiers(limiter, key, limit.scope_for(endpoint, flask.request.method))
        charges.append(_charge(limiter, limiter.engine, limit, identifiers, 0, dry=True))
    return charges


def _apply(
    limiter: "AILimiter", engine: Engine, endpoint: str, limits: Iterable[RuntimeLimit], *, dry: bool = False
) -> Iterable[Applied]:
    for limit in sorted(limits, key=lambda each: each.limit):
        if limit.is_exempt or limit.method_exempt:
            continue
        identifiers = _identifiers(limiter, _key(limit), limit.scope_for(endpoint, flask.request.method))
        yield Applied(limit, identifiers, _charge(limiter, engine, limit, identifiers, _cost(limiter, limit), dry=dry))


def _charge(
    limiter: "AILimiter", engine: Engine, limit: RuntimeLimit, identifiers: list[str], cost: int, *, dry: bool
) -> Charge:
    *identity, scope = identifiers
    return Charge(engine.subject(*identity), quota_of(limit.limit, limiter.state.algorithm), cost, scope, dry)


def _key(limit: RuntimeLimit) -> str:
    # Flask-Limiter skips a limit whose key is empty; here nobody passes a limit by hiding.
    return limit.key_func() or f"anonymous:{remote_address()}"


def _cost(limiter: "AILimiter", limit: RuntimeLimit) -> int:
    try:
        return require_cost(limit.deduction_amount)
    except ValueError as error:
        limiter.logger.warning("A limit's cost counts as 1: %s", error)
        return 1


def _identifiers(limiter: "AILimiter", key: str, scope: str) -> list[str]:
    return [*([limiter._key_prefix] if limiter._key_prefix else []), str(key), scope]


def _meta_limits(limiter: "AILimiter", endpoint: str, limits: Sequence[RuntimeLimit]) -> list[RuntimeLimit]:
    exempt = limiter.limit_manager.exemption_scope(flask.current_app, endpoint, flask.request.blueprint)
    if exempt & ExemptionScope.META:
        return []
    return [*itertools.chain(*limiter._meta_limits, *(limit.meta_limits or () for limit in limits))]


def _default_token_limits(
    limiter: "AILimiter", tab: Tab, endpoint: str, limits: Sequence[RuntimeLimit]
) -> list[RuntimeLimit]:
    """The default token limits, in the last phase before the view and unless the view has token limits of its own.

    Flask-Limiter's defaults would vanish from every view that has a limit on requests, so these are not among them.
    """
    if not limiter.state.default_token_limits or _overridden(limits, "tokens"):
        return []
    view = flask.current_app.view_functions.get(flask.request.endpoint or "")
    name = get_qualified_name(view) if view else ""
    in_this_phase = tab.in_middleware != (name in limiter._marked_for_limiting) and tab.caller in (None, name)
    manager = limiter.limit_manager
    exempt = manager.exemption_scope(flask.current_app, endpoint, flask.request.blueprint) & ExemptionScope.DEFAULT
    if not in_this_phase or exempt or (not limits and limiter.passes_unlimited(endpoint)):
        return []
    return list(itertools.chain(*limiter.state.default_token_limits))


def _overridden(limits: Iterable[RuntimeLimit], unit: str) -> bool:
    costs = [limit.cost for limit in limits]
    return any(isinstance(cost, Cost) and cost.overrides and cost.quota.unit == unit for cost in costs)


def _inside_view(tab: Tab) -> bool:
    """Whether the view has begun: then what it took before stands until the request is answered."""
    view = flask.current_app.view_functions.get(flask.request.endpoint or "")
    return not tab.in_middleware and (view is None or tab.caller != get_qualified_name(view))


def _tell_flask_limiter(limiter: "AILimiter", applied: Sequence[Applied], refused: Sequence[Applied]) -> None:
    """Fill in what ``current_limit`` and ``current_limits`` answer."""
    seen = [
        RequestLimit(limiter, each.limit.limit, each.identifiers, each in refused, each.limit.shared)
        for each in applied
    ]
    breached = [limit for limit in seen if limit.breached]
    explicit = [limit for limit in seen if not limit.shared] or seen
    limiter.context.view_rate_limits = seen
    limiter.context.view_rate_limit = next(iter(breached[-1:] or explicit), None)


def _call_back(
    limiter: "AILimiter", refused: Sequence[Applied], general: object, *, first_wins: bool = False
) -> flask.Response | None:
    """Call ``on_breach`` of the limiter and of each limit; answer the last response that one of them made."""
    response = None
    for each in refused:
        told = RequestLimit(limiter, each.limit.limit, each.identifiers, breached=True, shared=each.limit.shared)
        callbacks = [each.limit.on_breach or general] if first_wins else [general, each.limit.on_breach]
        for callback in dict.fromkeys(callbacks):
            if callable(callback):
                try:
                    answer = callback(told)
                except Exception as error:
                    if not limiter._swallow_errors:
                        raise
                    name = "on_meta_breach" if first_wins else "on_breach"
                    limiter.logger.exception("%s callback failed with error %s", name, error)  # noqa: TRY401
                else:
                    response = answer if isinstance(answer, flask.Response) else response
    return response


def _hit_metas(limiter: "AILimiter", engine: Engine, endpoint: str, refused: Sequence[Applied]) -> None:
    """A refusal counts against the meta limits."""
    metas = itertools.chain(*limiter._meta_limits, *(each.limit.meta_limits or () for each in refused))
    charges = [each.charge for each in _apply(limiter, engine, endpoint, metas)]
    if charges:
        engine.reserve(charges)


def _refuse(limiter: "AILimiter", tab: Tab, refused: Applied, response: flask.Response | None) -> None:
    quota = refused.charge.quota
    subject = refused.charge.subject.hex()[:8]  # Never the key itself.
    limiter.logger.info("ratelimit %s (%s) exceeded at endpoint: %s", quota.text, subject, refused.identifiers[-1])
    assert tab.decision  # noqa: S101  a refusal has one
    tab.refusal = QuotaExceeded(
        refused.limit,
        tab.decision,
        request_id=tab.request_id,
        error_format=limiter.state.settings.error_format,
        too_large_status=limiter.state.settings.too_large_status,
        response=response,
    )
    request_refused.send(tab.app, decision=tab.decision, request_id=tab.request_id)
    raise tab.refusal


def _store_failed(limiter: "AILimiter", tab: Tab, error: StoreError) -> None:
    if limiter._in_memory_fallback_enabled or limiter._swallow_errors:
        raise error  # Flask-Limiter's own policies come first.
    limiter.logger.error("The store failed, on_store_error=%s: %s", limiter.state.settings.on_store_error, error)
    if limiter.state.settings.on_store_error == "deny":
        tab.cancel()
        raise LimiterUnavailable(request_id=tab.request_id, error_format=limiter.state.settings.error_format) from error
