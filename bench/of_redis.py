"""A decision with Redis beside the least that can be asked: one INCRBY by redis-py, and a script that does nothing.

The server is on the same machine, so there is no network between. Charges are ready made: this is about the question.
"""

from functools import partial
from itertools import cycle
from typing import Any

import redis
from figures import Figure, Size, ratios
from of_engine import COST, USERS, charges_of, open_engine
from places import redis_server
from racing import Open, Work, race

from flask_ailimit.engine import Engine, Reservation

CALLS = 60
INCRBY, NOTHING = "INCRBY by redis-py", "EVALSHA of a script that does nothing, by redis-py"
DECISION, SETTLEMENT = "AILimiter, decision", "AILimiter, settlement"
FIELDS = ("used_cpu_user", "used_cpu_sys", "total_net_input_bytes", "total_net_output_bytes")


def figures(size: Size) -> list[Figure]:
    """What the client waits, then what the server says of its work."""
    with redis_server() as server:
        return [*_client_side(server.uri, size), *_server_side(server, size)]


def _client_side(uri: str, size: Size) -> list[Figure]:
    contestants: dict[str, Open] = {
        INCRBY: partial(incrby, uri),
        NOTHING: partial(nothing, uri),
        DECISION: partial(decisions, uri),
        SETTLEMENT: partial(settlements, uri),
    }
    times, _ = race(contestants, size, CALLS)

    def against(other: str, ours: str, aim: float | None, remark: str = "") -> Figure:
        behind = {other: times[other], ours: times[ours]}
        name = f"Redis, six limits: {ours} / {other}"
        return Figure(name, ratios(times[ours], times[other]), "x", aim, times=behind, remark=remark)

    return [
        against(INCRBY, DECISION, 1.25, "one INCRBY counts one limit, and gives it no end"),
        against(NOTHING, DECISION, None),
        against(INCRBY, SETTLEMENT, None),
        against(INCRBY, NOTHING, None, "what Redis takes to call any script, and redis-py to send it"),
    ]


def incrby(uri: str) -> Work:
    """The smallest count that can be kept."""
    client, keys = redis.Redis.from_url(uri), cycle([f"plain:{user}" for user in USERS])
    return Work(lambda: client.incrby(next(keys), COST))


def nothing(uri: str) -> Work:
    """The smallest question that a script can be asked."""
    client, keys = redis.Redis.from_url(uri), cycle([f"plain:{user}" for user in USERS])
    sha = client.script_load("return 1")
    return Work(lambda: client.evalsha(sha, 1, next(keys)))


def decisions(uri: str) -> Work:
    """Decisions alone; what they took is given back behind each turn."""
    engine = open_engine(uri)
    asked = cycle([charges_of(engine, user) for user in USERS])
    held: list[Reservation] = []
    return Work(lambda: held.append(_allowed(engine, next(asked))), partial(_end, held), engine.close)


def settlements(uri: str) -> Work:
    """Settlements alone: what they end is decided behind the turn before."""
    engine = open_engine(uri)
    asked = cycle([charges_of(engine, user) for user in USERS])
    held: list[Reservation] = []

    def refill() -> None:
        _end(held)
        held.extend(_allowed(engine, next(asked)) for _ in range(CALLS + 1))

    refill()
    return Work(lambda: held.pop().settle({"tokens": COST // 2}), refill, engine.close)


def _allowed(engine: Engine, charges: list[Any]) -> Reservation:
    reservation = engine.reserve(charges)
    if not reservation.allowed:
        raise RuntimeError("It was refused, which costs less than the work.")
    return reservation


def _end(held: list[Reservation]) -> None:
    while held:
        held.pop().settle({"tokens": COST // 2})


def _server_side(server: Any, size: Size) -> list[Figure]:
    """The time inside a command, and the bytes that go over the network, as the server counts them."""
    engine, client, calls = open_engine(server.uri), server.client(), size.part(500, 20)
    asked, held = cycle([charges_of(engine, user) for user in USERS]), []
    _end([_allowed(engine, next(asked)) for _ in USERS])  # The scripts are loaded, the keys are there.
    work = {
        "an INCRBY": ("incrby", lambda: client.incrby("plain", COST)),
        "a decision": ("evalsha", lambda: held.append(_allowed(engine, next(asked)))),
        "a settlement": ("evalsha", lambda: held.pop(0).settle({"tokens": COST // 2})),
    }
    told: dict[str, dict[str, list[float]]] = {
        name: {"inside": [], "processor": [], "in": [], "out": []} for name in work
    }
    for _ in range(size.rounds(1 / 6)):
        for name, (command, call) in work.items():
            each = _told(server, command, call, calls)
            for what, value in each.items():
                told[name][what].append(value)
    engine.close()
    inside, plain = told["a decision"]["inside"], told["an INCRBY"]["inside"]
    behind = {f"{name}, inside the server": each["inside"] for name, each in told.items()}
    found = [Figure("Redis, time inside the server: a decision / an INCRBY", ratios(inside, plain), "x", times=behind)]
    for name, each in told.items():
        found.append(Figure(f"Redis, the server's processor time for {name}", each["processor"], "us"))
        both = [come + go for come, go in zip(each["in"], each["out"], strict=True)]
        found.append(Figure(f"Redis, bytes over the network for {name}", both, "bytes"))
    return found


def _told(server: Any, command: str, call: Any, calls: int) -> dict[str, float]:
    server.ask("CONFIG", "RESETSTAT")
    asking, before = server.ask("INFO"), server.ask("INFO")
    for _ in range(calls):
        call()
    after, stats = server.ask("INFO"), server.ask("INFO", "commandstats")[f"cmdstat_{command}"]
    own = {field: before[field] - asking[field] for field in FIELDS}  # To ask costs, too.
    spent = {field: (after[field] - before[field] - own[field]) / calls for field in FIELDS}
    return {
        "inside": stats["usec_per_call"],
        "processor": (spent["used_cpu_user"] + spent["used_cpu_sys"]) * 1e6,
        "in": spent["total_net_input_bytes"],
        "out": spent["total_net_output_bytes"],
    }
