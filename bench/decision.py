"""What one decision costs: three limits on requests, two on tokens and one on calls in flight, each call settled.

    python bench/decision.py [decisions]

Times are microseconds of one process's own clock, of ``Engine.reserve`` and of ``Reservation.settle``. With several
processes, all share one directory, and so its lock; the rate is that of all together.
"""

import os
import sys
import tempfile
import time
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path

from flask_ailimit.engine import Charge, Engine, Quota
from flask_ailimit.engine.stores.local import LocalStore
from flask_ailimit.engine.stores.memory import MemoryStore

SUBJECTS = 1000
LARGE = 10**12  # Nobody is refused: a refusal is cheaper.


def charges_of(engine: Engine, number: int, cost: int) -> list[Charge]:
    subject = engine.subject(f"user-{number % SUBJECTS}")
    return [
        Charge(subject, Quota(LARGE, 1)),
        Charge(subject, Quota(LARGE, 60)),
        Charge(subject, Quota(LARGE, 86400, algorithm="fixed-window")),
        Charge(subject, Quota(LARGE, 60, "tokens"), cost),
        Charge(subject, Quota(LARGE, 86400, "tokens", "fixed-window"), cost),
        Charge(subject, Quota(100, 60, "concurrency", "concurrency")),
    ]


def measure(directory: Path | None, decisions: int, cost: int, times: SimpleQueue) -> None:
    """Put the times of ``reserve`` and of ``settle`` in microseconds."""
    engine = Engine(LocalStore(directory) if directory else MemoryStore())
    asked = [charges_of(engine, number, cost) for number in range(SUBJECTS)]
    reserved, settled = [], []
    for number in range(decisions):
        charges = asked[(number * 7 + os.getpid()) % SUBJECTS]
        start = time.perf_counter_ns()
        reservation = engine.reserve(charges)
        middle = time.perf_counter_ns()
        reservation.settle({"tokens": cost // 2})
        reserved.append((middle - start) / 1000)
        settled.append((time.perf_counter_ns() - middle) / 1000)
    engine.close()
    times.put((reserved, settled))


def measure_together(directory: Path | None, decisions: int, cost: int, processes: int) -> tuple[list, list, float]:
    times = get_context("fork").SimpleQueue()
    workers = [
        get_context("fork").Process(target=measure, args=(directory, decisions // processes, cost, times))
        for _ in range(processes)
    ]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    answers = [times.get() for _ in workers]
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - start
    reserved, settled = (sorted(t for answer in answers for t in answer[kind]) for kind in (0, 1))
    return reserved, settled, seconds


def row(name: str, processes: int, cost: int, reserved: list, settled: list, seconds: float) -> None:
    def at(times: list, part: float) -> float:
        return times[int(len(times) * part)]

    print(
        f"{name:8}{processes:>10}{cost:>14,}"
        f"{at(reserved, 0.5):>9.1f}{at(reserved, 0.99):>9.1f}{at(settled, 0.5):>9.1f}{at(settled, 0.99):>9.1f}"
        f"{len(reserved) / seconds:>12,.0f}"
    )


def main(decisions: int) -> None:
    print(f"{'':32}{'reserve, us':>18}{'settle, us':>18}")
    print(f"{'store':8}{'processes':>10}{'cost':>14}{'median':>9}{'p99':>9}{'median':>9}{'p99':>9}{'calls/s':>12}")
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as place:
        for name, processes, cost in [
            ("memory", 1, 1),
            ("memory", 1, 10**9),
            ("local", 1, 1),
            ("local", 1, 10**9),
            ("local", 4, 1),
            ("local", 4, 10**9),
        ]:
            directory = Path(place) / f"{processes}-{cost}" if name == "local" else None
            row(name, processes, cost, *measure_together(directory, decisions, cost, processes))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
