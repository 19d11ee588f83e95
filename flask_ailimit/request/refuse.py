"""Refuses a request: calls the callbacks, charges the meta limits, and raises the error that becomes the answer."""

from collections.abc import Iterable, Sequence
from typing import NoReturn

import flask

from flask_ailimit.current import current_request
from flask_ailimit.engine import AILimitError, Charge, Decision
from flask_ailimit.http.errors import NotAllowed, quota_exceeded
from flask_ailimit.http.responses import parse_retry_count
from flask_ailimit.limits.count_names import without_mark
from flask_ailimit.limits.methods import meets
from flask_ailimit.limits.phase import LimitCharge, RuntimeLimit
from flask_ailimit.limits.unit_limit import UnitCost, is_told
from flask_ailimit.signals import request_refused, tell
from flask_ailimit.tokens import Estimate

from .charges import as_request_limit, at_cost, charges_for
from .estimate import default_output_of
from .ledger import ADDRESS, Ledger
from .which_limits import counted, is_inside_view, resolved_limit

REFUSAL = "flask_ailimit.refusal"
"""The key in the request's ``__dict__`` of the refusal that was raised, for all limiters of the app."""


def refuse(
    ledger: Ledger,
    endpoint: str,
    metas: Sequence[LimitCharge],
    limits: Sequence[LimitCharge],
    decision: Decision,
) -> NoReturn:
    """Raise the refusal of a request that one of its limits refused.

    Raises:
        QuotaExceeded: Always.
    """
    refusing = {id(verdict.charge) for verdict in decision.refused}
    refused_metas = [each for each in metas if id(each.charge) in refusing]
    refused = [each for each in limits if id(each.charge) in refusing]
    if ledger.flask_limiter.only_first_breach:
        refused = refused[:1]
    ledger.limits, ledger.refused = refused_metas[:1] or limits, refused_metas[:1] or refused
    if not is_inside_view(ledger):
        ledger.cancel()
    if refused_metas:
        response = _call_back(ledger, refused_metas[:1], ledger.flask_limiter.on_meta_breach, first_wins=True)
        _raise(ledger, refused_metas[0], response)
    response = _call_back(ledger, refused, ledger.flask_limiter.on_breach)
    _charge_metas(ledger, endpoint, refused)
    _raise(ledger, refused[0], response)


def forbid(ledger: Ledger, limits: Iterable[RuntimeLimit]) -> None:
    """Turn a request away, unless it is exempt from all of these limits of 0.

    Raises:
        NotAllowed: It is not exempt from one of them.
    """
    for limit in limits:
        if limit.exempt_when is None or not limit.is_exempt:
            if not is_inside_view(ledger):
                ledger.cancel()
            raise not_allowed(ledger, limit)


def not_allowed(ledger: Ledger, limit: RuntimeLimit) -> NotAllowed:
    """The error for a limit of 0. It says nothing of a limit of which clients are not told."""
    return NotAllowed(**ledger.answer_facts) if is_told(limit.cost) else NotAllowed("", **ledger.answer_facts)


def _call_back(
    ledger: Ledger, refused: Sequence[LimitCharge], general: object, *, first_wins: bool = False
) -> flask.Response | None:
    """Call ``on_breach`` of the limiter and of each limit. Returns the last response that one of them returned."""
    response = None
    for each in refused:
        request_limit = as_request_limit(ledger, each, breached=True)
        callbacks = [each.limit.on_breach or general] if first_wins else [general, each.limit.on_breach]
        for callback in dict.fromkeys(callbacks):
            if callable(callback):
                try:
                    answer = callback(request_limit)
                except Exception as error:
                    if not ledger.flask_limiter.swallows_errors:
                        raise
                    name = "on_meta_breach" if first_wins else "on_breach"
                    ledger.flask_limiter.logger.exception("%s callback failed with error %s", name, error)  # noqa: TRY401
                else:
                    response = answer if isinstance(answer, flask.Response) else response
    return response


def _charge_metas(ledger: Ledger, endpoint: str, refused: Sequence[LimitCharge]) -> None:
    """Charge a refusal to the meta limits."""
    if ledger.limited_function == ADDRESS:
        return  # The app has not found out yet who sent the request.
    metas = ledger.flask_limiter.metas_of([each.limit for each in refused])
    hit = [resolved_limit(ledger, meta, endpoint) for meta in counted(metas) if meets(meta.methods, flask.request)]
    if not hit:
        return
    try:
        charges = at_cost(ledger, charges_for(ledger, endpoint, hit))
        reservation = ledger.engine.reserve([each.charge for each in charges])
        reservation.settle({})  # It asks nothing of the store, unless a limit may have to be told of.
        ledger.tell_of_passed(reservation.passed)
    except AILimitError as error:
        ledger.flask_limiter.logger.error("A refusal was not counted: %s", error)  # noqa: TRY400  the refusal stands


def _raise(ledger: Ledger, refused: LimitCharge, response: flask.Response | None) -> NoReturn:
    ledger.flask_limiter.logger.info("ratelimit %s (%s) exceeded at endpoint: %s", *in_log(refused.charge))
    assert ledger.decision  # noqa: S101  a refusal has one
    settings = ledger.app_state.settings
    ledger.refusal = current_request().__dict__[REFUSAL] = quota_exceeded(
        refused.limit,
        ledger.decision,
        request_id=ledger.request_id,
        error_format=settings.error_format,
        too_large_status=settings.too_large_status,
        tries=parse_retry_count(flask.request.headers.get("x-stainless-retry-count")),
        response=response,
        estimate=_estimate_under(ledger, ledger.decision),
    )
    tell(request_refused, ledger.app, **ledger.facts)
    raise ledger.refusal


def in_log(charge: Charge) -> tuple[str, str, str]:
    """What a log says of a charge: its limit, the beginning of its subject's hash (never the key), and its scope."""
    quota = charge.quota
    limit = f"{quota.label}: {quota.text}" if quota.label else quota.text
    return limit, charge.subject.hex()[:8], without_mark(charge.scope)


def _estimate_under(ledger: Ledger, decision: Decision) -> Estimate | None:
    """The estimate under the limit that the refusal is about; None if there was none, or only the app's own."""
    about = decision.refused[0].charge
    for each in ledger.limits:
        cost = each.limit.cost
        if each.charge is about and isinstance(cost, UnitCost) and cost.limit.custom_estimate is None:
            return ledger.estimates.get(default_output_of(ledger, cost.limit))
    return None
