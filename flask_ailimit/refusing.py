"""What follows a refusal: callbacks, meta limits, and the exception that becomes the answer."""

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NoReturn

import flask
from flask_limiter._limits import RuntimeLimit

from .applying import apply, at_cost, told_of
from .current import current_request
from .engine import AILimitError, Decision
from .errors import NotAllowed, quota_exceeded
from .methods import meets
from .planning import ADDRESS, Applied, counted, planned, view_name
from .resolving import all_resolved
from .responses import count_tries
from .signals import request_refused, tell
from .tab import Tab

if TYPE_CHECKING:
    from .extension import AILimiter

REFUSAL = "flask_ailimit.refusal"
"""Where a request's object keeps what was raised, so that all limiters of an app know of it."""


def refuse(
    limiter: "AILimiter",
    tab: Tab,
    endpoint: str,
    metas: Sequence[Applied],
    applied: Sequence[Applied],
    decision: Decision,
) -> NoReturn:
    """Answer a request that one of its limits refused.

    Raises:
        QuotaExceeded: Always.
    """
    allowed = {id(verdict.charge): verdict.allowed for verdict in decision.verdicts}
    # What passes uncounted while the store is away has no verdict.
    refused_metas = [each for each in metas if not allowed.get(id(each.charge), True)]
    refused = [each for each in applied if not allowed.get(id(each.charge), True)]
    if limiter._fail_on_first_breach:
        refused = refused[:1]
    tab.applied, tab.refused = refused_metas[:1] or applied, refused_metas[:1] or refused
    if not _inside_view(limiter, tab):
        tab.cancel()
    if refused_metas:
        response = _call_back(limiter, tab, refused_metas[:1], limiter._on_meta_breach, first_wins=True)
        _raise(limiter, tab, refused_metas[0], response)
    response = _call_back(limiter, tab, refused, limiter._on_breach)
    _hit_metas(limiter, tab, endpoint, refused)
    _raise(limiter, tab, refused[0], response)


def forbid(limiter: "AILimiter", tab: Tab, limits: Iterable[RuntimeLimit]) -> None:
    """Turn a request away that one of these limits of 0 is for.

    Raises:
        NotAllowed: It is not exempt from one of them.
    """
    for limit in limits:
        if limit.exempt_when is None or not limit.is_exempt:
            if not _inside_view(limiter, tab):
                tab.cancel()
            raise not_allowed(limiter)


def not_allowed(limiter: "AILimiter") -> NotAllowed:
    """The 403 for the current request."""
    return NotAllowed(request_id=limiter.tab.request_id, error_format=limiter.state.settings.error_format)


def _inside_view(limiter: "AILimiter", tab: Tab) -> bool:
    """Whether the view has begun: then what it took before stands until the request is answered."""
    return not tab.in_middleware and tab.caller != view_name(limiter)


def _call_back(
    limiter: "AILimiter", tab: Tab, refused: Sequence[Applied], general: object, *, first_wins: bool = False
) -> flask.Response | None:
    """Call ``on_breach`` of the limiter and of each limit; answer the last response that one of them made."""
    response = None
    for each in refused:
        told = told_of(limiter, tab, each, breached=True)
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


def _hit_metas(limiter: "AILimiter", tab: Tab, endpoint: str, refused: Sequence[Applied]) -> None:
    """A refusal counts against the meta limits."""
    if tab.caller == ADDRESS:
        return  # Nobody knows yet who calls.
    metas = [*all_resolved(limiter._meta_limits), *itertools.chain(*(each.limit.meta_limits or () for each in refused))]
    hit = [planned(limiter, meta, endpoint) for meta in counted(metas) if meets(meta.methods, flask.request)]
    if not hit:
        return
    engine = limiter.engine_of(tab.state)
    try:
        engine.reserve([each.charge for each in at_cost(limiter, apply(limiter, tab, engine, endpoint, hit))])
    except AILimitError as error:
        limiter.logger.error("A refusal was not counted: %s", error)  # noqa: TRY400  the refusal stands


def _raise(limiter: "AILimiter", tab: Tab, refused: Applied, response: flask.Response | None) -> NoReturn:
    quota = refused.charge.quota
    subject = refused.charge.subject.hex()[:8]  # Never the key itself.
    limiter.logger.info("ratelimit %s (%s) exceeded at endpoint: %s", quota.text, subject, refused.charge.scope)
    assert tab.decision  # noqa: S101  a refusal has one
    settings = tab.state.settings
    tab.refusal = current_request().__dict__[REFUSAL] = quota_exceeded(
        refused.limit,
        tab.decision,
        request_id=tab.request_id,
        error_format=settings.error_format,
        too_large_status=settings.too_large_status,
        tries=count_tries(flask.request.headers.get("x-stainless-retry-count")),
        response=response,
        estimate=tab.estimate,
    )
    tell(request_refused, tab.app, **tab.facts)
    raise tab.refusal
