"""A request's way through the limiter: its tab is opened, and each phase is decided as it was planned before."""

from typing import TYPE_CHECKING

from flask import Flask, Request
from flask_limiter.constants import ConfigVars

from .current import current_app, current_request
from .evaluation import evaluate
from .planning import Phase, view_name, way
from .tab import Tab

if TYPE_CHECKING:
    from .extension import AILimiter


def tab_of(limiter: "AILimiter", request: Request) -> Tab | None:
    """What a request owes; None if its app isn't limited."""
    tab: Tab | None = request.environ.get(limiter._tab_name)
    if tab is None:
        app = current_app()
        state = limiter._states.get(app)
        if state is not None and limiter.initialized:
            start = limiter.limit_manager.start if limiter.decides_alone else None
            tab = Tab(app, state, start, request.environ.get("HTTP_X_REQUEST_ID"))
            request.environ[limiter._tab_name] = tab
    return tab


def decide_as_planned(limiter: "AILimiter", caller: str | None, in_middleware: bool) -> bool:
    """Decide the phase that begins now, if there is nothing to decide or it is known what applies.

    Answers whether it did. If not, Flask-Limiter is ready to be asked what applies.

    Raises:
        QuotaExceeded: A limit refused.
        LimiterUnavailable: The store can't answer and the policy is to refuse.
    """
    request = current_request()
    tab = tab_of(limiter, request)
    if tab is None or not limiter._switched_on or not is_switched_on(tab.app):
        return False
    if _is_automatic_options(request):
        return True
    tab.caller, tab.in_middleware = caller, in_middleware
    if tab.phase is not None:
        endpoint = limiter.identify(request)
        phase = _known_phase(limiter, tab, request, endpoint)
        if phase is not None:
            tab.phase = phase
            evaluate(limiter, tab, endpoint, phase)
            return True
        limiter.context.seen_limits.update(tab.phase.seen)
    _hint_at(limiter, caller, request)
    return False


def is_switched_on(app: Flask) -> bool:
    """Whether ``RATELIMIT_ENABLED`` of the app says so."""
    return bool(app.config.get(ConfigVars.ENABLED, True))


def _known_phase(limiter: "AILimiter", tab: Tab, request: Request, endpoint: str) -> Phase | None:
    """What applies now, if such a request came this way before and no filter lets this one pass."""
    filters = limiter._request_filters
    if tab.phase is None or tab.start is not limiter.limit_manager.start or (filters and any(f() for f in filters)):
        return None
    return tab.phase.later.get(way(tab, request, endpoint))


def _hint_at(limiter: "AILimiter", caller: str | None, request: Request) -> None:
    """Tell Flask-Limiter of a function that is limited and called inside a view: default limits depend on it."""
    view = view_name()
    if caller and view and view != caller:
        limiter.limit_manager.add_endpoint_hint(limiter.identify(request), caller)


def _is_automatic_options(request: Request) -> bool:
    """Whether Flask answers the request itself. So browsers ask beforehand (CORS): not to be charged or refused."""
    return request.method == "OPTIONS" and bool(getattr(request.url_rule, "provide_automatic_options", False))
