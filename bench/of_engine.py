"""The bare engine: a decision over six limits against the peers' answers to six, on memory and on Redis.

Ours is asked as the peers are: by the user's name, which is hashed, and the charges are made, each time.
"""

from functools import partial
from itertools import cycle

from figures import Figure, Size, compared, not_measured
from limited_flask import store_options
from peers import COST, FEW, MANY, PEERS, REQUESTS, TOKEN_THROTTLE, TOKENS, Peer
from places import directory, redis_server
from racing import Open, Times, Work, race

from flask_ailimit.engine import Charge, Engine, Quota, Reservation, open_store, system_clock

USERS = tuple(f"user-{number}" for number in range(100))
CALLS = 60
WINDOWS = "AILimiter, six fixed windows"
DECISION, BOTH = "AILimiter, decision", "AILimiter, decision and settlement"
LOCAL, LOCAL_BOTH = "AILimiter on local://, decision", "AILimiter on local://, decision and settlement"
SECRET = b"s" * 32
IN_FLIGHT = 100

_ALGORITHMS = ("token-bucket", "token-bucket", "fixed-window")
QUOTAS = (
    *(Quota(limit, period, algorithm=algorithm)
      for (limit, period), algorithm in zip((REQUESTS[0], REQUESTS[1], REQUESTS[3]), _ALGORITHMS, strict=True)),
    Quota(TOKENS[0][0], TOKENS[0][1], "tokens"),
    Quota(TOKENS[1][0], TOKENS[1][1], "tokens", "fixed-window"),
    Quota(IN_FLIGHT, 60, "concurrency", "concurrency"),
)  # fmt: skip
"""Three on requests, two on tokens, and one on calls in flight."""

ALIKE = (
    *(Quota(limit, period, algorithm="fixed-window") for limit, period in REQUESTS),
    *(Quota(limit, period, "tokens", "fixed-window") for limit, period in TOKENS),
)
"""What the peers are asked for: six fixed windows, four on requests and two on tokens."""


def open_engine(uri: str) -> Engine:
    """An engine over the store that an app would open."""
    return Engine(open_store(uri, name="bench", clock=system_clock, options=store_options(uri)), secret=SECRET)


def charges_of(engine: Engine, user: str, cost: int = COST, quotas: tuple[Quota, ...] = QUOTAS) -> list[Charge]:
    """The six charges of a call; where the store is away they raise, so that nothing passes uncounted."""
    subject = engine.subject(user)
    return [Charge(subject, quota, cost if quota.unit == "tokens" else 1) for quota in quotas]


class Decisions:
    """Decides for each of the users in turn.

    Calls stay in flight until :meth:`settle`, which is not a part of the decision and has a row of its own.
    """

    def __init__(self, engine: Engine, quotas: tuple[Quota, ...] = QUOTAS) -> None:
        self._engine = engine
        self._quotas = quotas
        self._users = cycle(USERS)
        self._open: list[Reservation] = []

    def reserve(self) -> Reservation:
        """One decision."""
        reservation = self._engine.reserve(charges_of(self._engine, next(self._users), quotas=self._quotas))
        if not reservation.allowed:
            raise RuntimeError("AILimiter's engine refused, which costs less than the work.")
        self._open.append(reservation)
        return reservation

    def reserve_and_settle(self) -> None:
        """One decision, and its end with half of the tokens."""
        self.reserve()
        self.settle()

    def settle(self) -> None:
        """End all that are open."""
        while self._open:
            self._open.pop().settle({"tokens": COST // 2})


def figures(size: Size) -> list[Figure]:
    """Those of memory, with our local store beside it, and those of Redis."""
    with directory() as place:
        found = _on("memory", "memory://", size, f"local://{place}")
    with redis_server() as server:
        return found + _on("Redis", server.uri, size)


def _on(store: str, uri: str, size: Size, local: str | None = None) -> list[Figure]:
    contestants: dict[str, Open] = {
        WINDOWS: partial(decisions, uri, ALIKE),
        DECISION: partial(decisions, uri),
        BOTH: partial(whole, uri),
    }
    if local:
        contestants |= {LOCAL: partial(decisions, local), LOCAL_BOTH: partial(whole, local)}
    contestants |= {peer.name: partial(work_of, peer, uri) for peer in (*PEERS, TOKEN_THROTTLE) if not peer.missing}
    times = race(contestants, size, CALLS)
    pairs = [(peer, ours, 1.0) for ours in (WINDOWS, DECISION) for peer in PEERS] + [(TOKEN_THROTTLE, BOTH, 1.0)]
    pairs += [(peer, BOTH, None) for peer in PEERS]
    if local:
        pairs += [(peer, LOCAL, None) for peer in PEERS]
    return [_against(peer, ours, store, times, aim) for peer, ours, aim in pairs]


def decisions(uri: str, quotas: tuple[Quota, ...] = QUOTAS) -> Work:
    """Our decisions alone; each turn's calls are ended behind it."""
    engine = open_engine(uri)
    ours = Decisions(engine, quotas)
    return Work(ours.reserve, ours.settle, engine.close)


def whole(uri: str) -> Work:
    """Our decisions, each with its settlement."""
    engine = open_engine(uri)
    return Work(Decisions(engine).reserve_and_settle, close=engine.close)


def work_of(peer: Peer, uri: str) -> Work:
    """The peer asked as each of the users in turn; all must be let in."""
    require_counting(peer, uri)
    decide, users = peer.open(uri, MANY), cycle(USERS)

    def call() -> None:
        if not decide(next(users)):
            raise RuntimeError("It refused, which costs less than the work.")

    return Work(call)


def _against(peer: Peer, ours: str, store: str, times: tuple[Times, Times], aim: float | None) -> Figure:
    name = f"six limits, {store}: {ours} / {peer.name}"
    if peer.missing:
        return not_measured(name, peer.missing)
    return compared(name, ours, peer.name, times, aim, waits=store == "Redis", remark=peer.how)


def require_counting(peer: Peer, uri: str) -> None:
    """See that it counts: whoever lets everybody through when the store is in trouble would win every race.

    Raises:
        RuntimeError: Of three allowed calls it refuses one, or it lets a fourth in.
    """
    decide = peer.open(uri, FEW)
    answers = [decide("somebody") for _ in range(4)]
    if answers != [True, True, True, False]:
        raise RuntimeError(f"{peer.name} doesn't count: to 4 calls of 3 that are allowed it answers {answers}.")
