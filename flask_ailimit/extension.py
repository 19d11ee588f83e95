"""``AILimiter``: Flask-Limiter's ``Limiter``, deciding over all limits at once, tokens and calls in flight too."""

import inspect
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar, cast
from weakref import WeakKeyDictionary

import flask
import flask_limiter
from flask import Flask, Request, Response
from flask_limiter import Limiter, RequestLimit
from flask_limiter._limits import RuntimeLimit
from flask_limiter.constants import ConfigVars
from werkzeug.exceptions import HTTPException

from .answering import finish
from .applying import prefixed
from .bridge import SCHEME, EngineRateLimiter
from .checking import Marked, require_options
from .client import ClientGone
from .config import NAMES
from .current import current_app, current_request
from .cycle import decide_as_planned, decide_before_dispatch, is_automatic_options, is_switched_on, tab_of
from .decorators import Decorators
from .draining import drain_when_answered
from .engine import ConfigurationError, Decision, Engine, system_clock
from .engine.clock import Clock
from .engine.few_lines import few_lines
from .engine.stores.memory import MemoryStore
from .errors import Carried, LimiterUnavailable, QuotaExceeded, Told
from .evaluation import applicable, evaluate, request_limit, request_limits
from .misconfigured import misconfigured
from .outliving import OutlivingWork, note_of
from .planning import ADDRESS, is_static, plan, plan_address, view_name
from .resolving import Resolved
from .settling import Metering, set_metering, settle_failure
from .state import DEFAULT_URI, State, open_state
from .tab import Tab
from .tokens import Usage
from .watch import client_gone, left, release, watch_until_closed
from .watched_limits import WatchedLimits

_View = TypeVar("_View", bound=Callable[..., Any])

_SEAM = "_Limiter__evaluate_limits"
_EXEMPT = "_Limiter__check_all_limits_exempt"
_HEADERS = "_Limiter__inject_headers"
_UNKNOWN_APP = "This AILimiter doesn't know the app. Call limiter.init_app(app), with it enabled."
_FLASK_LIMITER_S = {*inspect.signature(Limiter).parameters}

if not all(hasattr(Limiter, name) for name in (_SEAM, _EXEMPT, _HEADERS)):
    raise ImportError(
        f"flask_ailimit needs Flask-Limiter 4.1; {flask_limiter.__version__} decides limits in another place. "
        'Run: pip install "flask-limiter>=4.1,<4.2"'
    )


class AILimiter(Decorators):
    """Limits requests, tokens and calls in flight, in one decision over all of them.

    Everything of Flask-Limiter's ``Limiter`` works as documented there, with two differences on purpose: a refused
    request uses up nothing, and an empty key falls into a count of its address in place of passing unlimited.

    Args:
        key_func: Answers who sent the request, such as :func:`flask_ailimit.api_key`.
        app: The app, if it exists already; else call :meth:`init_app`.
        storage_uri: ``local://`` (default: one machine, all workers), ``local:///a/directory`` or ``memory://``
            (one process). ``RATELIMIT_STORAGE_URI`` in the app's config says the same.
        clock: Answers integer microseconds since 1970, for tests.
        **options: Our settings, see :class:`flask_ailimit.config.Settings`, and Flask-Limiter's options.

    Raises:
        ConfigurationError: In ``init_app`` or a decorator: a setting is wrong; the message says the fix.
        StoreError: In ``init_app``: the store can't be used.
    """

    def __init__(
        self,
        key_func: Callable[[], str],
        *,
        app: Flask | None = None,
        storage_uri: str | None = None,
        storage_options: dict[str, Any] | None = None,
        clock: Clock = system_clock,
        **options: Any,
    ) -> None:
        known = {*NAMES, *inspect.signature(AILimiter).parameters, *_FLASK_LIMITER_S} - {"options"}
        with misconfigured():
            if not callable(key_func):
                raise ConfigurationError(
                    f"key_func: a callable is needed, such as api_key. Got {str(key_func)[:80]!r}."
                )
            require_options(options, known)
        self._given = {name: options.pop(name) for name in NAMES if name in options}
        self._clock = clock
        self._states: WeakKeyDictionary[Flask, State] = WeakKeyDictionary()
        self._asked_storage = (storage_uri, storage_options)
        self._switched_on = True
        self._latest: State | None = None
        self._fallback: Engine | None = None
        self._identifies: Callable[[], str] | None = None
        self._tab_name = f"flask_ailimit.tab.{id(self)}"
        super().__init__(key_func, app=None, **options)
        self.logger.addFilter(few_lines)
        self.limit_manager: WatchedLimits = WatchedLimits(self.limit_manager, clock)
        self._marked = self._marked_for_limiting = Marked(self._states)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read the configuration, open the store, and join the app's request cycle. A second call changes nothing."""
        if app in self._states:
            return
        switched_on = self._switched_on
        if app.config.setdefault(ConfigVars.ENABLED, switched_on):
            self._states[app] = self._latest = open_state(self, app, self._given, self._asked_storage, self._clock)
            self._init_flask_limiter(app)
            if self._states[app].address_limits:
                app.before_request_funcs.setdefault(None, []).insert(0, self._check_address)
            decide_before_dispatch(app, self._check_request_limit)
            app.after_request(self._after_request)
            app.teardown_request(self._teardown_request)
            self._marked.look_for_bypassed(app)
        else:
            super().init_app(app)
            self._switched_on = switched_on

    @property
    def enabled(self) -> bool:
        """Whether the current app is limited: ``RATELIMIT_ENABLED`` of that app, unless switched off here for all."""
        return self._switched_on and (not flask.has_app_context() or is_switched_on(current_app()))

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self._switched_on = bool(value)

    def record_usage(self, *, input_tokens: int = 0, output_tokens: int = 0, cached_input_tokens: int = 0) -> None:
        """Say what the current request really used; it goes before what can be read from the answer.

        Several calls add up. In a stream, call it inside :func:`flask.stream_with_context`, at best before the last
        event: what comes after it is charged by itself, until the answer is closed. After that it is not charged, and
        logged.

        Raises:
            ValueError: A number is not an integer from 0 to 2**53 - 1, or more is cached than was put in.
        """
        usage = Usage.checked(input_tokens, output_tokens, cached_input_tokens)
        if self._active and not self.tab.record(usage):
            self.logger.warning(
                "record_usage came after the answer was closed or its work handed over, and was not charged."
            )

    def hand_over(self) -> str:
        """Let work that outlives its answer end this request's reservations: answers a token for :meth:`take_over`.

        The view gives the token to its queue and answers, with 202 for example. Until somebody takes it over, nobody
        renews its leases: a slot comes back when its lease ends, and is taken again when the work begins. A conditional
        limit (``deduct_when``) stays charged.

        Returns:
            Printable ASCII. It holds no key, works for a day, and can't be made up without the limiter's secret.

        Raises:
            StoreError: Nothing was reserved, and the store can't tell the time.
        """
        tab = self.tab
        token = self.engine.hand_over(tab.take(), note_of(tab))
        tab.closed = True
        return token

    def take_over(self, token: str) -> OutlivingWork:
        """Go on with what :meth:`hand_over` handed over, in any process with the same store and secret.

        Needs an app context. Slots are held from now on.

        Raises:
            HandOverError: The token was changed, is another app's, or is more than a day old.
            StoreError: The store can't answer.
        """
        state = self.state
        return OutlivingWork(current_app(), state, self.engine_of(state).take_over(token))

    def metering(self, *, ends_with_body: bool = False, recorded_only: bool = False) -> Callable[[_View], _View]:
        """Say how the answers of a view are to be read, as a decorator below ``@app.route``.

        Args:
            ends_with_body: Only the end of the body ends an answer. Otherwise the last event of a message does
                (``[DONE]``, ``message_stop``, ``response.completed``), and an agent whose answer goes on after it takes
                its slot anew.
            recorded_only: What an answer reports is not believed: it may be text that a model wrote. Usage comes from
                :meth:`record_usage`; without it the text is counted.
        """

        def mark(view: _View) -> _View:
            set_metering(view, Metering(ends_with_body, recorded_only))
            return view

        return mark

    def peek(self, endpoint: str | None = None, subject: str | None = None) -> Decision:
        """What is left of every limit of an endpoint, for the current request's caller; takes nothing.

        Args:
            endpoint: Default: the current request's.
            subject: Ask for this identity in place of the caller's.
        """
        try:
            return self.engine.peek(applicable(self, endpoint or flask.request.endpoint or "", subject))
        except Carried as carried:
            raise carried.answer from carried.__cause__

    def subject(self, key: str) -> bytes:
        """The hash that stands for a key in the store."""
        return self.engine.subject(*prefixed(self, [key]))

    @property
    def request_id(self) -> str:
        """Our id of the current request: on its answer as ``x-request-id``, and in every event about it.

        It is never the client's. Empty where requests are not limited.
        """
        return self.tab.request_id if self._active else ""

    @property
    def client_gone(self) -> ClientGone:
        """Tells the current request's view, and whatever it starts, that the client is gone. See docs/streams.md.

        The client is watched from the first time that somebody asks; a stream's client is in any case. Ask inside the
        request, in a generator inside :func:`flask.stream_with_context`; the answer may be kept.
        """
        return client_gone(current_request())

    @property
    def decision(self) -> Decision | None:
        """The decision over this request's limits; None outside a request or if none applied."""
        return self.tab.decision if flask.has_request_context() and self._active else None

    @property
    def current_limit(self) -> RequestLimit | None:
        """Flask-Limiter's word for the limit that matters most in this request so far."""
        return request_limit(self.current_limits)

    @property
    def current_limits(self) -> list[RequestLimit]:
        """Flask-Limiter's words for the limits that were decided last in this request."""
        return request_limits(self, self.tab) if self._active else []

    @property
    def engine(self) -> Engine:
        """The current app's engine, or the in-memory one while Flask-Limiter's fallback is in use."""
        return self.engine_of(self.state)

    def engine_of(self, state: State) -> Engine:
        """The same, of the app that the state belongs to."""
        return self._fallback if self._storage_dead and self._fallback else state.engine

    @property
    def state(self) -> State:
        """What belongs to the current app; outside one, to the app that was initialised last."""
        state = self._states.get(current_app()) if flask.has_app_context() else self._latest
        if state is None:
            raise RuntimeError(_UNKNOWN_APP)
        return state

    @property
    def tab(self) -> Tab:
        """What the current request owes."""
        tab = tab_of(self, current_request())
        if tab is None:
            raise RuntimeError(_UNKNOWN_APP)
        return tab

    @property
    def decides_alone(self) -> bool:
        """Whether none of Flask-Limiter's own policies for a failing storage was asked for: they come before ours."""
        return not (self._in_memory_fallback_enabled or self._swallow_errors)

    def identify_request(self) -> str:
        """What Flask-Limiter calls the endpoint of the current request."""
        return self.identify(current_request()) if self._active else ""

    def identify(self, request: Request) -> str:
        """The same of a request that is at hand."""
        return request.endpoint or "" if self._identifies is None else self._identifies()

    def passes_unlimited(self, endpoint: str) -> bool:
        """Whether Flask-Limiter lets the current request pass without any limit."""
        return bool(getattr(self, _EXEMPT)(endpoint))

    @property
    def writes_headers(self) -> bool:
        """Whether Flask-Limiter's own headers were asked for (``headers_enabled``)."""
        return bool(self._headers_enabled)

    def note_decided(self, name: str) -> None:
        """The limits of a function were decided with those of one around it: its call that follows is not asked for."""
        tab = tab_of(self, current_request())
        if tab is not None:
            tab.decided |= {name}

    def unavailable(self) -> LimiterUnavailable:
        """The 503 for the current request."""
        return LimiterUnavailable(request_id=self.tab.request_id, error_format=self.state.settings.error_format)

    @property
    def _active(self) -> bool:
        """Whether requests to the current app are limited."""
        return self.initialized and self.enabled

    def _check_address(self) -> None:
        """Decide the limits by address, before anything of the app runs."""
        request = current_request()
        tab = tab_of(self, request)
        if tab is None or not self._active or is_automatic_options(request) or is_static(request.endpoint):
            return
        tab.caller, tab.in_middleware = ADDRESS, True
        try:
            phase = plan_address(self, tab)
            evaluate(self, tab, self.identify(request), phase)
        except (Told, Carried) as error:
            _turn_away(tab, error)

    def _check_request_limit(self, callable_name: str | None = None, in_middleware: bool = True) -> None:
        try:
            if not decide_as_planned(self, callable_name, in_middleware):
                super()._check_request_limit(callable_name or view_name(self) or None, in_middleware)
        except (Told, Carried) as error:
            _turn_away(self.tab, error)

    # Naughty, but the narrowest cut: Flask-Limiter resolves which limits apply, and we decide. The name is that of its
    # private method as Python mangles it; the guard above and its own test suite, run on this class, watch over it.
    def _Limiter__evaluate_limits(self, endpoint: str, limits: list[RuntimeLimit]) -> None:  # noqa: N802
        if self._active:
            tab = self.tab
            try:
                evaluate(self, tab, endpoint, plan(self, tab, endpoint, limits))
            except QuotaExceeded:
                raise
            except HTTPException as answer:
                raise Carried(answer) from answer.__cause__

    def _after_request(self, response: Response) -> Response:
        request = current_request()
        watch_until_closed(request, response)
        tab: Tab | None = request.__dict__.get(self._tab_name)
        if tab is None:
            return response
        tab.waive(response)
        if self.writes_headers:
            response = getattr(self, _HEADERS)(response)
        return finish(self, tab, request, response)

    def _teardown_request(self, error: BaseException | None) -> None:
        request = current_request()
        tab: Tab | None = request.__dict__.get(self._tab_name)
        if tab is not None and not tab.streaming:
            if tab.reservations:
                settle_failure(tab, error, gone=left(request))
            tab.closed = True
        release(request)

    def _init_flask_limiter(self, app: Flask) -> None:
        """Let the base class read its options, with our storage in place of its own."""
        strategy, uri = self._strategy, self._asked_storage[0] or app.config.get(ConfigVars.STORAGE_URI)
        self._strategy = "fixed-window"  # The one that asks nothing of a storage when it is made; replaced below.
        self._storage_uri = f"{SCHEME}://"
        self._storage_options = cast("Any", {"engine_now": lambda: self.engine})
        # It joins no request cycle of an app that it finds itself in: each of its hooks would cost a request something.
        app.extensions.setdefault("limiter", set()).add(self)
        self._identifies = self._request_identifier or app.config.get(ConfigVars.REQUEST_IDENTIFIER)
        super().init_app(app)
        self._strategy, self._storage_uri, self._storage_options = strategy, uri or DEFAULT_URI, {}
        algorithm, debt_periods = self._states[app].algorithm, self._states[app].settings.max_debt_periods
        self._limiter = EngineRateLimiter(
            self.storage, algorithm, lambda: self.engine, lambda: self.decision, debt_periods
        )
        if self._in_memory_fallback_enabled:
            self._fallback = Engine(MemoryStore(self._clock))
            self._fallback_limiter = self._limiter
        self._in_memory_fallback = Resolved(limit.bind(self) for limit in list.copy(self._in_memory_fallback))
        self.limit_manager.changed()


def _turn_away(tab: Tab, error: Told | Carried) -> NoReturn:
    """Send what was raised while limits were decided on to Flask; an answer of ours is remembered."""
    answer = error.answer if isinstance(error, Carried) else error
    drain_when_answered(current_request(), tab.state.settings.max_body_bytes)
    if isinstance(answer, Told):
        tab.turned_away = answer
    raise answer from error.__cause__
