"""Limits on tokens, calls in flight and units of the app's own, in the form of Flask-Limiter's limits.

Flask-Limiter turns each decorated or default limit into ``RuntimeLimit``s and finds out which apply to a request.
Our limits use the same way: the rate limit item carries the quota, and the limit's ``cost`` carries the estimate.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

from flask import Request
from flask_limiter import Limit
from limits import RateLimitItem
from limits.limits import GRANULARITIES, RateLimitItemPerSecond

from flask_ailimit.engine import Calendar, ConfigurationError, Quota
from flask_ailimit.engine.grant import Grant
from flask_ailimit.engine.limit_text import USUAL, parts_of, quota_of_part
from flask_ailimit.engine.quota import (
    CONCURRENCY,
    OUTPUT_TOKENS,
    PERIODS,
    REQUESTS,
    TOKEN_UNITS,
    TOKENS,
    UTC,
    in_largest_unit,
    is_money,
)
from flask_ailimit.money.unknown import REFUSED, UnknownPrice
from flask_ailimit.money.weights import Weights
from flask_ailimit.tokens import Usage
from flask_ailimit.unlimited import UNLIMITED

from .plans.plan import ALL_PAYERS, Source
from .view_limit import ViewLimit

_LARGEST_BURST = 100
_OF_TRIED = 2**40  # More than a trail has entries.
_NOTHING = RateLimitItemPerSecond(0)


@lru_cache(maxsize=1024)
def item_of(quota: Quota) -> RateLimitItem:
    """The rate limit item that carries ``quota`` through Flask-Limiter."""
    count, name = in_largest_unit(quota.period)
    # An amount of 0 would allow nothing. A budget of 0 allows what the payer has credit for.
    item = _carrier(GRANULARITIES[name])(max(quota.limit, 1), count, namespace=quota.unit)
    item.quota = quota  # type: ignore[attr-defined]  # the slot that _carrier makes
    return item


def quota_of(item: RateLimitItem, algorithm: str, debt_periods: int = 4) -> Quota:
    """The quota that an item carries. An item of Flask-Limiter itself becomes a quota on requests with ``algorithm``.

    The quota owes at most ``debt_periods`` periods.
    """
    quota = carried_by(item) or _request_quota(item.amount, item.get_expiry(), algorithm)
    return quota if quota.debt_periods == debt_periods else _owing(quota, debt_periods)


def carried_by(item: RateLimitItem) -> Quota | None:
    """The quota that an item carries; None if it is one of Flask-Limiter's, or counts nothing."""
    quota: Quota | None = getattr(item, "quota", None)
    return quota


@lru_cache(maxsize=1024)
def told_as(quota: Quota, label: str, *, in_headers: bool, soft_percent: int) -> Quota:
    """The quota as it is told of: see :meth:`flask_ailimit.engine.Quota.told_as`."""
    return quota.told_as(label, in_headers=in_headers, soft_percent=soft_percent)


@lru_cache(maxsize=1024)
def with_credit(
    quota: Quota, grants: tuple[Grant, ...], windows: tuple[tuple[int, str], ...], *, is_tried: bool
) -> Quota:
    """The budget with a payer's grants beside it: see :meth:`flask_ailimit.engine.Quota.with_credit`.

    One that is only tried burns grants of the same amounts under numbers of their own, so that those of the payer stay.
    """
    given = tuple(grant._replace(id=grant.id + _OF_TRIED) for grant in grants) if is_tried else grants
    return quota.with_credit(given, windows)


@lru_cache(maxsize=1024)
def _owing(quota: Quota, debt_periods: int) -> Quota:
    return quota.owing(debt_periods)


@lru_cache(maxsize=1024)
def _request_quota(limit: int, period: int, algorithm: str) -> Quota:
    return Quota(limit, period, REQUESTS, algorithm)


@lru_cache(maxsize=len(PERIODS))
def _carrier(granularity: type[RateLimitItem]) -> type[RateLimitItem]:
    def is_same(self: RateLimitItem, other: object) -> bool:
        # Those of limits compare numbers: a day of a calendar, a session of a day and 86,400 seconds have the same.
        return granularity.__eq__(self, other) and carried_by(self) == getattr(other, "quota", None)

    # It has no GRANULARITY of its own: otherwise limits would register the class, and parse texts into it.
    methods = {"__str__": lambda self: str(self.quota.text), "__eq__": is_same, "__hash__": granularity.__hash__}
    return type("QuotaItem", (granularity,), {"__slots__": ["quota"], **methods})


@dataclass(frozen=True)
class UnitCost:
    """How to find a request's cost under a :class:`UnitLimit`. It is the resolved limit's ``cost``.

    Attributes:
        limit: The limit as the app wrote it.
        quota: The quota; None for UNLIMITED and for 0, which count nothing.
    """

    limit: "UnitLimit"
    quota: Quota | None

    @property
    def fixed(self) -> int | None:
        """The cost, if it is the same for each request; else None."""
        if self.limit.unit == CONCURRENCY:
            return 1
        is_estimated = self.limit.unit in TOKEN_UNITS or is_money(self.limit.unit)
        return self.limit.cost if not is_estimated and isinstance(self.limit.cost, int) else None

    def __call__(self) -> NoReturn:
        """Raise TypeError. Flask-Limiter would call this, but it decides no request."""
        raise TypeError("The cost of a unit limit is estimated from the request.")


@dataclass(frozen=True)
class RequestCost:
    """The ``cost`` of a limit on requests. It carries the options that Flask-Limiter's limits don't have.

    Attributes:
        cost: The cost of one request, or a callable that returns it.
        on_store_error: The limit's own failure policy.
        label: What clients call the limit; "" for the name that is made of unit and period.
        in_headers: Whether clients are told of it.
        enforced_percent: The part of the subjects for whom it holds.
        soft_percent: From which part on is told that it is nearly used up; None for the app's own.
        calendar: That of its windows; None for the app's own.
    """

    cost: int | Callable[[], int]
    on_store_error: str | None = None
    label: str = ""
    in_headers: bool = True
    enforced_percent: int = ALL_PAYERS
    soft_percent: int | None = None
    calendar: Calendar | None = None

    def __call__(self) -> int:
        """Return the current request's cost."""
        return self.cost() if callable(self.cost) else self.cost


def options_of(cost: object) -> "UnitLimit | RequestCost | None":
    """What holds the options of ours of a resolved limit, by its ``cost``; None if it has only Flask-Limiter's."""
    if isinstance(cost, UnitCost):
        return cost.limit
    return cost if isinstance(cost, RequestCost) else None


def enforced_percent(cost: object) -> int:
    """The part of the subjects for whom a resolved limit with this ``cost`` holds."""
    options = options_of(cost)
    return ALL_PAYERS if options is None else options.enforced_percent


def percent_of(limit: Limit) -> int:
    """The part of the subjects for whom a limit holds, as the app wrote it."""
    return limit.enforced_percent if isinstance(limit, UnitLimit) else enforced_percent(limit.cost)


def is_told(cost: object) -> bool:
    """Whether clients are told of a resolved limit with this ``cost``."""
    options = options_of(cost)
    return options is None or options.in_headers


@dataclass(kw_only=True, unsafe_hash=True)
class UnitLimit(ViewLimit):
    """A limit on tokens, calls in flight or a unit of the app's own; a decorator, like Flask-Limiter's limits.

    The ``cost`` that it has from Flask-Limiter's limits is what a request costs in a unit of the app's own.

    Attributes:
        unit: What is counted.
        algorithm: How it is counted, if the app says it; None for the usual: windows of a calendar and of a session by
            ``window``, money by ``budget``, and the others by ``usual_algorithm``.
        usual_algorithm: See above.
        burst: The burst of a token bucket.
        lease: The lease of a limit on calls in flight, in seconds.
        custom_estimate: The app's own estimate of tokens; None without one.
        default_output_tokens: Output to reserve for a request that names no maximum; None for that of the view or the
            setting.
        overrides: Whether it overrides the default limits of its unit. Flask-Limiter's ``override_defaults`` stays
            False, because a token limit must not override a default limit on requests.
        on_store_error: Its own failure policy.
        label: What clients call it; "" for the name that is made of unit and period.
        in_headers: Whether clients are told of it.
        enforced_percent: The part of the subjects for whom it holds. On the others it is only tried.
        soft_percent: From which part on is told that it is nearly used up; None for the app's own.
        source: Where its value was set, if it is a limit of a plan; else None.
        floor: Percent of what it gives at once that a request leaves to others.
        calendar: That of its windows; None for the app's own.
        weights: How much each kind of token counts for in a limit on tokens; None for what it is.
        unknown_price: What becomes of a request in a limit on money, if its model has no price.
    """

    unit: str
    algorithm: str | None = None
    usual_algorithm: str = USUAL
    burst: int | None = None
    lease: int = 0
    custom_estimate: Callable[[Request], int | Usage] | None = None
    default_output_tokens: int | None = None
    overrides: bool = True
    on_store_error: str | None = None
    label: str = ""
    in_headers: bool = True
    enforced_percent: int = ALL_PAYERS
    soft_percent: int | None = None
    source: Source | None = None
    floor: int = 0
    calendar: Calendar | None = None
    weights: Weights | None = None
    unknown_price: UnknownPrice = REFUSED

    def __post_init__(self, limiter: Any) -> None:
        super().__post_init__(limiter)
        for quota in self.static_quotas():
            if isinstance(self.cost, int) and self.cost > quota.burst and not is_money(self.unit):
                raise ConfigurationError(f"cost: {self.cost} never fits a limit of {quota.text}. Raise the limit.")
            if self.default_output_tokens is not None:
                _require_room(quota, self.default_output_tokens)
            if quota.burst > _LARGEST_BURST * quota.limit:
                warnings.warn(
                    f"burst: {quota.burst} at once is more than {_LARGEST_BURST} times the limit of {quota.limit}, "
                    "which so limits next to nothing. Lower the burst.",
                    RuntimeWarning,
                    stacklevel=6,  # The line on which the limit is written.
                )

    def require_room_for(self, output_tokens: int) -> None:
        """Check that the setting ``default_output_tokens`` is not the whole limit, if that has no number of its own.

        Raises:
            ConfigurationError: It is as much as the limit gives at once, or more.
        """
        if self.default_output_tokens is None:
            for quota in self.static_quotas():
                _require_room(quota, output_tokens)

    def items(self, value: object, calendar: Calendar = UTC) -> tuple[RateLimitItem, ...]:
        """The rate limit items of ``value``.

        Args:
            value: What the app wrote, or its callable returned.
            calendar: The app's own, for a limit that has none.

        Raises:
            ConfigurationError: It can't be read.
        """
        if not isinstance(value, int | str):
            value = repr(value)[:80]  # A list can't be the key of a cache.
        return _items(value, self, self.calendar or calendar)

    def static_quotas(self, calendar: Calendar = UTC) -> tuple[Quota, ...]:
        """The quotas that are the same for each request: none, if a callable returns the limit."""
        return () if callable(self.limit_provider) else self.quotas(self.limit_provider, calendar)

    def quotas(self, value: object, calendar: Calendar = UTC) -> tuple[Quota, ...]:
        """The quotas of ``value``. UNLIMITED and 0 have none, because they count nothing.

        Raises:
            ConfigurationError: It can't be read.
        """
        items = () if value is UNLIMITED else self.items(value, calendar)
        return tuple(item.quota for item in items if item.amount)  # type: ignore[attr-defined]  # see item_of

    def cost_of(self, item: RateLimitItem) -> "UnitCost":
        """The cost of a request under one of the items."""
        return UnitCost(self, getattr(item, "quota", None))


def _require_room(quota: Quota, output_tokens: int) -> None:
    """Check that the output which is reserved for a request without a maximum is not a whole limit.

    Raises:
        ConfigurationError: It is as much as the limit gives at once, or more.
    """
    if quota.unit in (TOKENS, OUTPUT_TOKENS) and output_tokens >= quota.burst:
        raise ConfigurationError(
            f"default_output_tokens: {output_tokens} is all that '{quota.text}' hands out at once, or more, so "
            "a request that names no maximum would take the whole limit. Lower it, or raise the limit."
        )


def _items(value: str | int, limit: UnitLimit, calendar: Calendar) -> tuple[RateLimitItem, ...]:
    told = limit.label, limit.in_headers
    if limit.unit == CONCURRENCY:
        return slots(value, limit.lease, *told)
    if is_money(limit.unit) and type(value) is int and value == 0:
        return (_NOTHING,)  # A text of 0 is something else: with it, a payer may use credit.
    return timed_items(value, limit.unit, limit.algorithm, limit.burst, *told, calendar, limit.usual_algorithm)


@lru_cache(maxsize=1024, typed=True)  # True is not 1.
def slots(value: object, lease: int, label: str, in_headers: bool) -> tuple[RateLimitItem, ...]:
    """The items of a limit on calls in flight.

    Raises:
        ConfigurationError: The value is not a whole number, or too large.
    """
    if type(value) is not int:
        raise ConfigurationError(
            f"limit_concurrency: a whole number of calls in flight is needed, such as 4. Got {str(value)[:80]!r}."
        )
    if value == 0:
        return (_NOTHING,)
    quota = Quota(value, lease, CONCURRENCY, CONCURRENCY).told_as(label, in_headers=in_headers)
    return (item_of(quota),)


@lru_cache(maxsize=1024, typed=True)
def timed_items(
    text: Any,
    unit: str,
    algorithm: str | None,
    burst: int | None,
    label: str,
    in_headers: bool,
    calendar: Calendar = UTC,
    usual_algorithm: str = USUAL,
) -> tuple[RateLimitItem, ...]:
    """The items of limits over time, of each kind of window the lowest limit.

    The engine has no quota of 0 but of money, so 0 is checked as 1, and its item is _NOTHING.

    Raises:
        ConfigurationError: The text can't be read.
    """
    items = []
    for part in parts_of(text, label, unit):
        counts = part.limit > 0 or is_money(unit)
        quota = quota_of_part(
            part if counts else part._replace(limit=1),
            *(unit, algorithm),
            usual=usual_algorithm,
            burst=burst,
            in_headers=in_headers,
            calendar=calendar,
        )
        items.append(item_of(quota) if counts else _NOTHING)
    return strictest(items)


def strictest(items: Sequence[RateLimitItem]) -> tuple[RateLimitItem, ...]:
    """Of several limits of one kind of window, which would have one count, only the lowest."""
    lowest: dict[tuple[int, str], RateLimitItem] = {}
    for item in items:
        carried: Quota | None = getattr(item, "quota", None)
        window = item.get_expiry(), carried.every if carried else ""
        if window not in lowest or item.amount < lowest[window].amount:
            lowest[window] = item
    return tuple(lowest.values())
