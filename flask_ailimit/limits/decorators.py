"""The decorators: Flask-Limiter's for requests, with checks, and ours for tokens and calls in flight."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast

import flask
import flask_limiter
from flask import Blueprint, Response
from flask_limiter import ExemptionScope, Limiter

from flask_ailimit.config import require_output_tokens
from flask_ailimit.engine import Calendar, ConfigurationError, parse_quotas
from flask_ailimit.engine.limit_text import unit_of_money
from flask_ailimit.engine.quota import CONCURRENCY, TOKEN_UNITS, TOKENS, is_money, require_own_unit
from flask_ailimit.money import Weights, unit_of
from flask_ailimit.money.unknown import REFUSE, read_unknown_price
from flask_ailimit.tokens import Usage
from flask_ailimit.unlimited import Unlimited

from .checks import (
    require_algorithm,
    require_callables,
    require_cost_or_callable,
    require_decorator,
    require_enforced_percent,
    require_lease,
    require_methods,
    require_policy_if_given,
    require_scope,
    require_told,
)
from .misconfigured import misconfigured
from .plans.by_plan import LimitByPlan
from .plans.plan import ALL_PAYERS
from .registry import EXEMPTIONS as _EXEMPTIONS
from .unit_limit import RequestCost, UnitLimit
from .view_limit import ViewLimit


class RequestOptions(TypedDict, total=False):
    """The options of a limit on requests: Flask-Limiter's, documented there, and five more of :class:`UnitOptions`."""

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
    name: str | None
    in_headers: bool
    enforced_percent: int
    soft_percent: int | None
    calendar: Calendar | Mapping[str, Any] | None


class ScopedOptions(RequestOptions, total=False):
    """The same with ``scope``, which :meth:`Decorators.limit` takes as an option."""

    scope: str | Callable[[str], str] | None


class UnitOptions(TypedDict, total=False):
    """The common options of limits on tokens, on calls in flight and on units of the app's own.

    Attributes:
        key_func: Returns the key of the subject; default: the limiter's.
        scope: Separates counts within a view; with ``shared``, names a count that several views share.
        shared: Leave the view out of the count's name.
        per_method: Count each HTTP method separately.
        methods: Limit only these HTTP methods.
        error_message: Replaces our sentence in the refusal.
        exempt_when: Returns whether the current request is exempt.
        on_breach: Called when this limit refuses. If it returns a response, that is sent.
        on_store_error: ``local``, ``allow`` or ``deny`` while the store is away; default: the limiter's.
        name: What headers, refusals and events call the limit, 1 to 64 of ``A-Za-z0-9_.-``; default: made of unit and
            period, such as ``tokens-per-minute``. It doesn't change what is counted together. If a text has several
            limits, each is called by the name and its period, such as ``plan-per-day``.
        in_headers: With False, clients are not told of the limit: it is in no header, and its refusal says only when to
            come back.
        enforced_percent: The part of the subjects for whom the limit holds, 0 to 100; default: 100. It is always the
            same ones: a hash of subject and ``name`` says who. On the others the limit is only tried: it decides and
            counts, refuses nothing, and overrides no other limit.
        soft_percent: 1 to 100: once this part of the limit (or burst) is used, the answers say so, and
            :data:`flask_ailimit.signals.soft_limit_passed` is sent once a window; 0 for never. Default: the limiter's.
            A limit on calls in flight has none.
        calendar: The calendar of windows such as ``per calendar day``: a :class:`flask_ailimit.engine.Calendar`, or a
            dictionary such as ``{"zone": "Europe/Berlin"}``; default: the setting. A limit on calls in flight has none.
    """

    key_func: Callable[[], str] | None
    scope: str | Callable[[str], str] | None
    shared: bool
    per_method: bool
    methods: list[str] | None
    error_message: str | Callable[[], str] | None
    exempt_when: Callable[[], bool] | None
    on_breach: Callable[[flask_limiter.RequestLimit], Response | None] | None
    on_store_error: str | None
    name: str | None
    in_headers: bool
    enforced_percent: int
    soft_percent: int | None
    calendar: Calendar | Mapping[str, Any] | None


class Decorators(Limiter):
    """The decorators for views and blueprints."""

    @misconfigured()
    def limit(
        self, limit_value: str | Unlimited | Callable[[], str | Unlimited], **options: Unpack[ScopedOptions]
    ) -> flask_limiter.RouteLimit:
        """Limit the requests of a view or blueprint. Like Flask-Limiter's, but a wrong limit raises at once."""
        _require_options("limit has", options, ScopedOptions)
        require_decorator("limit", limit_value, options)
        return self._limit_requests(limit_value, shared=False, **options)

    @misconfigured()
    def shared_limit(
        self,
        limit_value: str | Unlimited | Callable[[], str | Unlimited],
        scope: str | Callable[[str], str],
        **options: Unpack[RequestOptions],
    ) -> flask_limiter.RouteLimit:
        """Limit the requests of several views together. Like Flask-Limiter's, but a wrong limit raises at once."""
        _require_options("shared_limit has", options, RequestOptions)
        require_decorator("shared_limit", limit_value, {**options, "scope": scope})
        return self._limit_requests(limit_value, shared=True, scope=scope, **options)

    if not TYPE_CHECKING:  # Its overloads are Flask-Limiter's.

        def exempt(self, obj: Any = None, *, flags: ExemptionScope = _EXEMPTIONS) -> Any:
            """Exempt a view or blueprint from default, application and meta limits, like Flask-Limiter's."""
            if obj is None:
                return partial(self.exempt, flags=flags)
            if isinstance(obj, Blueprint):
                return super().exempt(obj, flags=flags)
            self.limit_manager.add_route_exemption(self.limit_manager.names.name_or_new(obj), flags)
            return obj

    def _limit_requests(
        self,
        limit_value: str | Unlimited | Callable[[], str | Unlimited],
        *,
        key_func: Callable[[], str] | None = None,
        override_defaults: bool = True,
        cost: int | Callable[[], int] = 1,
        on_store_error: str | None = None,
        name: str | None = None,
        in_headers: bool = True,
        enforced_percent: int = ALL_PAYERS,
        soft_percent: int | None = None,
        calendar: object = None,
        **options: Any,
    ) -> ViewLimit:
        days = None if calendar is None else Calendar.of(calendar)
        own = RequestCost(cost or 1, on_store_error, name or "", in_headers, enforced_percent, soft_percent, days)
        is_plain = own == RequestCost(cost or 1)
        return ViewLimit(
            limit_provider=cast("Any", limit_value),
            limiter=self,
            key_function=key_func or self._key_func,
            override_defaults=override_defaults and enforced_percent == ALL_PAYERS,
            cost=cost if is_plain else own,
            **options,
        )

    @misconfigured()
    def limit_tokens(
        self,
        limit_value: str | Unlimited | Callable[[], str | Unlimited],
        *,
        unit: str = TOKENS,
        estimate: Callable[[flask.Request], int | Usage] | None = None,
        algorithm: str | None = None,
        burst: int | None = None,
        weights: Weights | Mapping[str, float] | None = None,
        default_output_tokens: int | None = None,
        override_defaults: bool = True,
        **options: Unpack[UnitOptions],
    ) -> UnitLimit:
        """Limit the tokens of a view or blueprint; also a context manager, like Flask-Limiter's ``limit``.

        Before the view, the tokens that the request may use are reserved. After it, the tokens it really used are
        settled.

        Args:
            limit_value: Such as ``"10000 per minute"``, ``"2000000 per calendar day"`` or ``"50000 per session of 5
                hours"``, or a callable that returns one for the current request. ``UNLIMITED`` is no limit, and
                ``"0 per minute"`` allows nothing.
            unit: ``tokens`` (input and output), ``input_tokens`` or ``output_tokens``.
            estimate: Takes the request and returns the tokens to reserve. More than the burst is lowered to it, so that
                the request can pass. Default: the input counted from the body, and the most output it asks for.
            algorithm: A name in :data:`flask_ailimit.engine.ALGORITHMS`; default: ``token-bucket``, and ``window`` for
                windows of a calendar or of a session, which no other algorithm has.
            burst: The most that a token bucket gives at once, 1 or more; default: the limit.
            weights: How much each kind of token counts for, such as ``{"cached_input_tokens": 0.1}``; of 0.1 ten count
                as one. Default: each counts as one.
            default_output_tokens: Output tokens, 0 to 2**31, to reserve for a request that names no maximum. Default:
                that of :meth:`flask_ailimit.AILimiter.metering` for the view, else the setting. Use 0 for embeddings.
            override_defaults: Whether this limit replaces ``default_token_limits``.
            **options: See :class:`UnitOptions`.

        Raises:
            ConfigurationError: The limit can't be read, or an option is wrong.
        """
        if unit not in TOKEN_UNITS:
            raise ConfigurationError(f"unit: use one of {', '.join(TOKEN_UNITS)}. Got {str(unit)[:40]!r}.")
        if default_output_tokens is not None:
            require_output_tokens(default_output_tokens)
        if estimate is not None and not callable(estimate):
            raise ConfigurationError(
                f"estimate: a callable from the request to tokens is needed. Got {str(estimate)[:80]!r}."
            )
        return self._limit_units(
            limit_value,
            options,
            unit=unit,
            algorithm=algorithm,
            burst=burst,
            weights=None if weights is None else _weights_of(weights),
            custom_estimate=estimate,
            default_output_tokens=default_output_tokens,
            overrides=override_defaults,
        )

    @misconfigured()
    def limit_units(
        self,
        unit: str,
        limit_value: str | Unlimited | Callable[[], str | Unlimited],
        *,
        cost: int | Callable[[], int] = 1,
        algorithm: str | None = None,
        burst: int | None = None,
        **options: Unpack[UnitOptions],
    ) -> UnitLimit:
        """Limit a unit of the app's own, such as pages, images or seconds of audio.

        Before the view, ``cost`` units are reserved. After it, what
        :meth:`record_usage(units={"pages": 3}) <flask_ailimit.AILimiter.record_usage>` recorded is charged. Without a
        record, what was reserved stays charged, and if the view raised, or answered with a status of 300 or more,
        nothing is charged.

        Args:
            unit: 1 to 32 lower case letters, digits and underscores, such as ``"pages"``.
            limit_value: Such as ``"100 per day"``, or a callable that returns one for the current request.
                ``UNLIMITED`` is no limit, and ``"0 per day"`` allows nothing.
            cost: Units to reserve for a request, 0 to 2**53 - 1, or a callable that returns them for the current
                request. With 0 a request is refused only if more was used than the limit.
            algorithm: A name in :data:`flask_ailimit.engine.ALGORITHMS`; default: as for :meth:`limit_tokens`.
            burst: The most that a token bucket gives at once, 1 or more; default: the limit.
            **options: See :class:`UnitOptions`.

        Raises:
            ConfigurationError: The limit can't be read, or an option is wrong.
        """
        require_own_unit(unit)
        require_cost_or_callable(cost)
        return self._limit_units(limit_value, options, unit=unit, algorithm=algorithm, burst=burst, cost=cost)

    @misconfigured()
    def limit_budget(
        self,
        limit_value: str | Unlimited | Callable[[], str | Unlimited],
        *,
        currency: str | None = None,
        unknown_price: str | Mapping[str, str] = REFUSE,
        **options: Unpack[UnitOptions],
    ) -> UnitLimit:
        """Limit the money that the calls of a view or blueprint cost.

        Before the view, the most that the request may cost is reserved. After it, what it really cost is settled. The
        prices are those of the setting ``prices``, or of the plan file.

        Args:
            limit_value: Such as ``"50 USD per calendar month"``, ``"5 USD per day"``, ``"5 USD per session of 5
                hours"``, or ``"10 USD"`` for a balance that is never filled again; or a callable that returns one for
                the current request. ``UNLIMITED`` is no limit.
            currency: Three capital letters. A callable needs it, because what it returns is in this currency; a text
                says it itself.
            unknown_price: What becomes of a request whose model has no price: ``refuse``; ``free``, it costs nothing;
                or ``{"price_as": "large-1"}``, it costs what this model costs.
            **options: See :class:`UnitOptions`.

        Raises:
            ConfigurationError: The limit can't be read, or an option is wrong.
        """
        if currency is None and not isinstance(limit_value, str):
            raise ConfigurationError("currency: only a text says its currency itself. Give it, such as currency='USD'.")
        unit = unit_of_money(limit_value) if currency is None else unit_of(currency)
        limit = self._limit_units(limit_value, options, unit=unit, unknown_price=read_unknown_price(unknown_price))
        self._require_prices(limit)
        return limit

    def _require_prices(self, limit: UnitLimit) -> None:
        """Check that a budget has a price in each app that there is already.

        Raises:
            ConfigurationError: It has none.
        """
        raise NotImplementedError

    @misconfigured()
    def limit_concurrency(
        self,
        limit_value: int | Unlimited | Callable[[], int | Unlimited],
        *,
        lease: int = 60,
        **options: Unpack[UnitOptions],
    ) -> UnitLimit:
        """Limit the calls in flight of a view or blueprint. A stream is in flight until it ends.

        Args:
            limit_value: Calls, 1 to 10,000, or a callable that returns a number for the current request. ``UNLIMITED``
                is no limit, and 0 allows nothing.
            lease: Seconds, 5 to 3,600, after which the slot of a killed process is free. Running processes renew it.
            **options: See :class:`UnitOptions`.

        Raises:
            ConfigurationError: An option is wrong.
        """
        require_lease(lease)
        return self._limit_units(limit_value, options, unit=CONCURRENCY, algorithm=CONCURRENCY, lease=lease)

    def limit_by_plan(self) -> LimitByPlan:
        """Limit a view or a blueprint by the plans of its requests' payers; see docs/plans.md.

        Limits of plans stand beside all others, in the same decision, and override none. All routes that are limited by
        plan share their counts.
        """
        return LimitByPlan(self)

    def _limit_units(self, limit_value: object, options: Mapping[str, Any], **own: Any) -> UnitLimit:
        _require_options(_limits_on(own["unit"]), options, UnitOptions)
        if options.get("shared") and not options.get("scope"):
            raise ConfigurationError("shared: name the count that the views share, such as scope='chat'.")
        common: dict[str, Any] = {**options}
        if own["unit"] != CONCURRENCY and not is_money(own["unit"]):
            if own["algorithm"] is not None:
                require_algorithm("algorithm", own["algorithm"])
            # A burst is checked here too, because a callable limit is not known before the first request.
            parse_quotas("1 per second", unit=own["unit"], algorithm=own["algorithm"], burst=own["burst"])
        if common.get("calendar") is not None:
            if own["unit"] == CONCURRENCY:
                raise ConfigurationError("calendar: a limit on calls in flight has no windows. Leave it out.")
            common["calendar"] = Calendar.of(common["calendar"])
        require_scope(common.get("scope"))
        require_told(common.get("name"), common.get("in_headers", True), common.get("soft_percent"), own["unit"])
        require_enforced_percent(common.get("enforced_percent", ALL_PAYERS))
        own["overrides"] = own.get("overrides", True) and common.get("enforced_percent", ALL_PAYERS) == ALL_PAYERS
        common["label"] = common.pop("name", None) or ""
        key_func = common.pop("key_func", None)
        require_methods(common.get("methods"))
        require_callables(key_func=key_func, exempt_when=common.get("exempt_when"), on_breach=common.get("on_breach"))
        require_policy_if_given(common.get("on_store_error"))
        return UnitLimit(limit_provider=cast("Any", limit_value), limiter=self, key_function=key_func, **own, **common)


def _weights_of(given: Weights | Mapping[str, float]) -> Weights:
    return given if isinstance(given, Weights) else Weights.of(given)


def _limits_on(unit: str) -> str:
    """What errors about its options call a limit on a unit."""
    if is_money(unit):
        return "budgets have"
    in_words = {CONCURRENCY: "calls in flight", **dict.fromkeys(TOKEN_UNITS, "tokens")}
    return f"limits on {in_words.get(unit, 'units of your own')} have"


def _require_options(what: str, options: Mapping[str, Any], known: type[Any]) -> None:
    """Check that a decorator has all of these options.

    Raises:
        TypeError: It has not.
    """
    for name in options.keys() - known.__annotations__.keys():
        hint = " Use shared_limit(..., scope=...)." if name == "shared" else ""
        raise TypeError(f"{name}: {what} no such option.{hint}")
