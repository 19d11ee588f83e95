"""The decorators: Flask-Limiter's for requests, checked when they are written, and ours for tokens and calls."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast

import flask
import flask_limiter
from flask import Blueprint, Response
from flask_limiter import ExemptionScope, Limiter

from .checking import require_callables, require_decorator, require_methods, require_policy_if_given
from .engine import ConfigurationError
from .engine.quota import CONCURRENCY, TOKEN_UNITS, TOKENS
from .estimating import token_cost
from .misconfigured import misconfigured
from .state import require_algorithm
from .token_limit import RequestCost, UnitLimit
from .tokens import Usage
from .unlimited import Unlimited
from .wrapping import ViewLimit

if TYPE_CHECKING:
    from .extension import AILimiter

_EXEMPTIONS = ExemptionScope.APPLICATION | ExemptionScope.DEFAULT | ExemptionScope.META
_LEAST_LEASE = 5
_LONGEST_LEASE = 3600


class RequestOptions(TypedDict, total=False):
    """Flask-Limiter's options of a limit on requests, documented there, and our own ``on_store_error``."""

    key_func: Callable[[], str] | None
    per_method: bool
    methods: list[str] | None
    error_message: str | Callable[[], str] | None
    exempt_when: Callable[[], bool] | None
    override_defaults: bool
    deduct_when: Callable[[Response], bool] | None
    on_breach: Callable[[flask_limiter.RequestLimit], Response | None] | None
    cost: int | Callable[[], int]
    meta_limits: Sequence[str | Callable[[], str] | flask_limiter.MetaLimit] | None
    on_store_error: str | None


class ScopedOptions(RequestOptions, total=False):
    """The same, of a limit whose scope is an option."""

    scope: str | Callable[[str], str] | None


class Decorators(Limiter):
    """What a view or blueprint is limited by."""

    @misconfigured()
    def limit(
        self, limit_value: str | Unlimited | Callable[[], str | Unlimited], **options: Unpack[ScopedOptions]
    ) -> flask_limiter.RouteLimit:
        """Limit the requests of a view or blueprint. As Flask-Limiter's, but a wrong limit is refused at once."""
        require_decorator("limit", limit_value, options)
        return self._limit_requests(limit_value, shared=False, **options)

    @misconfigured()
    def shared_limit(
        self,
        limit_value: str | Unlimited | Callable[[], str | Unlimited],
        scope: str | Callable[[str], str],
        **options: Unpack[RequestOptions],
    ) -> flask_limiter.RouteLimit:
        """Limit the requests of several views together. Likewise."""
        require_decorator("shared_limit", limit_value, options)
        return self._limit_requests(limit_value, shared=True, scope=scope, **options)

    if not TYPE_CHECKING:  # Its overloads are Flask-Limiter's.

        def exempt(self, obj: Any = None, *, flags: ExemptionScope = _EXEMPTIONS) -> Any:
            """Exempt a view or blueprint from default, application and meta limits. As Flask-Limiter's."""
            if obj is None:
                return partial(self.exempt, flags=flags)
            if isinstance(obj, Blueprint):
                return super().exempt(obj, flags=flags)
            self.limit_manager.add_route_exemption(self.limit_manager.names.written_on(obj), flags)
            return obj

    def _limit_requests(
        self,
        limit_value: str | Unlimited | Callable[[], str | Unlimited],
        *,
        key_func: Callable[[], str] | None = None,
        override_defaults: bool = True,
        cost: int | Callable[[], int] = 1,
        on_store_error: str | None = None,
        **options: Any,
    ) -> ViewLimit:
        return ViewLimit(
            limit_provider=cast("Any", limit_value),
            limiter=self,
            key_function=key_func or self._key_func,
            override_defaults=override_defaults,
            cost=RequestCost(cost, on_store_error) if on_store_error else cost,
            **options,
        )

    @misconfigured()
    def limit_tokens(
        self,
        limit_value: str | Unlimited | Callable[[], str | Unlimited],
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
        on_store_error: str | None = None,
    ) -> UnitLimit:
        """Limit the tokens of a view or blueprint; also a context manager, as Flask-Limiter's ``limit``.

        Before the view, what the request may use is reserved; after it, what it really used is settled.

        Args:
            limit_value: Such as ``"10000 per minute"``, or a callable that answers one for the current request.
                ``UNLIMITED`` is no limit, and ``"0 per minute"`` allows nothing.
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
            on_store_error: ``local``, ``allow`` or ``deny`` while the store is away; default: the limiter's.

        Raises:
            ConfigurationError: The limit can't be read, or an option is wrong.
        """
        if unit not in TOKEN_UNITS:
            raise ConfigurationError(f"unit: use one of {', '.join(TOKEN_UNITS)}. Got {str(unit)[:40]!r}.")
        require_algorithm("algorithm", algorithm)
        require_methods(methods)
        require_callables(key_func=key_func, exempt_when=exempt_when, on_breach=on_breach)
        require_policy_if_given(on_store_error)
        if estimate is not None and not callable(estimate):
            raise ConfigurationError(
                f"estimate: a callable from the request to tokens is needed. Got {str(estimate)[:80]!r}."
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
            unit=unit,
            algorithm=algorithm,
            burst=burst,
            estimate=lambda quota: token_cost(cast("AILimiter", self), quota, estimate),
            asked=estimate,
            overrides=override_defaults,
            on_store_error=on_store_error,
        )

    @misconfigured()
    def limit_concurrency(
        self,
        limit_value: int | Unlimited | Callable[[], int | Unlimited],
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
        on_store_error: str | None = None,
    ) -> UnitLimit:
        """Limit the calls in flight of a view or blueprint. A stream is in flight until it ends.

        Args:
            limit_value: Calls, 1 to 10,000, or a callable that answers a number for the current request. ``UNLIMITED``
                is no limit, and 0 allows nothing.
            lease: Seconds, 5 to 3,600, after which the slot of a killed process comes back. A living one renews it.
            key_func: Whose calls; default: the limiter's.
            scope: As in :meth:`limit_tokens`, and so the others.
            shared: Leave the view out of the count's name.
            per_method: Count each HTTP method apart.
            methods: Only these HTTP methods.
            error_message: In place of our sentence in the refusal.
            exempt_when: Answers whether the current request is exempt.
            on_breach: Called when this limit refuses.
            on_store_error: As in :meth:`limit_tokens`.

        Raises:
            ConfigurationError: An option is wrong.
        """
        if type(lease) is not int or not _LEAST_LEASE <= lease <= _LONGEST_LEASE:
            raise ConfigurationError(
                f"lease: a whole number of seconds from {_LEAST_LEASE} to {_LONGEST_LEASE} is needed. "
                f"Got {str(lease)[:40]!r}."
            )
        require_methods(methods)
        require_callables(key_func=key_func, exempt_when=exempt_when, on_breach=on_breach)
        require_policy_if_given(on_store_error)
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
            on_store_error=on_store_error,
        )
