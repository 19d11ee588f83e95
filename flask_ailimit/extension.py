"""``AILimiter``: Flask-Limiter's ``Limiter``, deciding over all limits at once, tokens and calls in flight too."""

from collections.abc import Callable, Sequence
from typing import Any, cast
from weakref import WeakKeyDictionary

import flask
import flask_limiter
from flask import Flask, Response
from flask_limiter import Limiter
from flask_limiter._limits import RuntimeLimit
from flask_limiter.constants import ConfigVars

from .bridge import SCHEME, EngineRateLimiter
from .config import NAMES
from .engine import Decision, Engine, Quota, system_clock
from .engine.clock import Clock
from .engine.quota import CONCURRENCY, TOKEN_UNITS, TOKENS
from .engine.stores.memory import MemoryStore
from .estimating import cost_under, custom_estimate, read_estimate
from .evaluation import applicable, evaluate
from .headers import limit_headers
from .responses import clean_request_id, refusal_headers
from .settling import meter, settle_failure, settle_plain
from .state import DEFAULT_URI, MisconfiguredError, State, open_state, require_algorithm
from .tab import Tab
from .token_limit import UnitLimit
from .tokens import Usage
from .watch import socket_of, watch

_SEAM = "_Limiter__evaluate_limits"
_EXEMPT = "_Limiter__check_all_limits_exempt"
_LEAST_LEASE = 5
_LONGEST_LEASE = 3600

if not all(hasattr(Limiter, name) for name in (_SEAM, _EXEMPT)):
    raise ImportError(
        f"flask_ailimit needs Flask-Limiter 4.1; {flask_limiter.__version__} decides limits in another place. "
        'Run: pip install "flask-limiter>=4.1,<4.2"'
    )


class AILimiter(Limiter):
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
        if not callable(key_func):
            raise MisconfiguredError(f"key_func: a callable is needed, such as api_key. Got {str(key_func)[:80]!r}.")
        self._given = {name: options.pop(name) for name in NAMES if name in options}
        self._clock = clock
        self._states: WeakKeyDictionary[Flask, State] = WeakKeyDictionary()
        self._asked_storage = (storage_uri, dict(storage_options or {}))
        self._fallback: Engine | None = None
        super().__init__(key_func, app=None, **options)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read the configuration, open the store, and join the app's request cycle. A second call changes nothing."""
        if app in self._states:
            return
        if app.config.get(ConfigVars.ENABLED, self.enabled):
            self._states[app] = self._latest = open_state(self, app, self._given, self._asked_storage, self._clock)
            app.after_request(self._after_request)
            app.teardown_request(self._teardown_request)
            self._init_flask_limiter(app)
            # The last one registered runs first: before Flask-Limiter's writes its headers, and that before ours.
            app.after_request(self._waive)
        else:
            super().init_app(app)

    def limit_tokens(
        self,
        limit_value: str | Callable[[], str],
        *,
        unit: str = TOKENS,
        estimate: Callable[[flask.Request], int | Usage] | None = None,
        algorithm: str = "token-bucket",
        burst: int | None = None,
        key_func: Callable[[], str] | None = None,
        scope: str | Callable[[str], str] | None = None,
        shared: bool = False,
        per_method: bool = False,
        methods: list[str] | None = None,
        error_message: str | Callable[[], str] | None = None,
        exempt_when: Callable[[], bool] | None = None,
        override_defaults: bool = True,
        on_breach: Callable[[flask_limiter.RequestLimit], Response | None] | None = None,
    ) -> UnitLimit:
        """Limit the tokens of a view or blueprint; also a context manager, as Flask-Limiter's ``limit``.

        Before the view, what the request may use is reserved; after it, what it really used is settled.

        Args:
            limit_value: Such as ``"10000 per minute"``, or a callable that answers one for the current request.
            unit: ``tokens`` (input and output), ``input_tokens`` or ``output_tokens``.
            estimate: From the request to the tokens to reserve. Default: the input counted from the JSON body, and
                the most output that the body asks for. An estimate never makes a request impossible.
            algorithm: A name in :data:`flask_ailimit.engine.ALGORITHMS`.
            burst: The most that a token bucket hands out at once; default: the limit.
            key_func: Who pays; default: the limiter's.
            scope: Sets counts apart within a view; with ``shared``, names a count that several views share.
            shared: Leave the view out of the count's name.
            per_method: Count each HTTP method apart.
            methods: Only these HTTP methods.
            error_message: In place of our sentence in the refusal.
            exempt_when: Answers whether the current request is exempt.
            override_defaults: Take the place of ``default_token_limits``.
            on_breach: Called when this limit refuses; a response that it answers is sent.

        Raises:
            ConfigurationError: The limit can't be read, or an option is wrong.
        """
        if unit not in TOKEN_UNITS:
            raise MisconfiguredError(f"unit: use one of {', '.join(TOKEN_UNITS)}. Got {str(unit)[:40]!r}.")
        require_algorithm("algorithm", algorithm)
        if estimate is not None and not callable(estimate):
            raise MisconfiguredError(
                f"estimate: a callable from the request to tokens is needed. Got {str(estimate)[:80]!r}."
            )
        return UnitLimit(
            limit_provider=limit_value,
            limiter=self,
            key_function=key_func,
            scope=scope,
            shared=shared,
            per_method=per_method,
            methods=methods,
            error_message=error_message,
            exempt_when=exempt_when,
            on_breach=on_breach,
            unit=unit,
            algorithm=algorithm,
            burst=burst,
            estimate=lambda quota: self._token_cost(quota, estimate),
            overrides=override_defaults,
        )

    def limit_concurrency(
        self,
        limit_value: int | Callable[[], int],
        *,
        lease: int = 60,
        key_func: Callable[[], str] | None = None,
        scope: str | Callable[[str], str] | None = None,
        shared: bool = False,
        per_method: bool = False,
        methods: list[str] | None = None,
        error_message: str | Callable[[], str] | None = None,
        exempt_when: Callable[[], bool] | None = None,
        on_breach: Callable[[flask_limiter.RequestLimit], Response | None] | None = None,
    ) -> UnitLimit:
        """Limit the calls in flight of a view or blueprint. A stream is in flight until it ends.

        Args:
            limit_value: Calls, 1 to 10,000, or a callable that answers a number for the current request.
            lease: Seconds, 5 to 3,600, after which the slot of a killed process comes back. A living one renews it.
            key_func: Whose calls; default: the limiter's.
            scope: As in :meth:`limit_tokens`, and so the others.
            shared: Leave the view out of the count's name.
            per_method: Count each HTTP method apart.
            methods: Only these HTTP methods.
            error_message: In place of our sentence in the refusal.
            exempt_when: Answers whether the current request is exempt.
            on_breach: Called when this limit refuses.

        Raises:
            ConfigurationError: An option is wrong.
        """
        if type(lease) is not int or not _LEAST_LEASE <= lease <= _LONGEST_LEASE:
            raise MisconfiguredError(
                f"lease: a whole number of seconds from {_LEAST_LEASE} to {_LONGEST_LEASE} is needed. "
                f"Got {str(lease)[:40]!r}."
            )
        return UnitLimit(
            limit_provider=cast("Any", limit_value),
            limiter=self,
            key_function=key_func,
            scope=scope,
            shared=shared,
            per_method=per_method,
            methods=methods,
            error_message=error_message,
            exempt_when=exempt_when,
            on_breach=on_breach,
            unit=CONCURRENCY,
            algorithm=CONCURRENCY,
            lease=lease,
            estimate=lambda _: 1,
        )

    def record_usage(self, *, input_tokens: int = 0, output_tokens: int = 0, cached_input_tokens: int = 0) -> None:
        """Say what the current request really used; it goes before what can be read from the answer.

        Several calls add up. In a stream, call it before the last event, inside
        :func:`flask.stream_with_context`.

        Raises:
            ValueError: A number is not an integer from 0 to 2**53 - 1, or more is cached than was put in.
        """
        self.tab.record(Usage.checked(input_tokens, output_tokens, cached_input_tokens))

    def peek(self, endpoint: str | None = None, subject: str | None = None) -> Decision:
        """What is left of every limit of an endpoint, for the current request's caller; takes nothing.

        Args:
            endpoint: Default: the current request's.
            subject: Ask for this identity in place of the caller's.
        """
        return self.engine.peek(applicable(self, endpoint or flask.request.endpoint or "", subject))

    def subject(self, key: str) -> bytes:
        """The hash that stands for a key in the store."""
        return self.engine.subject(*([self._key_prefix] if self._key_prefix else []), key)

    @property
    def decision(self) -> Decision | None:
        """The decision over this request's limits; None outside a request or if none applied."""
        return self.tab.decision if flask.has_request_context() else None

    @property
    def engine(self) -> Engine:
        """The current app's engine, or the in-memory one while Flask-Limiter's fallback is in use."""
        return self._fallback if self._storage_dead and self._fallback else self.state.engine

    @property
    def state(self) -> State:
        """What belongs to the current app; outside one, to the app that was initialised last."""
        if not flask.has_app_context():
            return self._latest
        return self._states[_current_app()]

    @property
    def tab(self) -> Tab:
        """What the current request owes."""
        name = f"flask_ailimit.tab.{id(self)}"
        environ = flask.request.environ
        if name not in environ:
            request_id = clean_request_id(flask.request.headers.get("X-Request-Id"))
            environ[name] = Tab(_current_app(), request_id, self.state.settings.count_cached_tokens)
        return cast("Tab", environ[name])

    def passes_unlimited(self, endpoint: str) -> bool:
        """Whether Flask-Limiter lets the current request pass without any limit."""
        return bool(getattr(self, _EXEMPT)(endpoint))

    def _check_request_limit(self, callable_name: str | None = None, in_middleware: bool = True) -> None:
        if self.initialized and self.enabled:
            self.tab.caller, self.tab.in_middleware = callable_name, in_middleware
        super()._check_request_limit(callable_name, in_middleware)

    # Naughty, but the narrowest cut: Flask-Limiter resolves which limits apply, and we decide. The name is that of its
    # private method as Python mangles it; the guard above and its own test suite, run on this class, watch over it.
    def _Limiter__evaluate_limits(self, endpoint: str, limits: list[RuntimeLimit]) -> None:  # noqa: N802
        if self.initialized and self.enabled:
            evaluate(self, endpoint, limits)

    def _token_cost(self, quota: Quota, estimate: Callable[[flask.Request], int | Usage] | None) -> int:
        request, tab, state = flask.request, self.tab, self.state
        if estimate is not None:
            cost = custom_estimate(estimate, request, quota)
            if cost is not None:
                return cost
        if tab.estimate is None:
            tab.estimate = read_estimate(request, state.settings, state.counter)
        return cost_under(tab.estimate, quota)

    def _waive(self, response: Response) -> Response:
        self.tab.waive(response)
        return response

    def _after_request(self, response: Response) -> Response:
        tab = self.tab
        if tab.decision is None:
            return response
        for name, value in limit_headers(tab.decision, self._dialects):
            response.headers[name] = value
        refusal = tab.refusal
        if refusal is not None and response.status_code == refusal.code:
            tab.cancel()
            for name, value in refusal_headers(refusal.decision, refusal.request_id):
                response.headers[name] = value
            return response
        if response.is_streamed and not response.direct_passthrough:
            stream = meter(tab, response, self.state.counter)
            client = socket_of(flask.request.environ)
            if client is not None:
                watch(stream, client, self.state.settings.write_timeout)
        else:
            settle_plain(tab, response, self.state.counter)
        return response

    @property
    def _dialects(self) -> Sequence[str]:
        """The dialects to write; who asks for Flask-Limiter's own headers gets those in place of ours of that name."""
        return [name for name in self.state.settings.headers if name != "x-ratelimit" or not self._headers_enabled]

    def _teardown_request(self, error: BaseException | None) -> None:
        tab = self.tab
        if tab.reservations and not tab.streaming:
            settle_failure(tab, error)

    def _init_flask_limiter(self, app: Flask) -> None:
        """Let the base class read its options, with our storage in place of its own."""
        strategy, uri = self._strategy, self._asked_storage[0] or app.config.get(ConfigVars.STORAGE_URI)
        self._strategy = "fixed-window"  # The one that asks nothing of a storage when it is made; replaced below.
        self._storage_uri = f"{SCHEME}://"
        self._storage_options = cast("Any", {"engine_now": lambda: self.engine})
        super().init_app(app)
        self._strategy, self._storage_uri, self._storage_options = strategy, uri or DEFAULT_URI, {}
        algorithm = self._states[app].algorithm
        self._limiter = EngineRateLimiter(self.storage, algorithm, lambda: self.engine, lambda: self.decision)
        if self._in_memory_fallback_enabled:
            self._fallback = Engine(MemoryStore(self._clock))
            self._fallback_limiter = self._limiter


def _current_app() -> Flask:
    """The app itself, for which ``flask.current_app`` is only a proxy."""
    return cast("Flask", cast("Any", flask.current_app)._get_current_object())
