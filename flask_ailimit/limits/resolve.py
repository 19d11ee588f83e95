"""Resolves a limit, as the app wrote it, for the current request. A callable limit is called here.

Flask-Limiter logs a limit that it can't read, takes an empty one for no limit, and lets the request pass in both cases.
Here a callable must return a limit or :data:`flask_ailimit.UNLIMITED`. Anything else makes the answer a 503.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from flask_limiter import Limit, MetaLimit
from flask_limiter._limits import RuntimeLimit
from limits import RateLimitItem, parse_many
from limits.limits import RateLimitItemPerYear
from werkzeug.exceptions import HTTPException

from flask_ailimit.engine import Calendar, ConfigurationError, Quota
from flask_ailimit.engine.limit_text import NOT_OF_FLASK_LIMITER, SEPARATOR
from flask_ailimit.engine.quota import REQUESTS, UTC, windows_in_name
from flask_ailimit.http.errors import PastFlaskLimiter
from flask_ailimit.unlimited import UNLIMITED

from .count_names import CountedLimit, MarkOf
from .counting import CountingNow
from .plans.plan import NO_PAYERS
from .unit_limit import RequestCost, UnitLimit, is_told, options_of, percent_of, quota_of, strictest, timed_items

# It has no GRANULARITY of its own: otherwise limits would register the class, and parse texts into it.
_NO_LIMIT = type("NoLimit", (RateLimitItemPerYear,), {"__slots__": [], "__str__": lambda _: "unlimited"})(1)


class NotAsked(RateLimitItemPerYear):
    """Stands for what a callable limit would return, where there is no request to ask it in.

    Attributes:
        provider: The callable.
    """

    __slots__ = ("provider",)

    def __init__(self, provider: Callable[[], object]) -> None:
        super().__init__(1)
        self.provider = provider

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NotAsked) and self.provider == other.provider

    def __hash__(self) -> int:
        return hash(self.provider)


def is_no_limit(limit: RuntimeLimit) -> bool:
    """Whether the limit is UNLIMITED for the current request. It overrides the defaults like any other limit."""
    return limit.limit is _NO_LIMIT


def allows_nothing(limit: RuntimeLimit) -> bool:
    """Whether the limit is 0."""
    return limit.limit.amount == 0


def resolve(limit: Limit, counting_now: CountingNow, mark_of: MarkOf, *, ask: bool = True) -> list[RuntimeLimit]:
    """Resolve a limit for the current request.

    Args:
        limit: The limit as the app wrote it.
        counting_now: Returns how the app counts.
        mark_of: Returns what is added to the limit's scope on an endpoint.
        ask: Call a callable limit. Without it, a :class:`NotAsked` stands for what the callable would return.

    Returns:
        A limit for each period; none if the limit is only tried on all, and a callable failed.

    Raises:
        PastFlaskLimiter: A callable turned the request away; or it failed or returned no limit, which makes a 503.
    """
    try:
        items = _items_now(limit, counting_now, ask=ask)
    except PastFlaskLimiter:
        if percent_of(limit) == NO_PAYERS:
            return []  # What is only tried turns nobody away. The log says what happened.
        raise
    # A limit that is only tried refuses nobody, so nobody is told of its limits on refusals.
    written = () if percent_of(limit) == NO_PAYERS else limit.meta_limits or ()
    metas = [meta_of(limit, each) for each in written]
    resolved_metas = tuple(each for meta in metas for each in resolve(meta, counting_now, mark_of, ask=ask))
    if not is_told(limit.cost):  # A meta limit tells that there is a limit.
        resolved_metas = tuple(replace(meta, cost=RequestCost(1, in_headers=False)) for meta in resolved_metas)
    return [
        CountedLimit(
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
            cost=_cost_under(limit, item, items),
            shared=limit.shared,
            meta_limits=resolved_metas,
            provider=limit.limit_provider if callable(limit.limit_provider) else None,
            mark_of=mark_of,
        )
        for item in items
    ]


@lru_cache(maxsize=1024)
def request_items(text: str, algorithm: str, calendar: Calendar = UTC) -> tuple[RateLimitItem, ...]:
    """Parse a limit on requests as Flask-Limiter does, and windows of a calendar and of a session beside.

    A limit of 0 is valid. Of each kind of window the lowest limit holds.

    Raises:
        ConfigurationError: It can't be read or counted; the message gives an example.
    """
    is_ours = isinstance(text, str) and NOT_OF_FLASK_LIMITER.search(text)
    try:
        each_text = SEPARATOR.split(text) if is_ours else [text]
        items = tuple(item for each in each_text for item in _of_requests(each, calendar))
        for item in items:
            quota_of(item if item.amount else type(item)(1, item.multiples), algorithm)
    except ValueError as error:
        if is_ours and isinstance(error, ConfigurationError):
            raise ConfigurationError(str(error).removeprefix("limit: ").removesuffix(".")) from error
        raise ConfigurationError(
            f"{str(text)[:80]!r} can't be used. Write a count and a period, such as '10 per minute', '100/second' or "
            "'5000 per 2 hours'; separate several with ';'. UNLIMITED is no limit, and '0 per minute' allows nothing"
        ) from error
    return strictest(items)


def _of_requests(text: str, calendar: Calendar) -> Sequence[RateLimitItem]:
    if isinstance(text, str) and NOT_OF_FLASK_LIMITER.search(text):
        return timed_items(text, REQUESTS, None, None, "", True, calendar)
    return parse_many(text)


def _cost_under(limit: Limit, item: RateLimitItem, items: Sequence[RateLimitItem]) -> Any:
    """The cost of one of the items of a limit. If a limit on requests has several, each has a label with its period."""
    if isinstance(limit, UnitLimit):
        return limit.cost_of(item)
    if isinstance(limit.cost, RequestCost) and limit.cost.label and len(items) > 1:
        quota: Quota | None = getattr(item, "quota", None)
        windows = windows_in_name(quota.every if quota else "", item.get_expiry())
        return replace(limit.cost, label=limit.cost.label + windows)
    return limit.cost or 1


def _items_now(limit: Limit, counting_now: CountingNow, *, ask: bool) -> tuple[RateLimitItem, ...]:
    value = _provided(limit) if ask else limit.limit_provider
    if callable(value) and not ask:
        return (NotAsked(value),)
    try:
        return _items(limit, value, counting_now)
    except ConfigurationError as error:
        limit.limiter.logger.error("%r answered %.80r, which is no limit: %s", limit.limit_provider, value, error)  # noqa: TRY400  that says it
        raise PastFlaskLimiter from error


def _items(limit: Limit, value: object, counting_now: CountingNow) -> tuple[RateLimitItem, ...]:
    if value is UNLIMITED:
        return (_NO_LIMIT,)
    algorithm, calendar = counting_now()
    if isinstance(limit, UnitLimit):
        return limit.items(value, calendar)
    if not isinstance(value, str):
        raise ConfigurationError("a text is needed, such as '10 per minute'")
    return request_items(value, algorithm, calendar_of(limit, calendar))


def calendar_of(limit: Limit, usual: Calendar) -> Calendar:
    """The calendar of a limit on requests: its own, or the usual one."""
    options = options_of(limit.cost)
    return (options and options.calendar) or usual


def _provided(limit: Limit) -> object:
    provider = limit.limit_provider
    if not callable(provider):
        return provider
    try:
        return provider()
    except HTTPException as answer:  # It turns the client away.
        raise PastFlaskLimiter(answer) from answer.__cause__
    except Exception as error:  # noqa: BLE001  any: it is the app's function
        # Not the error's text, which may hold a key.
        limit.limiter.logger.error("%r answered no limit: it raised %s", provider, type(error).__name__)  # noqa: TRY400
        raise PastFlaskLimiter from None


def meta_of(limit: Limit, meta: Any) -> MetaLimit:
    """A meta limit of a limit, from what the app wrote."""
    if isinstance(meta, MetaLimit):
        return meta
    bound = MetaLimit(meta).bind_parent(limit)
    bound.limiter = limit.limiter
    return bound
