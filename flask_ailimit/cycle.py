"""A request's way through the limiter: its tab is opened, and each phase is decided as it was planned before."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from flask import Flask, Request
from flask.typing import ResponseReturnValue
from flask_limiter.constants import ConfigVars

from .current import current_app, current_request
from .evaluation import evaluate
from .planning import Phase, way
from .tab import Tab

if TYPE_CHECKING:
    from .extension import AILimiter


_DECIDED = "flask_ailimit.decided"


def tab_of(limiter: "AILimiter", request: Request) -> Tab | None:
    """What a request owes; None if its app isn't limited."""
    tab: Tab | None = request.__dict__.get(limiter._tab_name)
    if tab is None:
        app = current_app()
        state = limiter._states.get(app)
        if state is not None and limiter.initialized:
            start = limiter.limit_manager.start if limiter.decides_alone else None
            tab = Tab(app, state, start, request)
            request.__dict__[limiter._tab_name] = tab
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
    if is_automatic_options(request):
        return True
    if caller in tab.decided:
        tab.decided = tab.decided - {caller}
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
    return False


def decide_before_dispatch(app: Flask, decide: Callable[[], None]) -> None:
    """Have the limits decided after all ``before_request`` functions, whenever they were registered.

    Whatever knows who calls has run by then, and whoever was turned away there is charged for nothing. Flask calls
    ``dispatch_request`` right after those of the app and of its blueprints, and as part of what its handlers cover.
    Several limiters of an app decide in their order.
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


def is_switched_on(app: Flask) -> bool:
    """Whether ``RATELIMIT_ENABLED`` of the app says so."""
    return bool(app.config.get(ConfigVars.ENABLED, True))


def _known_phase(limiter: "AILimiter", tab: Tab, request: Request, endpoint: str) -> Phase | None:
    """What applies now, if such a request came this way before and no filter lets this one pass."""
    filters = limiter._request_filters
    if tab.phase is None or tab.start is not limiter.limit_manager.start or (filters and any(f() for f in filters)):
        return None
    return tab.phase.later.get(way(tab, request, endpoint))


def is_automatic_options(request: Request) -> bool:
    """Whether Flask answers the request itself. So browsers ask beforehand (CORS): not to be charged or refused."""
    return request.method == "OPTIONS" and bool(getattr(request.url_rule, "provide_automatic_options", False))
