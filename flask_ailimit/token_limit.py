"""Limits on tokens and calls in flight, in the form that Flask-Limiter resolves limits in.

Flask-Limiter turns each decorated or default limit into ``RuntimeLimit``s and finds out which apply to a request.
Ours ride along: the quota travels on the rate limit item, and the estimate as the limit's cost.
"""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from limits import RateLimitItem
from limits.limits import GRANULARITIES, RateLimitItemPerSecond

from .engine import ConfigurationError, Quota, parse_quotas
from .engine.quota import CONCURRENCY, PERIODS, REQUESTS
from .unlimited import UNLIMITED
from .wrapping import ViewLimit

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
    """The quota that an item carries; one of Flask-Limiter's own counts requests by ``algorithm``.

    It owes at most ``debt_periods`` periods.
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
    # No GRANULARITY of its own: limits would register it and parse everybody's limits into it.
    return type("QuotaItem", (granularity,), {"__slots__": ["quota"], "__str__": lambda self: str(self.quota.text)})


@dataclass(frozen=True)
class Cost:
    """What one request costs of a limit, asked for as Flask-Limiter asks any callable cost.

    Attributes:
        estimate: Answers the cost of the current request under a quota, in the quota's unit.
        unit: What is counted.
        quota: The quota; None if there is nothing to count, of UNLIMITED and of 0.
        overrides: The limit takes the place of the default limits of its unit.
        on_store_error: The limit's own failure policy.
    """

    estimate: Callable[[Quota], int]
    unit: str
    quota: Quota | None
    overrides: bool
    on_store_error: str | None = None

    def __call__(self) -> int:
        """The current request's cost."""
        return 0 if self.quota is None else self.estimate(self.quota)


@dataclass(frozen=True)
class RequestCost:
    """The cost of a limit on requests that has a failure policy of its own, which so rides along.

    Attributes:
        cost: What one request costs, or a callable that answers it.
        on_store_error: The policy.
    """

    cost: int | Callable[[], int]
    on_store_error: str

    def __call__(self) -> int:
        """The current request's cost."""
        return self.cost() if callable(self.cost) else self.cost


@dataclass(kw_only=True, unsafe_hash=True)
class UnitLimit(ViewLimit):
    """A limit of another unit than requests; a decorator, as Flask-Limiter's own.

    Attributes:
        unit: What is counted.
        algorithm: How.
        burst: Of a token bucket.
        lease: Seconds, of a limit on calls in flight.
        estimate: Answers what the current request costs under a quota.
        asked: The app's own estimate, by which limits that are otherwise the same differ.
        overrides: It takes the place of the default limits of its unit. Flask-Limiter's ``override_defaults`` stays
            false: a token limit must not lift a default limit on requests.
        on_store_error: Its own failure policy.
    """

    unit: str
    algorithm: str
    burst: int | None = None
    lease: int = 0
    estimate: Callable[[Quota], int] = field(compare=False)
    asked: Callable[..., object] | None = None
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
                    stacklevel=4,
                )

    def items(self, value: object) -> tuple[RateLimitItem, ...]:
        """What ``value`` allows, as Flask-Limiter carries it.

        Raises:
            ConfigurationError: It can't be read.
        """
        if not isinstance(value, int | str):
            value = repr(value)[:80]  # It may be a list, which no cache takes.
        return _items(value, self.unit, self.algorithm, self.burst, self.lease)

    def quotas(self, value: object) -> tuple[Quota, ...]:
        """The quotas among them: none of UNLIMITED and of 0, which count nothing.

        Raises:
            ConfigurationError: It can't be read.
        """
        items = () if value is UNLIMITED else self.items(value)
        return tuple(item.quota for item in items if item.amount)  # type: ignore[attr-defined]  # see item_of

    def cost_of(self, item: RateLimitItem) -> "Cost":
        """What a request costs of one of the items."""
        return Cost(self.estimate, self.unit, getattr(item, "quota", None), self.overrides, self.on_store_error)


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
    """The engine has no quota of 0, so a count of 0 is read as 1 and answered as nothing."""
    counted = _ZERO.sub(r"\1 1", text) if isinstance(text, str) else text
    quotas = parse_quotas(counted, unit=unit, algorithm=algorithm, burst=burst)  # type: ignore[arg-type]  # it checks
    zeros = [_ZERO.match(part) for part in _SEPARATOR.split(text)] if isinstance(text, str) else []
    return tuple(_NOTHING if zero else item_of(quota) for quota, zero in zip(quotas, zeros, strict=True))
