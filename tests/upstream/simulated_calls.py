"""Calls of several workers to a provider, on a clock that stands still between events.

Each call is the generator that the transports drive, here driven by a queue of events in place of threads and sockets.
So five minutes take a second, and a seed always gives the same run.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from random import Random
from types import SimpleNamespace
from typing import Any, NamedTuple

from flask_ailimit.engine import Charge, Engine, Quota
from flask_ailimit.engine.clock import MICROSECONDS
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.headers.ietf import ietf_headers
from flask_ailimit.headers.openai import openai_headers
from flask_ailimit.testing import ManualClock
from flask_ailimit.tokens import Measure, Usage
from flask_ailimit.upstream.call import Accepted, Ask, Call, Outgoing, Read, Send, Sleep
from flask_ailimit.upstream.calling import Calling
from flask_ailimit.upstream.pacing import Asked
from flask_ailimit.upstream.refusing import Final
from flask_ailimit.upstream.upstream import Upstream

REQUEST = Outgoing("POST", "http://provider/v1/chat/completions", {}, b"{}")
USUAL = Asked("model", Usage(50, 200), has_known_end=True)
SHORT = Usage(50, 60)
"""What a usual call really uses."""

AT_LEISURE = Calling()


class World:
    """A virtual time, and what is to happen in it.

    Args:
        seed: Of everything random.
    """

    def __init__(self, seed: int = 0) -> None:
        self.clock = ManualClock()
        self.random = Random(seed)
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = count()

    def seconds(self) -> float:
        """Seconds since the beginning."""
        return (self.clock() - ManualClock().now_us) / MICROSECONDS

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        """Do something in so many seconds."""
        heappush(self._events, (self.clock() + max(0, round(seconds * MICROSECONDS)), next(self._numbers), do))

    def every(self, seconds: float, do: Callable[[], None], until: float = float("inf")) -> None:
        """Do something again and again."""

        def once() -> None:
            if self.seconds() < until:
                do()
                self.after(seconds, once)

        self.after(seconds, once)

    def run(self, until: float, goes_on: Callable[[], bool] = lambda: True) -> None:
        """Let time pass until this second."""
        end = ManualClock().now_us + round(until * MICROSECONDS)
        while self._events and self._events[0][0] <= end and goes_on():
            at, _, do = heappop(self._events)
            self.clock.set(at)
            do()

    def jitter(self, most: float) -> float:
        """A random number of seconds."""
        return self.random.random() * most

    def engine(self) -> Engine:
        """An engine in this time. Its leases are renewed in this time, too, and not by a thread."""
        engine = Engine(MemoryStore(self.clock))
        engine.leases._thread = SimpleNamespace(ensure=lambda: None)
        self.every(1.0, engine.leases.renew)
        return engine

    def upstreams(self, engine: Engine, workers: int, **settings: Any) -> list[Upstream]:
        """The same upstream, as each of several workers has it."""
        return [
            Upstream(engine, "provider", clock=self.clock, running=self.seconds, **settings) for _ in range(workers)
        ]


class Headers(dict[str, str]):
    """Headers as a response has them."""

    def multi_items(self) -> list[tuple[str, str]]:
        """Each of them."""
        return [*self.items()]


class Response(NamedTuple):
    """A response as a transport gets it."""

    status_code: int
    headers: Headers
    usage: Usage
    body: bytes = b""


class RefusedError(Exception):
    """A refused connection. Its name is that of httpx's."""


RefusedError.__name__ = "ConnectError"


class Provider:
    """A provider that enforces limits of its own, which it tells or not.

    Args:
        world: Its time.
        quotas: What it allows.
        used: What a call really uses.
        takes: Seconds from a call to the beginning of its answer.
        streams: Seconds from there to its end.
        network: Seconds that each way takes at most.
        settles_after: Seconds at most from the end of an answer until its tokens are settled.
        tells: Whether its answers tell what is left.
    """

    def __init__(
        self,
        world: World,
        quotas: Sequence[Quota] = (),
        *,
        used: Usage = SHORT,
        takes: float = 0.1,
        streams: float = 0.0,
        network: float = 0.05,
        settles_after: float = 0.0,
        tells: bool = True,
    ) -> None:
        self.world = world
        self.quotas = quotas
        self.used = used
        self.takes, self.streams, self.network, self.settles_after = takes, streams, network, settles_after
        self.tells = tells
        self.is_away = False
        self.refused_others = 0
        self.statuses: Counter[int] = Counter()
        self.came: list[float] = []
        self.tokens = 0
        self._engine = Engine(MemoryStore(world.clock))
        self._subject = self._engine.subject("account")

    def shared_with(self, calls_a_minute: float) -> None:
        """Let somebody else who has the same account call it at this rate."""

        def note(response: Response) -> None:
            self.refused_others += response.status_code == 429

        self.world.every(60 / calls_a_minute, lambda: self.arrive(SHORT, note))

    @property
    def refused(self) -> int:
        """How many of our calls it has refused."""
        return self.statuses[429] - self.refused_others

    def arrive(self, usage: Usage, answer: Callable[[Any], None]) -> None:
        """A call comes; its answer begins, after the time that it takes, or it is refused."""
        self.came.append(self.world.seconds())
        back = self.world.jitter(self.network)
        if self.is_away:
            self.statuses[0] += 1
            self.world.after(back, lambda: answer(RefusedError("refused")))
            return
        charges = [
            Charge(self._subject, quota, 1 if quota.unit == "requests" else usage.of(quota.unit))
            for quota in self.quotas
        ]
        reservation = self._engine.reserve(charges)
        status = 200 if reservation.allowed else 429
        self.statuses[status] += 1
        headers = Headers()
        if self.tells:
            headers.update(openai_headers(reservation.decision))
            headers.update(ietf_headers(reservation.decision))
        if status != 200:
            waits = [verdict.retry_after or 0 for verdict in reservation.decision.verdicts if not verdict.allowed]
            headers["retry-after-ms"] = str(round(max(waits) * 1000) + 1)
            self.world.after(back, lambda: answer(Response(429, headers, Usage())))
            return
        used = self.used
        self.tokens += used.input_tokens + used.output_tokens
        self.world.after(self.takes + back, lambda: answer(Response(200, headers, used)))
        settled = self.takes + self.streams + self.world.jitter(self.settles_after)
        by_unit = {unit: used.of(unit) for unit in ("tokens", "input_tokens", "output_tokens")}
        self.world.after(settled, lambda: reservation.settle(by_unit) and None)


def start_call(
    upstreams: Sequence[Upstream],
    provider: Provider,
    done: Callable[[Any], None],
    asked: Asked = USUAL,
    how: Calling = AT_LEISURE,
) -> None:
    """Begin a call now; ``done`` gets what the caller would get, when its body has ended."""
    world = provider.world
    steps = Call(upstreams, REQUEST, asked, how).steps()

    def go(value: Any) -> None:
        try:
            step = steps.send(value)
        except StopIteration as end:
            finish(end.value)
            return
        if isinstance(step, Ask):
            done_work = step.work()
            world.after(0.0002 + world.jitter(0.0005), lambda: go(done_work))
        elif isinstance(step, Sleep):
            world.after(step.seconds + world.jitter(0.003), lambda: go(None))
        elif isinstance(step, Send):
            step.held.sent = True
            world.after(world.jitter(provider.network), lambda: provider.arrive(asked.usage, go))
        elif isinstance(step, Read):
            go(step.response.body)

    def finish(answer: Accepted | Final) -> None:
        if isinstance(answer, Final):
            done(answer)
            return

        def end() -> None:
            answer.held.finished(Measure(answer.response.usage, "reported"), whole=True)
            done(answer)

        world.after(provider.streams, end)

    go(None)


class Pushed(NamedTuple):
    """What came of pushing.

    Attributes:
        good: Calls that were answered.
        given_up: Calls that got no answer, by status.
    """

    good: int
    given_up: Counter[int]


def push(
    upstreams: Sequence[Upstream],
    provider: Provider,
    *,
    threads: int,
    every: float,
    until: float,
    asked: Asked = USUAL,
) -> Pushed:
    """Let each worker's threads call every so many seconds, or when the call before has ended, until this second."""
    world, good, given_up = provider.world, [0], Counter[int]()

    def thread(upstream: Upstream, due: float) -> None:
        def done(answer: Any) -> None:
            if isinstance(answer, Final):
                given_up[answer.status] += 1
            else:
                good[0] += 1
            following = due + every
            world.after(following - world.seconds(), lambda: thread(upstream, max(following, world.seconds())))

        if world.seconds() < until:
            start_call([upstream], provider, done, asked)

    for upstream in upstreams:
        for _ in range(threads):
            first = world.jitter(every)
            world.after(first, lambda upstream=upstream, first=first: thread(upstream, first))
    world.run(until)
    return Pushed(good[0], given_up)
