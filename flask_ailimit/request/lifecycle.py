"""The steps of a request through the limiter, in the order in which Flask's hooks call them.

docs/decision.md describes the steps. This file calls the other files of the folder, and none of them calls this one.
"""

from collections.abc import Callable, Sequence
from typing import NoReturn

from flask import Flask, Request, Response
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from flask_ailimit.app_state import AppState
from flask_ailimit.current import current_app, current_request
from flask_ailimit.http.errors import LimiterUnavailable, OwnAnswer, PastFlaskLimiter, QuotaExceeded
from flask_ailimit.limits.flask_limiter_access import FlaskLimiterAccess
from flask_ailimit.limits.phase import RuntimeLimit

from .answer import finish
from .client_watch import is_client_gone, release
from .decide import current_charge, decide_phase, refuse_before_model
from .ledger import ADDRESS, Ledger
from .settle import settle_failure
from .unread_body import drain_when_answered
from .which_limits import address_phase, is_static, known_phase, new_phase, selection_now

_DECIDED = "flask_ailimit.decided"


def open_ledger(request: Request, app_state: AppState, flask_limiter: FlaskLimiterAccess) -> Ledger:
    """Make the ledger of a request, when the limiter first sees the request."""
    ledger = request.__dict__[flask_limiter.ledger_key] = Ledger(current_app(), app_state, flask_limiter, request)
    return ledger


def decide_addresses(ledger: Ledger, request: Request) -> None:
    """Decide the limits by address, before any function of the app runs.

    Raises:
        HTTPException: The request is turned away.
    """
    if is_automatic_options(request) or is_static(request.endpoint):
        return
    ledger.limited_function, ledger.before_view = ADDRESS, True
    try:
        decide_phase(ledger, ledger.flask_limiter.endpoint_of(request), address_phase(ledger))
    except (OwnAnswer, PastFlaskLimiter) as error:
        turn_away(ledger, error)


def decide_before_dispatch(app: Flask, decide: Callable[[], None]) -> None:
    """Call ``decide`` after all ``before_request`` functions, whenever they were registered.

    These functions find out who sent the request, and a request that they turn away is charged nothing. Right after
    them Flask calls ``dispatch_request``, and its errors go to the app's error handlers. Several limiters of an app
    decide in the order in which they joined it.
    """
    decided: list[Callable[[], None]] | None = app.extensions.get(_DECIDED)
    if decided is not None:
        decided.append(decide)
        return
    decided = app.extensions[_DECIDED] = [decide]
    dispatch = app.dispatch_request

    def dispatch_request() -> ResponseReturnValue:
        for each in decided:
            each()
        return dispatch()

    app.dispatch_request = dispatch_request  # type: ignore[method-assign]


def decide_known_limits(ledger: Ledger, limited_function: str | None, before_view: bool) -> bool:
    """Decide the limits, if it is known which ones apply. Called before the view and in each decorator.

    Args:
        ledger: What the request owes.
        limited_function: The name of the decorated function; None before the view.
        before_view: Whether this is before the view.

    Returns:
        Whether all is decided. If not, Flask-Limiter must find out which limits apply.

    Raises:
        QuotaExceeded: A limit refused.
        LimiterUnavailable: The store failed and the policy is to refuse.
    """
    request = current_request()
    if is_automatic_options(request):
        return True
    if limited_function in ledger.decided:
        ledger.decided = ledger.decided - {limited_function}
        return True
    ledger.limited_function, ledger.before_view = limited_function, before_view
    if ledger.phase is None:
        return False
    endpoint = ledger.flask_limiter.endpoint_of(request)
    phase = known_phase(ledger, request, endpoint)
    if phase is not None and phase.is_by_plan:
        refuse_before_model(ledger, endpoint, phase)
        phase = phase.next_phases.get(selection_now(ledger).key)
    if phase is None:
        ledger.flask_limiter.note_defaults_decided(ledger.phase.defaults_decided)
        return False
    ledger.phase = phase
    decide_phase(ledger, endpoint, phase)
    return True


def decide_new_limits(ledger: Ledger, endpoint: str, limits: Sequence[RuntimeLimit]) -> None:
    """Decide the limits that Flask-Limiter has found to apply.

    Raises:
        QuotaExceeded: A limit refused.
        PastFlaskLimiter: Carries any other HTTPException, which Flask-Limiter would take for a failing store.
    """
    try:
        decide_phase(ledger, endpoint, new_phase(ledger, endpoint, limits))
    except QuotaExceeded:
        raise
    except HTTPException as answer:
        raise PastFlaskLimiter(answer) from answer.__cause__


def turn_away(ledger: Ledger, error: OwnAnswer | PastFlaskLimiter) -> NoReturn:
    """Raise the error for a request that must not reach the view. The rest of its body is read after the answer."""
    answer = error.answer if isinstance(error, PastFlaskLimiter) else error
    answer = answer or LimiterUnavailable(**ledger.answer_facts)
    drain_when_answered(current_request(), ledger.app_state.settings.max_body_bytes)
    if isinstance(answer, OwnAnswer):
        ledger.turned_away = answer
    raise answer from error.__cause__


def respond(ledger: Ledger, request: Request, response: Response) -> Response:
    """After the view, write the headers, and settle a complete response now and a stream when it ends."""
    ledger.waive(response)
    current = current_charge(ledger) if ledger.flask_limiter.writes_headers else None
    if current is not None and current.charge.quota.in_headers:
        response = ledger.flask_limiter.write_headers(response)
    return finish(ledger, request, response)


def tear_down(ledger: Ledger | None, request: Request, error: BaseException | None) -> None:
    """At the end, settle what is still owed by a request that got no response."""
    if ledger is not None and not ledger.streaming:
        if ledger.reservations:
            settle_failure(ledger, error, gone=is_client_gone(request))
        ledger.closed = True
    release(request)


def is_automatic_options(request: Request) -> bool:
    """Whether Flask answers the request itself: a browser's CORS preflight, neither charged nor refused."""
    return request.method == "OPTIONS" and bool(getattr(request.url_rule, "provide_automatic_options", False))
