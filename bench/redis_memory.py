"""What Redis keeps of a subject, and when it is gone.

    python bench/redis_memory.py [subjects] [valkey or redis]

Each subject has three limits and has sent one request: per minute and per day in fixed windows, and tokens per minute
in a token bucket. It starts a server of its own, which keeps nothing else.
"""

import sys
import time
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path

from flask_ailimit.engine import Charge, Engine, Quota
from flask_ailimit.engine.algorithms import ALGORITHMS
from flask_ailimit.testing import ManualClock

sys.path.append(str(Path(__file__).parents[1] / "tests" / "redis"))
from redis_servers import Server, binary_of, start_server, wait_until  # the tests' own way to start one
from redis_stores import store_at

SECRET = b"s" * 32
COST = 1000
LIMITS = (
    Quota(60, 60, algorithm="fixed-window"),
    Quota(10_000, 86_400, algorithm="fixed-window"),
    Quota(100_000, 60, "tokens"),
)
RECORDS, MARKERS = "ailimit:{*}", "ailimit:{*}:r*"
PROCESSES = 4
SHORT_LIMITS = tuple(Quota(each.limit, 2, each.unit, each.algorithm) for each in LIMITS)


def charges_of(subject: bytes, limits: tuple[Quota, ...]) -> list[Charge]:
    return [Charge(subject, quota, COST if quota.unit == "tokens" else 1) for quota in limits]


def ask_once(server: Server, subjects: range, limits: tuple[Quota, ...]) -> None:
    """Have each subject send a request that is let in."""
    engine = Engine(store_at(server.uri), secret=SECRET)
    for number in subjects:
        assert engine.reserve(charges_of(engine.subject(f"user-{number}"), limits)).allowed
    engine.close()


def ask_together(server: Server, subjects: int, limits: tuple[Quota, ...]) -> float:
    """The same by several processes. Answers how many a second."""
    start = time.perf_counter()
    workers = [
        get_context("fork").Process(target=ask_once, args=(server, range(first, subjects, PROCESSES), limits))
        for first in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return subjects / (time.perf_counter() - start)


def used(server: Server) -> int:
    return server.ask("INFO", "memory")["used_memory"]


def print_memory(server: Server, subjects: int) -> None:
    before, client = used(server), server.client()
    rate = ask_together(server, subjects, LIMITS)
    with_markers, markers = used(server) - before, server.ask("DBSIZE") - subjects
    marker = server.ask("MEMORY", "USAGE", next(client.scan_iter(MARKERS, count=1000)))
    wait_until(
        lambda: not any(client.scan_iter(MARKERS, count=1000)), patience=60
    )  # To look at one that is over ends it.
    key = next(client.scan_iter(RECORDS, count=1000))
    print(f"{subjects:,} subjects with {len(LIMITS)} limits, {rate:,.0f} a second")
    print(f"  of all memory                {(used(server) - before) / subjects:>10.1f} bytes each")
    print(f"  by MEMORY USAGE              {server.ask('MEMORY', 'USAGE', key):>10} bytes each")
    print(f"  its record                   {server.ask('STRLEN', key):>10} bytes")
    print(f"  its key, {key.decode()}: {len(key)} bytes")
    print(f"  a marker, for 10 s           {marker:>10} bytes")
    print(f"  {markers:,} markers at the end, {with_markers / 1e6:,.1f} MB in all with them")
    server.clear()


def print_end(server: Server, subjects: int) -> None:
    """Whether everything is gone after the limits' period and the markers' ten seconds, without anybody looking."""
    before = used(server)
    ask_together(server, subjects, SHORT_LIMITS)
    start = time.perf_counter()
    wait_until(lambda: not server.ask("DBSIZE"), patience=60)
    seconds, left = time.perf_counter() - start, max(0, used(server) - before)
    print(f"\n{subjects:,} subjects with periods of 2 s: {seconds:.0f} s after the last request no key is left")
    print(f"  still in use                 {left / subjects:>10.1f} bytes each")
    server.clear()


def print_largest(server: Server) -> None:
    """How large one count becomes, however many requests there are: here 400 in 20 seconds, and none ends."""
    print(f"\n{'the largest state of':28}{'record':>14}{'MEMORY USAGE':>20}")
    for name in ALGORITHMS:
        clock, slots = ManualClock(), name == "concurrency"
        engine = Engine(store_at(server.uri, clock), secret=SECRET)
        quota = Quota(100, 60, name, name) if slots else Quota(1_000_000, 60, "tokens", name)
        charge = Charge(engine.subject(name), quota, 1 if slots else 2 * COST)
        largest = (0, 0)
        for _ in range(400):
            clock.advance(0.05)
            engine.reserve([charge])
            (key,) = server.ask("KEYS", RECORDS)
            largest = max(largest, (server.ask("STRLEN", key), server.ask("MEMORY", "USAGE", key)))
        print(f"{name:28}{largest[0]:>8} bytes{largest[1]:>14} bytes")
        engine.close()
        server.clear()


def main(subjects: int, name: str) -> None:
    binary = binary_of(name) or sys.exit(f"{name} is not installed.")
    with closing(start_server(binary)) as server:
        print(f"{name} {server.ask('INFO', 'server').get(f'{name}_version')}\n")
        print_memory(server, subjects)
        print_end(server, min(subjects, 20_000))
        print_largest(server)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, sys.argv[2] if len(sys.argv) > 2 else "valkey")
