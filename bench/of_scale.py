"""What should make no difference: a large cost, many users, many limits."""

from functools import partial
from itertools import cycle, islice
from random import Random

import limited_flask as apps
from figures import Figure, Size, added, compared
from of_engine import USERS, open_engine
from places import directory, redis_server
from racing import Work, race
from requests_to import caller

from flask_ailimit.engine import Charge, Quota

CALLS = 60
LARGE = 10**9
FEW, MANY = 10, 10**6
AT_ONCE = 500
LARGEST = 10**14
BARE = "bare Flask"


def figures(size: Size) -> list[Figure]:
    """Cost, users and limits, on each store."""
    with directory() as place, redis_server() as server:
        local = f"local://{place}"
        return [
            *(_costs(store, uri, size) for store, uri in _stores(f"{local}/cost", server.uri)),
            *(_users(store, uri, size) for store, uri in _stores(f"{local}/users", None)),
            *(_limits(store, uri, size) for store, uri in _stores(f"{local}/limits", server.uri)),
        ]


def _stores(local: str, redis: str | None) -> list[tuple[str, str]]:
    return [("memory", "memory://"), ("local", local), *([("Redis", redis)] if redis else [])]


def _costs(store: str, uri: str, size: Size) -> Figure:
    one, large = "cost 1", "cost 10^9"
    contestants = {one: partial(_charged, uri, 1), large: partial(_charged, uri, LARGE)}
    times = race(contestants, size, CALLS, blocks=size.rounds(1 / 3))
    name = f"{store}: a decision of 6 limits and its settlement, tokens of 10^9 / of 1"
    return compared(name, large, one, times, 1.1, waits=store == "Redis")


def _charged(uri: str, cost: int) -> Work:
    engine = open_engine(uri)
    quotas = (*(Quota(LARGEST, period, "tokens") for period in (60, 86400)), *_three())
    users = [engine.subject(f"{cost}-{user}") for user in USERS]
    asked = cycle([[Charge(user, quota, cost if quota.unit == "tokens" else 1) for quota in quotas] for user in users])

    def call() -> None:
        reservation = engine.reserve(next(asked))
        if not reservation.allowed:
            raise RuntimeError("It was refused, which costs less than the work.")
        reservation.settle({"tokens": cost // 2})

    return Work(call, close=engine.close)


def _three() -> list[Quota]:
    """Limits on requests as an app has them."""
    return [Quota(10**9, 60), Quota(10**10, 3600, algorithm="fixed-window"), Quota(10**9, 86400)]


def _users(store: str, uri: str, size: Size) -> Figure:
    count = size.part(MANY, 1000)
    few, many = f"{FEW} users", f"{count:,} users"
    contestants = {
        few: partial(_known, f"{uri}-few" if store == "local" else uri, FEW),
        many: partial(_known, uri, count),
    }
    times = race(contestants, size, 4 * CALLS, blocks=size.rounds(1 / 3))
    name = f"{store}: a decision of 1 limit among {many} / among {few}"
    return compared(name, many, few, times, 1.5, waits=False, remark="users in random order")


def _known(uri: str, users: int) -> Work:
    """Decisions over a limit for users of whom each is known already, at random."""
    engine, quota, random = open_engine(uri), Quota(10**9, 60), Random(1)
    known = (engine.subject(f"user-{number}") for number in range(users))
    while some := [*islice(known, AT_ONCE)]:
        engine.reserve([Charge(user, quota) for user in some])

    def call() -> None:
        if not engine.reserve([Charge(engine.subject(f"user-{random.randrange(users)}"), quota)]).allowed:
            raise RuntimeError("It was refused, which costs less than the work.")

    return Work(call, close=engine.close)


def _limits(store: str, uri: str, size: Size) -> Figure:
    one, eight = "1 limit", "8 limits"
    contestants = {BARE: lambda: Work(caller(apps.bare())),
                   one: partial(_limited, uri, 1), eight: partial(_limited, uri, 8)}  # fmt: skip
    times = [
        {name: added(of[name], of[BARE]) for name in (one, eight)}
        for of in race(contestants, size, 20, blocks=size.rounds(1 / 2))
    ]
    name = f"{store}: added to a Flask request, 8 request limits / 1"
    return compared(name, eight, one, times, 2.5, waits=store == "Redis")


def _limited(uri: str, limits: int) -> Work:
    several = [(10**9 * minutes, f"{minutes} minute") for minutes in range(1, limits + 1)]
    return Work(caller(apps.ailimiters(uri, several)))
