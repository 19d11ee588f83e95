"""Limits with options, for the settings that are lists of limits."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from flask_limiter import Limit

from flask_ailimit.engine import Calendar, ConfigurationError
from flask_ailimit.unlimited import Unlimited

from .checks import require_decorator
from .decorators import Decorators, ScopedOptions
from .plans.plan import ALL_PAYERS
from .unit_limit import RequestCost, UnitLimit

_Value = TypeVar("_Value")

_EVERYWHERE = {"scope": "global", "shared": True}
"""The options that let all routes share a count. The scope is that of Flask-Limiter's ``application_limits``."""


class _Listed(Generic[_Value]):
    def __init__(self, limit_value: _Value, **options: Any) -> None:
        self.limit_value = limit_value
        self.options = options

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.limit_value!r})"


class TokenLimit(_Listed[str | Unlimited | Callable[[], str | Unlimited]]):
    """A limit on tokens with options, for ``default_token_limits`` and ``application_token_limits``.

    Args:
        limit_value: As for :meth:`flask_ailimit.AILimiter.limit_tokens`.
        **options: Its options, such as ``unit``, ``name``, ``key_func`` and ``scope``. ``init_app`` checks them.
    """


class ConcurrencyLimit(_Listed[int | Unlimited | Callable[[], int | Unlimited]]):
    """A limit on calls in flight with options, for ``application_concurrency``.

    Args:
        limit_value: As for :meth:`flask_ailimit.AILimiter.limit_concurrency`.
        **options: Its options, such as ``lease``, ``name`` and ``key_func``. ``init_app`` checks them.
    """


class RequestsLimit(_Listed[str | Unlimited | Callable[[], str | Unlimited]]):
    """A limit on requests with options, for ``default_limits``, ``application_limits`` and ``address_limits``.

    Args:
        limit_value: As for :meth:`flask_ailimit.AILimiter.limit`.
        **options: Its options, such as ``name``, ``in_headers`` and ``on_store_error``; except for ``address_limits``,
            ``key_func`` too. They are checked where the list is read.
    """


LISTED = (RequestsLimit, TokenLimit, ConcurrencyLimit)
"""The kinds of limits with options."""


def listed_requests(setting: str, listed: Iterable[Any], kind: type[Limit], **preset: Any) -> list[Any]:
    """The items of a list of limits on requests, in which Flask-Limiter's limits stand for those with options.

    Args:
        setting: The name of the list.
        listed: Its items.
        kind: What Flask-Limiter makes of an item.
        **preset: Options that an item can't change.

    Raises:
        ConfigurationError: One can't be read, or an option is wrong.
    """
    return [_request_limit(setting, each, kind, preset) if isinstance(each, RequestsLimit) else each for each in listed]


def _request_limit(setting: str, listed: RequestsLimit, kind: type[Limit], preset: Mapping[str, Any]) -> Limit:
    options = {**listed.options, **preset}
    for name in options.keys() - (ScopedOptions.__annotations__.keys() - {"override_defaults"}):
        raise ConfigurationError(f"{setting}: {name}: a RequestsLimit has no such option.")
    require_decorator(setting, listed.limit_value, options)
    carried = RequestCost(
        options.pop("cost", 1) or 1,
        options.pop("on_store_error", None),
        options.pop("name", None) or "",
        options.pop("in_headers", True),
        options.pop("enforced_percent", ALL_PAYERS),
        options.pop("soft_percent", None),
        None if options.get("calendar") is None else Calendar.of(options["calendar"]),
    )
    options.pop("calendar", None)
    key_func = options.pop("key_func", None)
    return kind(listed.limit_value, key_function=key_func, cost=carried, **options)  # type: ignore[arg-type]  # UNLIMITED, too


def limits_of_each_route(limiter: Decorators, tokens: Iterable[Any]) -> list[UnitLimit]:
    """The limits of ``default_token_limits``: those of each route for itself.

    Raises:
        ConfigurationError: One can't be read, or an option is wrong.
    """
    return [_token_limit(limiter, "default_token_limits", each, {}) for each in tokens]


def limits_of_all_routes(limiter: Decorators, tokens: Iterable[Any], in_flight: Any) -> list[UnitLimit]:
    """The limits of ``application_token_limits`` and ``application_concurrency``: those of all routes together.

    Raises:
        ConfigurationError: One can't be read, or an option is wrong.
    """
    slots = in_flight if isinstance(in_flight, list | tuple) else [] if in_flight is None else [in_flight]
    return [
        *(_token_limit(limiter, "application_token_limits", each, _EVERYWHERE) for each in tokens),
        *(_made(limiter.limit_concurrency, ConcurrencyLimit, "application_concurrency", each) for each in slots),
    ]


def _token_limit(limiter: Decorators, setting: str, listed: Any, preset: Mapping[str, Any]) -> UnitLimit:
    return _made(limiter.limit_tokens, TokenLimit, setting, listed, preset)


def _made(
    decorator: Callable[..., UnitLimit],
    kind: type[_Listed[Any]],
    setting: str,
    listed: Any,
    preset: Mapping[str, Any] = _EVERYWHERE,
) -> UnitLimit:
    if isinstance(listed, _Listed) and not isinstance(listed, kind):
        raise ConfigurationError(f"{setting}: a {kind.__name__} is needed, and a {type(listed).__name__} was given.")
    value, options = (listed.limit_value, listed.options) if isinstance(listed, kind) else (listed, {})
    together = {**preset, **options}
    if preset and not (together["shared"] is True and together["scope"]):
        raise ConfigurationError(
            f"{setting}: all routes share the count of such a limit, under its scope. Drop shared and scope, or use "
            "default_token_limits or a decorator for a count of each route."
        )
    try:
        return decorator(value, **together)
    except (ConfigurationError, TypeError) as error:
        raise ConfigurationError(f"{setting}: {error}") from error
