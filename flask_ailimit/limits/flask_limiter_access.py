"""Access to Flask-Limiter's ``Limiter`` for the rest of the package. Only this folder uses its private names."""

import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, cast

import flask_limiter
from flask import Flask, Request, Response
from flask_limiter import Limit, Limiter, RequestLimit
from flask_limiter._limits import RuntimeLimit
from flask_limiter.constants import ConfigVars

from flask_ailimit.engine import Clock, Decision, Engine
from flask_ailimit.engine.stores.memory import MemoryStore

from .phase import LimitCharge
from .rate_limiter import SCHEME, EngineRateLimiter
from .registry import LimitRegistry, ResolvedInTurn

if TYPE_CHECKING:
    from .plans.caller import Caller

EVALUATE = "_Limiter__evaluate_limits"
"""The name that Python gives Flask-Limiter's private method that decides. AILimiter replaces the method."""

_EXEMPT = "_Limiter__check_all_limits_exempt"
_HEADERS = "_Limiter__inject_headers"

if not all(hasattr(Limiter, name) for name in (EVALUATE, _EXEMPT, _HEADERS)):
    raise ImportError(
        f"flask_ailimit needs Flask-Limiter 4.1; {flask_limiter.__version__} decides limits in another place. "
        'Run: pip install "flask-limiter>=4.1,<4.2"'
    )


class FlaskLimiterAccess:
    """The Flask-Limiter part of one limiter.

    Options are read at each access, because Flask-Limiter lets the app change them.

    Args:
        limiter: The limiter.
        registry: Its limits.

    Attributes:
        registry: Its limits.
        ledger_key: The key of this limiter's ledger in a request's ``__dict__``.
        fallback: The engine in memory that Flask-Limiter's ``in_memory_fallback`` asks for; else None.
        identify: The app's function that names a request's payers; None without one.
        payer_key: The key function that names the one payer without it; None for the client's address.
    """

    def __init__(self, limiter: Limiter, registry: LimitRegistry) -> None:
        self.registry = registry
        self.ledger_key = f"flask_ailimit.ledger.{id(limiter)}"
        self.fallback: Engine | None = None
        self.identify: Callable[[], Caller | None] | None = None
        self.payer_key: Callable[[], str] | None = None
        self._limiter = limiter
        self._identifier: Callable[..., str] | None = None

    def join(
        self,
        app: Flask,
        init_app: Callable[[Flask], None],
        *,
        uri: str,
        engine_now: Callable[[], Engine],
        decision_now: Callable[[], Decision | None],
        algorithm: str,
        debt_periods: int,
        clock: Clock,
    ) -> None:
        """Let Flask-Limiter read its options from the app, and replace its storage and strategy by ours.

        Args:
            app: The app.
            init_app: Flask-Limiter's ``init_app``.
            uri: The store's address, as Flask-Limiter's commands show it.
            engine_now: Returns the current app's engine.
            decision_now: Returns the current request's decision.
            algorithm: The algorithm of limits on requests.
            debt_periods: The most periods that a count may owe.
            clock: Returns integer microseconds.
        """
        limiter = self._limiter
        strategy = limiter._strategy
        limiter._strategy = "fixed-window"  # It needs nothing from the storage when it is made. It is replaced below.
        limiter._storage_uri = f"{SCHEME}://"
        limiter._storage_options = cast("Any", {"engine_now": engine_now})
        # Flask-Limiter registers no hooks in an app that has this limiter already. Its hooks would slow each request.
        app.extensions.setdefault("limiter", set()).add(limiter)
        self._identifier = limiter._request_identifier or app.config.get(ConfigVars.REQUEST_IDENTIFIER)
        init_app(app)
        limiter._strategy, limiter._storage_uri, limiter._storage_options = strategy, uri, {}
        limiter._limiter = EngineRateLimiter(limiter.storage, algorithm, engine_now, decision_now, debt_periods)
        if limiter._in_memory_fallback_enabled:
            self.fallback = Engine(MemoryStore(clock))
            limiter._fallback_limiter = limiter._limiter
        fallback = [limit.bind(limiter) for limit in list.copy(limiter._in_memory_fallback)]
        limiter._in_memory_fallback = ResolvedInTurn(fallback, self.registry)
        self.registry.changed()

    def endpoint_of(self, request: Request) -> str:
        """Flask-Limiter's name of the current request's endpoint."""
        return request.endpoint or "" if self._identifier is None else self._identifier()

    def with_registry(self, registry: LimitRegistry) -> "FlaskLimiterAccess":
        """The same with other limits."""
        other = copy(self)
        other.registry = registry
        return other

    @property
    def request_identifier(self) -> Callable[..., str] | None:
        """Flask-Limiter's option: the app's function that names a request's endpoint in counts; None without one."""
        return self._identifier

    @property
    def key_func(self) -> Callable[[], str]:
        """The limiter's own key function."""
        return self._limiter._key_func

    @property
    def logger(self) -> logging.Logger:
        """The limiter's logger, which the app may replace."""
        return self._limiter.logger

    @property
    def strategy(self) -> str | None:
        """The ``strategy`` that the limiter was made with; None if the app's config says it."""
        return self._limiter._strategy

    @property
    def fallback_in_use(self) -> Engine | None:
        """The engine in memory, while Flask-Limiter considers the store dead; else None."""
        return self.fallback if self._limiter._storage_dead else None

    @property
    def handles_store_errors(self) -> bool:
        """Whether ``on_store_error`` holds. If the app set a policy of Flask-Limiter, that holds instead."""
        return not (self._limiter._in_memory_fallback_enabled or self._limiter._swallow_errors)

    def options_for_errors(self, app: Flask) -> list[str]:
        """Flask-Limiter's options that will hold in place of ``on_store_error`` once the app has joined."""
        limiter = self._limiter
        given = {
            ConfigVars.SWALLOW_ERRORS: limiter._swallow_errors,
            ConfigVars.IN_MEMORY_FALLBACK_ENABLED: limiter._in_memory_fallback_enabled,
            ConfigVars.IN_MEMORY_FALLBACK: limiter._in_memory_fallback,
        }
        return [key for key, value in given.items() if value or (value is not False and app.config.get(key))]

    @property
    def key_prefix(self) -> str:
        """Separates this limiter's counts from those of others; "" if there is none."""
        return self._limiter._key_prefix

    @property
    def meta_limits(self) -> Sequence[Limit]:
        """The limits on refusals of every route."""
        return self._limiter._meta_limits

    def metas_of(self, limits: Sequence[RuntimeLimit]) -> list[RuntimeLimit]:
        """The limits on refusals that belong to these limits: those of every route, and their own."""
        own = itertools.chain(*(limit.meta_limits or () for limit in limits))
        return [*self.registry.resolved(self.meta_limits), *own]

    @property
    def request_filters(self) -> list[Callable[[], bool]]:
        """Functions that exempt a request from all limits, if one returns True."""
        return self._limiter._request_filters

    @property
    def on_breach(self) -> object:
        """The callback for every refusal; None if there is none."""
        return self._limiter._on_breach

    @property
    def on_meta_breach(self) -> object:
        """The callback for every refusal of a meta limit; None if there is none."""
        return self._limiter._on_meta_breach

    @property
    def only_first_breach(self) -> bool:
        """Whether only the first of several limits that refuse calls its callback and charges its meta limits."""
        return bool(self._limiter._fail_on_first_breach)

    @property
    def swallows_errors(self) -> bool:
        """Whether an error of a callback is only logged."""
        return bool(self._limiter._swallow_errors)

    @property
    def writes_headers(self) -> bool:
        """Whether the app enabled Flask-Limiter's own headers (``headers_enabled``)."""
        return bool(self._limiter._headers_enabled)

    def write_headers(self, response: Response) -> Response:
        """Let Flask-Limiter write its own headers."""
        written: Response = getattr(self._limiter, _HEADERS)(response)
        return written

    def passes_unlimited(self, endpoint: str) -> bool:
        """Whether Flask-Limiter exempts the current request from all limits."""
        return bool(getattr(self._limiter, _EXEMPT)(endpoint))

    def asks_itself(self, name: str) -> bool:
        """Whether a function is decorated, so that its wrapper decides its limits when it is called."""
        return name in self._limiter._marked_for_limiting

    @property
    def defaults_decided(self) -> Iterable[RuntimeLimit]:
        """The default limits that are decided already for the current request."""
        return self._limiter.context.seen_limits

    def note_defaults_decided(self, limits: Sequence[RuntimeLimit]) -> None:
        """Tell Flask-Limiter that these default limits are decided already for the current request."""
        self._limiter.context.seen_limits.update(limits)

    def as_request_limit(self, charged: LimitCharge, identity: list[str], *, breached: bool) -> RequestLimit:
        """The charge's limit as Flask-Limiter's ``RequestLimit``, which names a count by identity and scope."""
        limit = charged.limit
        return RequestLimit(self._limiter, limit.limit, [*identity, charged.charge.scope], breached, limit.shared)
