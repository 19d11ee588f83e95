"""The seam: limits that apply become charges, the charges one decision, and the decision a tab or a 429.

Flask-Limiter finds out which limits apply, twice in a request: before it for those of the application (and the defaults
of views without limits of their own), and in the decorator for the rest. Each time is one atomic decision. If the
second refuses, what the first took is given back.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import flask
from flask_limiter import ExemptionScope, RequestLimit
from flask_limiter._limits import RuntimeLimit
from flask_limiter.util import get_qualified_name
from werkzeug.exceptions import HTTPException

from .engine import AILimitError, Charge, Engine
from .engine.charge import DENY, require_cost
from .errors import QuotaExceeded
from .keys import remote_address
from .responses import count_tries
from .signals import request_refused
from .tab import Tab
from .token_limit import Cost, quota_of

if TYPE_CHECKING:
    from .extension import AILimiter


REFUSAL = "flask_ailimit.refusal"
"""Where the WSGI environment keeps what was raised, so that all limiters of an app know of it."""


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
    if _in_last_phase(limiter, tab) and (limits or not limiter.passes_unlimited(endpoint)):
        limits = [*limits, *_not_lifted(limiter, endpoint, flask.request.blueprint, limits)]
    applied = _each_count_once(_apply(limiter, engine, endpoint, limits))
    if not metas and not applied:
        limiter.context.view_rate_limits = []
        limiter.context.view_rate_limit = None
        return
    try:
        reservation = engine.reserve([each.charge for each in (*metas, *applied)])
    except AILimitError as error:
        _store_failed(limiter, tab, error)
    tab.add(reservation)
    tab.deductions += [(each.charge, each.limit.deduct_when) for each in applied if each.limit.deduct_when]
    allowed = {id(verdict.charge): verdict.allowed for verdict in reservation.decision.verdicts}
    # What passes uncounted while the store is away has no verdict.
    refused_metas = [each for each in metas if not allowed.get(id(each.charge), True)]
    refused = [each for each in applied if not allowed.get(id(each.charge), True)]
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
    blueprint = endpoint.rpartition(".")[0] or None
    manager = limiter.limit_manager
    exempt = manager.exemption_scope(app, endpoint, blueprint) & ExemptionScope.APPLICATION
    defaults, decorated = manager.resolve_limits(app, endpoint, blueprint)
    limits = [*([] if exempt else manager.application_limits), *defaults, *decorated]
    charges = []
    for limit in [*limits, *_not_lifted(limiter, endpoint, blueprint, limits)]:
        identity = [subject] if subject is not None else _identity(limiter, limit)
        identifiers = _identifiers(limiter, identity, limit.scope_for(endpoint, flask.request.method))
        charges.append(_charge(limiter, limiter.engine, limit, identifiers, 0, dry=True))
    return charges


def _apply(
    limiter: "AILimiter", engine: Engine, endpoint: str, limits: Iterable[RuntimeLimit], *, dry: bool = False
) -> Iterable[Applied]:
    for limit in sorted(limits, key=lambda each: each.limit):
        if limit.is_exempt or limit.method_exempt:
            continue
        identity = _identity(limiter, limit)
        identifiers = _identifiers(limiter, identity, limit.scope_for(endpoint, flask.request.method))
        yield Applied(limit, identifiers, _charge(limiter, engine, limit, identifiers, _cost(limiter, limit), dry=dry))


def _each_count_once(applied: Iterable[Applied]) -> list[Applied]:
    """Of several limits with one count the costliest: an app factory that runs again decorates its views again."""
    counts: dict[object, Applied] = {}
    for each in applied:
        count = (each.charge.subject, each.charge.bucket, each.limit.deduct_when)
        if count not in counts or each.charge.cost > counts[count].charge.cost:
            counts[count] = each
    return list(counts.values())


def _charge(
    limiter: "AILimiter", engine: Engine, limit: RuntimeLimit, identifiers: list[str], cost: int, *, dry: bool
) -> Charge:
    *identity, scope = identifiers
    policy = getattr(limit.cost, "on_store_error", None) or limiter.state.settings.on_store_error
    if limiter._in_memory_fallback_enabled or limiter._swallow_errors:
        policy = DENY  # The engine raises, and Flask-Limiter's own policies come first.
    quota = quota_of(limit.limit, limiter.state.algorithm)
    return Charge(engine.subject(*identity), quota, cost, scope, dry, policy)


def _identity(limiter: "AILimiter", limit: RuntimeLimit) -> list[str]:
    """Who pays: a key, or without one an address. An address is two parts, so that no key can be made up to be one.

    Flask-Limiter skips a limit whose key is empty; here nobody passes a limit by hiding, or by making its key function
    fail.
    """
    key = None
    try:
        key = limit.key_func()
    except HTTPException:
        raise  # It turns the client away.
    except Exception as error:  # noqa: BLE001  any: it is the app's function
        # Not the error's text, which may hold the key.
        limiter.logger.error("key_func: %r raised %s; the address counts", limit.key_func, type(error).__name__)  # noqa: TRY400
    return [str(key)] if key else ["", remote_address()]


def _cost(limiter: "AILimiter", limit: RuntimeLimit) -> int:
    try:
        return require_cost(limit.deduction_amount)
    except HTTPException:
        raise  # A body that is too large, or that the app's estimate refused.
    except Exception as error:  # noqa: BLE001  any: it may be the app's function
        limiter.logger.warning("The cost of %s counts as 1: asking for it raised %s", limit.limit, type(error).__name__)
        return 1


def _identifiers(limiter: "AILimiter", identity: list[str], scope: str) -> list[str]:
    return [*([limiter._key_prefix] if limiter._key_prefix else []), *identity, scope]


def _meta_limits(limiter: "AILimiter", endpoint: str, limits: Sequence[RuntimeLimit]) -> list[RuntimeLimit]:
    exempt = limiter.limit_manager.exemption_scope(flask.current_app, endpoint, flask.request.blueprint)
    if exempt & ExemptionScope.META:
        return []
    return [*itertools.chain(*limiter._meta_limits, *(limit.meta_limits or () for limit in limits))]


def _in_last_phase(limiter: "AILimiter", tab: Tab) -> bool:
    """Whether this is the last phase before the view: its decorator's, or without one the application's."""
    view = flask.current_app.view_functions.get(flask.request.endpoint or "")
    name = get_qualified_name(view) if view else ""
    return tab.in_middleware != (name in limiter._marked_for_limiting) and tab.caller in (None, name)


def _not_lifted(
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
    if not charges:
        return
    try:
        engine.reserve(charges)
    except AILimitError as error:
        limiter.logger.error("A refusal was not counted: %s", error)  # noqa: TRY400  the refusal stands


def _refuse(limiter: "AILimiter", tab: Tab, refused: Applied, response: flask.Response | None) -> None:
    quota = refused.charge.quota
    subject = refused.charge.subject.hex()[:8]  # Never the key itself.
    limiter.logger.info("ratelimit %s (%s) exceeded at endpoint: %s", quota.text, subject, refused.identifiers[-1])
    assert tab.decision  # noqa: S101  a refusal has one
    tab.refusal = flask.request.environ[REFUSAL] = QuotaExceeded(
        refused.limit,
        tab.decision,
        request_id=tab.request_id,
        error_format=limiter.state.settings.error_format,
        too_large_status=limiter.state.settings.too_large_status,
        tries=count_tries(flask.request.headers.get("x-stainless-retry-count")),
        response=response,
    )
    request_refused.send(tab.app, decision=tab.decision, request_id=tab.request_id)
    raise tab.refusal


def _store_failed(limiter: "AILimiter", tab: Tab, error: AILimitError) -> NoReturn:
    if limiter._in_memory_fallback_enabled or limiter._swallow_errors:
        raise error  # Flask-Limiter's own policies come first.
    limiter.logger.error("A request was refused, because its limits can't be checked: %s", error)
    tab.cancel()
    raise limiter.unavailable() from error
