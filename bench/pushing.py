"""Workers that push a provider, each in a process of its own, as a gunicorn's are: by several clients at once.

Every client has its own provider, so all are measured in the same minutes. The load is light.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from threading import Thread
from typing import Any
from urllib.request import Request, urlopen

from limited_flask import store_options
from scripted_provider import KEY

from flask_ailimit.engine import Charge, Engine, open_store, system_clock
from flask_ailimit.engine.limit_text import parse_quotas
from flask_ailimit.upstream.upstream import Upstream

WORKERS, THREADS = 4, 8
ASKED_INPUT_WORDS, ASKED_TOKENS = 40, 200
SECRET = b"the bench's own secret"

_FORK = get_context("fork")

Ask = Callable[[], object]


@dataclass(frozen=True)
class Pushed:
    """One client's way to push its provider.

    Attributes:
        client: A name in :data:`CLIENTS`.
        port: Where its provider listens.
        limits: Those of the provider, by unit, as the upstream's settings have them.
        a_second: Calls that all threads together want to make.
        threads: Of each worker, by its number.
        calls: The most calls; None for as many as there is time for.
    """

    client: str
    port: int
    limits: Mapping[str, Any]
    a_second: float
    threads: tuple[int, ...] = (THREADS,) * WORKERS
    calls: int | None = None


def asking(port: int, **options: Any) -> Ask:
    """Calls with OpenAI's SDK."""
    from openai import OpenAI  # noqa: PLC0415  not every bench has it

    client = OpenAI(api_key=KEY, base_url=f"http://127.0.0.1:{port}/v1", **options)
    messages = [{"role": "user", "content": "word " * ASKED_INPUT_WORDS}]
    return lambda: client.chat.completions.create(model="scripted", messages=messages, max_tokens=ASKED_TOKENS)


def upstream_at(store: str, limits: Mapping[str, Any], name: str = "bench") -> Upstream:
    """An upstream in a store."""
    engine = Engine(open_store(store, name="bench", clock=system_clock, options=store_options(store)), secret=SECRET)
    return Upstream(engine, name, max_wait=300.0, **limits)


def with_upstream(way: Pushed, place: str) -> Ask:
    """Ours."""
    client = upstream_at(f"local://{place}/{way.port}", way.limits).http_client()
    return asking(way.port, max_retries=0, http_client=client)


def with_sdk(way: Pushed, place: str) -> Ask:  # noqa: ARG001  as all
    """The SDK's own retries, as it comes."""
    return asking(way.port, max_retries=2)


def with_tenacity(way: Pushed, place: str) -> Ask:  # noqa: ARG001
    """tenacity, as OpenAI's guide has it."""
    from tenacity import retry, stop_after_attempt, wait_random_exponential  # noqa: PLC0415

    ask = asking(way.port, max_retries=0)
    return retry(wait=wait_random_exponential(min=1, max=60), stop=stop_after_attempt(6), reraise=True)(ask)


def with_own_buckets(way: Pushed, place: str) -> Ask:  # noqa: ARG001
    """A token bucket in each worker, of its part of the limit, and the SDK's retries."""
    engine = Engine(open_store("memory://", name="bench", clock=system_clock, options={}))
    charges = []
    for unit, text in way.limits.items():
        amount, _, per = text.partition(" ")
        for quota in parse_quotas(f"{int(amount) // WORKERS} {per}", unit=unit):
            cost = 1 if unit == "requests" else ASKED_INPUT_WORDS + ASKED_TOKENS
            charges.append(Charge(engine.subject("all"), quota, cost))
    ask = asking(way.port, max_retries=2)

    def call() -> object:
        while not (decision := engine.reserve(charges).decision).allowed:
            time.sleep(min(decision.retry_after or 1.0, 1.0))
        return ask()

    return call


CLIENTS = {
    "an upstream": with_upstream,
    "the SDK's retries alone": with_sdk,
    "tenacity alone": with_tenacity,
    "a bucket in each worker": with_own_buckets,
}


@contextmanager
def pushing(ways: Mapping[str, Pushed], place: str, seconds: float) -> Iterator[Any]:
    """Let the workers push until the context ends. Answers a queue of what went on: ``(way, when, whether good)``."""
    import openai  # noqa: F401, PLC0415  before the fork, so that all share its memory

    told, began = _FORK.Queue(), time.monotonic() + 1
    workers = [
        _FORK.Process(target=_work, args=(n, ways, place, began, seconds, told), daemon=True) for n in range(WORKERS)
    ]
    for worker in workers:
        worker.start()
    time.sleep(max(0, began - time.monotonic()))
    try:
        yield told
    finally:
        for worker in workers:
            worker.kill()
            worker.join()


def _work(number: int, ways: Mapping[str, Pushed], place: str, began: float, seconds: float, told: Any) -> None:
    logging.disable(logging.WARNING)  # What is refused is counted.
    for name, way in ways.items():
        ask = CLIENTS[way.client](way, place)
        for thread in range(way.threads[number]):
            place_in_turn = (number * way.threads[number] + thread) / sum(way.threads)
            Thread(target=_push, args=(name, way, ask, place_in_turn, began, seconds, told), daemon=True).start()
    time.sleep(max(0, began + seconds + 3600 - time.monotonic()))


def _push(name: str, way: Pushed, ask: Ask, turn: float, began: float, seconds: float, told: Any) -> None:
    every = sum(way.threads) / way.a_second
    due, left = began + turn * every, None if way.calls is None else way.calls // sum(way.threads)
    while due < began + seconds and left != 0:
        time.sleep(max(0, due - time.monotonic()))
        try:
            ask()
            good = True
        except Exception as error:  # noqa: BLE001  that is what is counted
            good = False
            if not hasattr(error, "status_code"):
                print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
        told.put((name, time.monotonic() - began, good))
        left = None if left is None else left - 1
        due = max(due + every, time.monotonic())


def steadily(port: int, a_minute: float, began: float, seconds: float) -> Thread:
    """Somebody else with the same account, who calls at a steady rate and never waits."""
    body = {"model": "scripted", "messages": [{"role": "user", "content": "word"}], "max_tokens": 5}
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", "X-Bench-Who": "others"}

    def call() -> None:
        due = began
        while due < began + seconds:
            time.sleep(max(0, due - time.monotonic()))
            with suppress(OSError):
                urlopen(
                    Request(f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode(), headers)
                ).close()
            due += 60 / a_minute

    thread = Thread(target=call, daemon=True)
    thread.start()
    return thread


def counted(port: int) -> dict[str, Any]:
    """What the provider has counted."""
    with urlopen(f"http://127.0.0.1:{port}/counted") as answer:
        found: dict[str, Any] = json.load(answer)
    return found
