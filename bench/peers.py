"""Other limiters without Flask, each asked for the same six limits in the way its documentation shows.

Of the six, four are on requests and two on tokens: no peer knows calls in flight, so a fourth limit on requests
stands for them. Each is asked by the user's name and answers whether all limits let the call in.
"""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from importlib.util import find_spec

MANY, FEW = 1, 10**6
"""What the limits below are divided by: nobody is refused, or the fourth call is."""

REQUESTS = ((3 * 10**6, 1), (3 * 10**7, 60), (3 * 10**8, 3600), (3 * 10**9, 86400))
"""Limits on requests with their periods in seconds."""

TOKENS = ((3 * 10**9, 60), (3 * 10**11, 86400))
COST = 1000
"""Tokens of a call."""

Decide = Callable[[str], bool]


@dataclass(frozen=True)
class Peer:
    """A limiter to compare with.

    Attributes:
        name: As its package is called.
        module: What is imported of it.
        how: What of it is used, and how often it is asked for six limits.
        open: Makes it, from the URI of a store (``memory://`` or ``redis://...``) and what its limits are divided by.
        python: The oldest Python that it can be installed on.
    """

    name: str
    module: str
    how: str
    open: Callable[[str, int], Decide]
    python: tuple[int, int] = (3, 11)

    @property
    def missing(self) -> str:
        """Why it can't be measured; empty if it can."""
        if find_spec(self.module):
            return ""
        if sys.version_info < self.python:
            oldest, this = (".".join(map(str, each[:2])) for each in (self.python, sys.version_info))
            return f"{self.name} could not be installed: it needs Python {oldest} or later, and this is {this}"
        return f"{self.name} is not installed: make bench installs it"


def _asked(divisor: int) -> Iterable[tuple[str, int, int, int]]:
    """Unit, limit, period and cost of each of the six."""
    for limit, period in REQUESTS:
        yield "requests", max(3, limit // divisor), period, 1
    for limit, period in TOKENS:
        yield "tokens", max(3 * COST, limit // divisor), period, COST


def open_limits(uri: str, divisor: int) -> Decide:
    """``limits``, fixed windows: its fastest strategy on either store."""
    from limits import RateLimitItemPerSecond  # noqa: PLC0415  it may not be installed
    from limits.storage import storage_from_string  # noqa: PLC0415
    from limits.strategies import FixedWindowRateLimiter  # noqa: PLC0415

    hit = FixedWindowRateLimiter(storage_from_string(uri)).hit
    items = [
        (RateLimitItemPerSecond(limit, period, namespace=unit), cost) for unit, limit, period, cost in _asked(divisor)
    ]
    return lambda user: all([hit(item, user, cost=cost) for item, cost in items])  # noqa: C419  all six are asked


def open_throttled(uri: str, divisor: int) -> Decide:
    """``throttled-py``, fixed windows: its fastest algorithm on either store. A unit is part of the key."""
    from throttled import Throttled, per_duration  # noqa: PLC0415
    from throttled.store import MemoryStore, RedisStore  # noqa: PLC0415

    store = RedisStore(server=uri) if uri.startswith("redis") else MemoryStore(options={"MAX_SIZE": 100_000})
    limits = [
        (Throttled(using="fixed_window", quota=per_duration(timedelta(seconds=period), limit=limit), store=store).limit,
         f"{unit}:", cost)
        for unit, limit, period, cost in _asked(divisor)
    ]  # fmt: skip
    return lambda user: not any([limit(unit + user, cost).limited for limit, unit, cost in limits])  # noqa: C419


def open_pyrate(uri: str, divisor: int) -> Decide:
    """``pyrate-limiter``, token buckets in a ``StateBucket``: several rates of one cost at once, so two questions."""
    from pyrate_limiter import BucketFactory, Limiter, Rate, RedisStateStore, StateBucket, TokenBucket  # noqa: PLC0415

    connection = None
    if uri.startswith("redis"):
        import redis  # noqa: PLC0415

        connection = redis.Redis.from_url(uri)

    class OfUnit(BucketFactory):
        """A bucket for each user, made when the user first comes."""

        def __init__(self, unit: str) -> None:
            self.unit = unit
            self.rates = [Rate(limit, period * 1000) for of, limit, period, _ in _asked(divisor) if of == unit]
            self.buckets: dict[str, StateBucket] = {}

        def wrap_item(self, name: str, weight: int = 1) -> object:
            return RateItem(name, clock.now(), weight=weight)

        def get(self, item: object) -> StateBucket:
            bucket = self.buckets.get(item.name)
            if bucket is None:
                store = RedisStateStore(connection, f"pyrate:{self.unit}:{item.name}") if connection else None
                bucket = self.buckets[item.name] = StateBucket(self.rates, algorithm=TokenBucket(), store=store)
            return bucket

    from pyrate_limiter import MonotonicClock, RateItem, WallClock  # noqa: PLC0415

    clock = WallClock() if connection else MonotonicClock()
    requests, tokens = Limiter(OfUnit("requests")).try_acquire, Limiter(OfUnit("tokens")).try_acquire
    return lambda user: requests(user, 1, blocking=False) and tokens(user, COST, blocking=False)


def open_token_throttle(uri: str, divisor: int) -> Decide:
    """``token-throttle``: all limits but the one that stands for calls in flight at once, and then the refund."""
    from token_throttle import (  # noqa: PLC0415
        PerModelConfig,
        Quota,
        SyncMemoryBackendBuilder,
        SyncRateLimiter,
        SyncRedisBackendBuilder,
        UsageQuotas,
    )

    if uri.startswith("redis"):
        import redis  # noqa: PLC0415

        backend = SyncRedisBackendBuilder(redis.Redis.from_url(uri), key_prefix="bench")
    else:
        backend = SyncMemoryBackendBuilder()
    quotas = UsageQuotas(
        [
            Quota(metric=unit, limit=limit, per_seconds=period)
            for unit, limit, period, _ in _asked(divisor)
            if period != 3600
        ]
    )
    limiter = SyncRateLimiter(cache(lambda user: PerModelConfig(quotas=quotas, model_family=user)), backend=backend)
    asked, used = {"requests": 1, "tokens": COST}, {"requests": 1, "tokens": COST // 2}

    def decide(user: str) -> bool:
        try:
            reservation = limiter.acquire_capacity(asked, model=user, timeout=0)
        except TimeoutError:
            return False
        limiter.refund_capacity(used, reservation)
        return True

    return decide


PEERS = (
    Peer("limits", "limits", "fixed windows, asked six times", open_limits),
    Peer("throttled-py", "throttled", "fixed windows, asked six times", open_throttled),
    Peer("pyrate-limiter", "pyrate_limiter", "token buckets, asked twice: four rates of requests, two of tokens",
         open_pyrate),
)  # fmt: skip

TOKEN_THROTTLE = Peer(
    "token-throttle",
    "token_throttle",
    "token buckets, five limits at once (none stands for calls in flight), and a refund",
    open_token_throttle,
    (3, 12),
)
