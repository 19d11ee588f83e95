"""Limits on tokens and calls in flight, in the form of Flask-Limiter's limits.

Flask-Limiter turns each decorated or default limit into ``RuntimeLimit``s and finds out which apply to a request.
Our limits use the same way: the rate limit item carries the quota, and the limit's ``cost`` carries the estimate.
"""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

from flask import Request
from limits import RateLimitItem
from limits.limits import GRANULARITIES, RateLimitItemPerSecond

from flask_ailimit.engine import ConfigurationError, Quota, parse_quotas
from flask_ailimit.engine.quota import CONCURRENCY, PERIODS, REQUESTS
from flask_ailimit.tokens import Usage
from flask_ailimit.unlimited import UNLIMITED

from .view_limit import ViewLimit

_LARGEST_BURST = 100
_SEPARATOR = re.compile(r"[;,|]")
_ZERO = re.compile(r"(\A|[;,|])\s*0+(?=\s*/|\s+per\s)", re.IGNORECASE)
_NOTHING = RateLimitItemPerSecond(0)


@lru_cache(maxsize=1024)
def item_of(quota: Quota) -> RateLimitItem:
    """The rate limit item that carries ``quota`` through Flask-Limiter."""
    name = max((name for name, seconds in PERIODS.items() if quota.period % seconds == 0), key=PERIODS.__getitem__)
    item = _carrier(GRANULARITIES[name])(quota.limit, quota.period // PERIODS[name], namespace=quota.unit)
    item.quota = quota  # type: ignore[attr-defined]  # the slot that _carrier makes
    return item


def quota_of(item: RateLimitItem, algorithm: str, debt_periods: int = 4) -> Quota:
    """The quota that an item carries. An item of Flask-Limiter itself becomes a quota on requests with ``algorithm``.

    The quota owes at most ``debt_periods`` periods.
    """
    carried: Quota | None = getattr(item, "quota", None)
    quota = carried or _request_quota(item.amount, item.get_expiry(), algorithm)
    return quota if quota.debt_periods == debt_periods else _owing(quota, debt_periods)


@lru_cache(maxsize=1024)
def _owing(quota: Quota, debt_periods: int) -> Quota:
    return quota.owing(debt_periods)


@lru_cache(maxsize=1024)
def _request_quota(limit: int, period: int, algorithm: str) -> Quota:
    return Quota(limit, period, REQUESTS, algorithm)


@lru_cache(maxsize=len(PERIODS))
def _carrier(granularity: type[RateLimitItem]) -> type[RateLimitItem]:
    # It has no GRANULARITY of its own: otherwise limits would register the class, and parse texts into it.
    return type("QuotaItem", (granularity,), {"__slots__": ["quota"], "__str__": lambda self: str(self.quota.text)})


@dataclass(frozen=True)
class UnitCost:
    """How to find a request's cost under a limit on tokens or calls in flight. It is the limit's ``cost``.

    Attributes:
        unit: What is counted.
        quota: The quota; None for UNLIMITED and for 0, which count nothing.
        custom_estimate: The app's own estimate; None without one.
        overrides: Whether the limit overrides the default limits of its unit.
        on_store_error: The limit's own failure policy.
    """

    unit: str
    quota: Quota | None
    custom_estimate: Callable[[Request], int | Usage] | None
    overrides: bool
    on_store_error: str | None = None

    def __call__(self) -> NoReturn:
        """Raise TypeError. Flask-Limiter would call this, but it decides no request."""
        raise TypeError("The cost of a unit limit is estimated from the request.")


@dataclass(frozen=True)
class RequestCost:
    """The ``cost`` of a limit on requests with its own failure policy, which it carries.

    Attributes:
        cost: The cost of one request, or a callable that returns it.
        on_store_error: The policy.
    """

    cost: int | Callable[[], int]
    on_store_error: str

    def __call__(self) -> int:
        """Return the current request's cost."""
        return self.cost() if callable(self.cost) else self.cost


@dataclass(kw_only=True, unsafe_hash=True)
class UnitLimit(ViewLimit):
    """A limit on tokens or calls in flight; a decorator, like Flask-Limiter's limits.

    Attributes:
        unit: What is counted.
        algorithm: How it is counted.
        burst: The burst of a token bucket.
        lease: The lease of a limit on calls in flight, in seconds.
        custom_estimate: The app's own estimate; None without one.
        overrides: Whether it overrides the default limits of its unit. Flask-Limiter's ``override_defaults`` stays
            False, because a token limit must not override a default limit on requests.
        on_store_error: Its own failure policy.
    """

    unit: str
    algorithm: str
    burst: int | None = None
    lease: int = 0
    custom_estimate: Callable[[Request], int | Usage] | None = None
    overrides: bool = True
    on_store_error: str | None = None

    def __post_init__(self, limiter: Any) -> None:
        super().__post_init__(limiter)
        for quota in () if callable(self.limit_provider) else self.quotas(self.limit_provider):
            if quota.burst > _LARGEST_BURST * quota.limit:
                warnings.warn(
                    f"burst: {quota.burst} at once is more than {_LARGEST_BURST} times the limit of {quota.limit}, "
                    "which so limits next to nothing. Lower the burst.",
                    RuntimeWarning,
                    stacklevel=6,  # The line on which the limit is written.
                )

    def items(self, value: object) -> tuple[RateLimitItem, ...]:
        """The rate limit items of ``value``.

        Raises:
            ConfigurationError: It can't be read.
        """
        if not isinstance(value, int | str):
            value = repr(value)[:80]  # A list can't be the key of a cache.
        return _items(value, self.unit, self.algorithm, self.burst, self.lease)

    def quotas(self, value: object) -> tuple[Quota, ...]:
        """The quotas of ``value``. UNLIMITED and 0 have none, because they count nothing.

        Raises:
            ConfigurationError: It can't be read.
        """
        items = () if value is UNLIMITED else self.items(value)
        return tuple(item.quota for item in items if item.amount)  # type: ignore[attr-defined]  # see item_of

    def cost_of(self, item: RateLimitItem) -> "UnitCost":
        """The cost of a request under one of the items."""
        return UnitCost(
            self.unit, getattr(item, "quota", None), self.custom_estimate, self.overrides, self.on_store_error
        )


@lru_cache(maxsize=1024, typed=True)  # True is not 1.
def _items(value: str | int, unit: str, algorithm: str, burst: int | None, lease: int) -> tuple[RateLimitItem, ...]:
    if unit != CONCURRENCY:
        return _token_items(value, unit, algorithm, burst)
    if type(value) is not int:
        raise ConfigurationError(
            f"limit_concurrency: a whole number of calls in flight is needed, such as 4. Got {str(value)[:80]!r}."
        )
    return (_NOTHING if value == 0 else item_of(Quota(value, lease, unit, algorithm)),)


def _token_items(text: object, unit: str, algorithm: str, burst: int | None) -> tuple[RateLimitItem, ...]:
    """The items of limits on tokens. The engine has no quota of 0, so 0 is parsed as 1, and its item is _NOTHING."""
    counted = _ZERO.sub(r"\1 1", text) if isinstance(text, str) else text
    quotas = parse_quotas(counted, unit=unit, algorithm=algorithm, burst=burst)  # type: ignore[arg-type]  # it checks
    zeros = [_ZERO.match(part) for part in _SEPARATOR.split(text)] if isinstance(text, str) else []
    return tuple(_NOTHING if zero else item_of(quota) for quota, zero in zip(quotas, zeros, strict=True))
