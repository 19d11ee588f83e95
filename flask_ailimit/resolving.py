"""From a limit as it was written to what it allows the current request. A callable limit is asked here.

Flask-Limiter logs a limit that it can't read, takes one that is empty for none, and lets everybody pass in both cases.
Here a callable must answer a limit or :data:`flask_ailimit.UNLIMITED`; anything else makes the request a 503.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from flask_limiter import Limit, MetaLimit
from flask_limiter._limits import RuntimeLimit
from limits import RateLimitItem, parse_many
from limits.limits import RateLimitItemPerYear
from werkzeug.exceptions import HTTPException

from .engine import ConfigurationError
from .errors import Carried
from .token_limit import UnitLimit, quota_of
from .unlimited import UNLIMITED

# Without a GRANULARITY of its own: limits would register the class and parse everybody's limits into it.
_NO_LIMIT = type("NoLimit", (RateLimitItemPerYear,), {"__slots__": [], "__str__": lambda _: "unlimited"})(1)


def is_no_limit(limit: RuntimeLimit) -> bool:
    """Whether it only stands for a limit that the current request doesn't have. It lifts the defaults as that would."""
    return limit.limit is _NO_LIMIT


def allows_nothing(limit: RuntimeLimit) -> bool:
    """Whether it is a limit of 0."""
    return limit.limit.amount == 0


def resolved(limit: Limit) -> list[RuntimeLimit]:
    """What a limit allows the current request.

    Raises:
        Carried: A callable turned the request away, or it failed or answered no limit, which is a 503.
    """
    value = _provided(limit)
    try:
        items = _items(limit, value)
    except ConfigurationError as error:
        said = "%r answered %.80r, which is no limit: %s"
        limit.limiter.logger.error(said, limit.limit_provider, value, error)  # noqa: TRY400  that says it
        raise Carried(limit.limiter.unavailable()) from error
    metas = tuple(meta for each in limit.meta_limits or () for meta in resolved(_meta(limit, each)))
    return [
        RuntimeLimit(
            item,
            limit.limit_by,
            scope=limit.scope,
            per_method=limit.per_method,
            methods=limit.methods,
            error_message=limit.error_message,
            exempt_when=limit.exempt_when,
            override_defaults=limit.override_defaults,
            deduct_when=limit.deduct_when,
            on_breach=limit.on_breach,
            cost=limit.cost_of(item) if isinstance(limit, UnitLimit) else limit.cost or 1,
            shared=limit.shared,
            meta_limits=metas,
        )
        for item in items
    ]


def all_resolved(limits: Iterable[Limit]) -> list[RuntimeLimit]:
    """What several limits allow the current request. Raises as :func:`resolved` does."""
    return [each for limit in limits for each in resolved(limit)]


class Resolved(list[Limit]):
    """Limits that Flask-Limiter itself goes through: each then answers what it allows the current request."""

    def __iter__(self) -> Any:
        return map(resolved, super().__iter__())


@lru_cache(maxsize=1024)
def request_items(text: str, algorithm: str) -> tuple[RateLimitItem, ...]:
    """Read a limit on requests as Flask-Limiter reads it. A count of 0 is one.

    Raises:
        ConfigurationError: It can't be read or counted; the message gives an example.
    """
    try:
        items = tuple(parse_many(text))
        for item in items:
            quota_of(item if item.amount else type(item)(1, item.multiples), algorithm)
    except ValueError as error:
        raise ConfigurationError(
            f"{str(text)[:80]!r} can't be used. Write a count and a period, such as '10 per minute', '100/second' or "
            "'5000 per 2 hours'; separate several with ';'. UNLIMITED is no limit, and '0 per minute' allows nothing"
        ) from error
    return items


def _items(limit: Limit, value: object) -> tuple[RateLimitItem, ...]:
    if value is UNLIMITED:
        return (_NO_LIMIT,)
    if isinstance(limit, UnitLimit):
        return limit.items(value)
    if not isinstance(value, str):
        raise ConfigurationError("a text is needed, such as '10 per minute'")
    return request_items(value, limit.limiter.state.algorithm)


def _provided(limit: Limit) -> object:
    provider = limit.limit_provider
    if not callable(provider):
        return provider
    try:
        return provider()
    except HTTPException as answer:  # It turns the client away.
        raise Carried(answer) from answer.__cause__
    except Exception as error:  # noqa: BLE001  any: it is the app's function
        # Not the error's text, which may hold a key.
        limit.limiter.logger.error("%r answered no limit: it raised %s", provider, type(error).__name__)  # noqa: TRY400
        raise Carried(limit.limiter.unavailable()) from None


def _meta(limit: Limit, meta: Any) -> MetaLimit:
    if isinstance(meta, MetaLimit):
        return meta
    bound = MetaLimit(meta).bind_parent(limit)
    bound.limiter = limit.limiter
    return bound
