"""Keeps the counts of limits apart that have the same unit, algorithm, period and scope.

A mark depends on how the limits are written, and not on which of them apply to a request. So it is the same in each
request, in each worker, and after a restart.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from types import FunctionType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from flask import Flask
from flask_limiter import Limit

from flask_ailimit.current import current_app
from flask_ailimit.engine import ConfigurationError, Quota
from flask_ailimit.engine.calendars import EVERY
from flask_ailimit.engine.quota import REQUESTS

from .count_names import CountedLimit, marked
from .counting import Counting, CountingNow
from .plans.plan import ALL_PAYERS
from .resolve import calendar_of, meta_of, request_items
from .unit_limit import UnitLimit, enforced_percent, percent_of, quota_of

_MOST_KEPT = 4096
_TRIED = "/tried"

Numbers = object
"""What sets a limit apart from those beside it: its limit and burst, or the callable that returns it; and whether it is
tried."""

LimitsIn = Callable[[Flask], Iterable[Limit]]
LimitsOn = Callable[[Flask, str], Iterable[Limit]]


class Written(NamedTuple):
    """A limit as the app wrote it.

    Attributes:
        unit: What is counted.
        algorithm: How it is counted over a fixed length of time.
        scope: Its scope: a text or a callable; "" without one.
        shared: Whether its scope is the whole name of its count.
        per_method: Whether each method is counted by itself.
        quotas: What it allows; empty if a callable returns it.
        provider: The callable that returns it; None without one.
        is_tried: Whether it holds for a part of the subjects only.
    """

    unit: str
    algorithm: str
    scope: Any
    shared: bool
    per_method: bool
    quotas: tuple[Quota, ...]
    provider: object
    is_tried: bool

    def numbers(self, quota: Quota) -> Numbers | None:
        """What sets it apart in the windows of a quota; None if it has no limit of them. A callable may return any."""
        if self.provider is not None:
            return (self.provider, self.is_tried) if quota.every or quota.algorithm == self.algorithm else None
        found = next((_numbers(each) for each in self.quotas if _windows(each) == _windows(quota)), None)
        return found and (found, self.is_tried)


class SameCounts:
    """Finds the limits that would have one count, and marks all but the first.

    Args:
        everywhere: Returns all limits of an app.
        on_endpoint: Returns the limits that an endpoint's view may meet.
        counting_now: Returns how the app counts.
    """

    def __init__(self, everywhere: LimitsIn, on_endpoint: LimitsOn, counting_now: CountingNow) -> None:
        self._everywhere = everywhere
        self._on_endpoint = on_endpoint
        self._counting_now = counting_now
        self._kept: WeakKeyDictionary[Flask, dict[Hashable, Sequence[Any]]] = WeakKeyDictionary()

    def changed(self) -> None:
        """Forget what was found, because a limit changed."""
        self._kept.clear()

    def mark_of(self, limit: CountedLimit, endpoint: str) -> str:
        """What is added to a limit's scope on an endpoint of the current app.

        It is nothing for the first of the limits that would have one count, and a number from 2 for the others. A
        callable may return any scope, so limits with such a scope are marked apart from those with a text. Two
        limits with the same numbers have one count, and so have two of one callable. But a limit that is tried has none
        with one that holds, and comes after all that hold: so their counts are the same with it and without it. A
        limit that is not written for the endpoint, such as that of a block or of a function that the view calls, is
        marked by what it allows, or by the name of the function that returns it. A limit of 0 has no mark, and no
        count.
        """
        if not limit.limit.amount:
            return ""
        quota = quota_of(limit.limit, self._counting_now().algorithm)
        beside = self._beside(limit, quota, endpoint)
        is_tried = enforced_percent(limit.cost) < ALL_PAYERS
        numbers = _numbers(quota) if limit.provider is None else limit.provider, is_tried
        if numbers in beside:
            place = beside.index(numbers) + 1
            if callable(limit.scope):
                return marked(f"{'shared' if limit.shared else 'own'}/{place}")
            return marked(place) if place > 1 else ""
        provider = limit.provider
        if isinstance(provider, FunctionType) and "<" not in provider.__qualname__:  # No other function has its name.
            return marked(f"{provider.__module__}.{provider.__qualname__}{_TRIED if is_tried else ''}")
        return marked(f"{quota.limit}/{quota.burst}{_TRIED if is_tried else ''}")

    def _beside(self, limit: CountedLimit, quota: Quota, endpoint: str) -> Sequence[Numbers]:
        """The numbers of all limits that would have the count of this one, each once, as they are written."""
        app = current_app()
        kept = self._kept.setdefault(app, {})
        kind = quota.unit, limit.per_method
        scope = callable(limit.scope) or limit.scope
        key = *kind, *_windows(quota), scope, None if limit.shared else endpoint
        beside = kept.get(key)
        if beside is None:
            if len(kept) >= _MOST_KEPT:
                kept.clear()
            others = self._under_one_scope(limit, app, endpoint)
            same = [each for each in others if (each.unit, each.per_method) == kind]
            same.sort(key=lambda each: each.is_tried)
            beside = kept[key] = _each_once(each.numbers(quota) for each in same)
        return beside

    def _under_one_scope(self, limit: CountedLimit, app: Flask, endpoint: str) -> list[Written]:
        """The limits that may have this one's scope. Two callables may return the same one."""
        here = [] if limit.shared else self._written(self._on_endpoint(app, endpoint), shared=False)
        own, scope = self._shared(app) if limit.shared else here, limit.scope or ""
        if callable(scope):
            return [each for each in own if callable(each.scope)]
        whole = f"{endpoint}:{scope}" if scope else endpoint
        others = [] if limit.shared else [each for each in self._shared(app) if each.scope == whole]
        return [*others, *(each for each in own if each.scope == scope)]

    def _shared(self, app: Flask) -> Sequence[Written]:
        kept = self._kept.setdefault(app, {})
        key = "shared", len(app.view_functions)
        found = kept.get(key)
        if found is None:
            found = kept[key] = self._written(self._everywhere(app), shared=True)
        return found

    def _written(self, limits: Iterable[Limit], *, shared: bool) -> list[Written]:
        counting = self._counting_now()
        each_with_metas = (each for limit in limits for each in (limit, *_metas(limit)))
        return [_written(limit, counting) for limit in each_with_metas if limit.shared == shared]


def _each_once(numbers: Iterable[Numbers | None]) -> Sequence[Numbers]:
    found: list[Numbers] = []
    for each in numbers:
        if each is not None and each not in found:  # An app's callable need not be hashable.
            found.append(each)
    return found


def _metas(limit: Limit) -> Iterable[Limit]:
    return [meta_of(limit, each) for each in limit.meta_limits or ()]


def _written(limit: Limit, counting: Counting) -> Written:
    value = limit.limit_provider
    unit, counted_by = REQUESTS, counting.algorithm
    if isinstance(limit, UnitLimit):
        unit, counted_by = limit.unit, limit.algorithm or limit.usual_algorithm
    provider = value if callable(value) else None
    quotas = () if provider is not None else _quotas(limit, value, counting)
    is_tried = percent_of(limit) < ALL_PAYERS
    return Written(unit, counted_by, limit.scope or "", limit.shared, limit.per_method, quotas, provider, is_tried)


def _quotas(limit: Limit, value: object, counting: Counting) -> tuple[Quota, ...]:
    if isinstance(limit, UnitLimit):
        return limit.static_quotas(counting.calendar)
    if not isinstance(value, str):
        return ()  # UNLIMITED
    algorithm, calendar = counting.algorithm, calendar_of(limit, counting.calendar)
    try:
        return tuple(quota_of(item, algorithm) for item in request_items(value, algorithm, calendar) if item.amount)
    except ConfigurationError:
        return ()  # The routes that it limits answer 503.


def _windows(quota: Quota) -> tuple[str, str, int]:
    return quota.algorithm, quota.every, quota.period


def _numbers(quota: Quota) -> tuple[Any, ...]:
    """What sets a quota apart from others with the same windows."""
    numbers = quota.limit, quota.burst
    return (*numbers, quota.calendar) if quota.every in EVERY else numbers
