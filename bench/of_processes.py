"""A decision on local:// while four processes decide as fast as they can, beside the same of one process alone.

All share one directory, and so one lock. They share the processor's cores as well, which makes them wait without any
lock: how long, the same on memory:// tells, where they share nothing.
"""

import time
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from statistics import quantiles

from figures import Figure, Size, ratios
from of_engine import COST, USERS, charges_of, open_engine
from places import directory

PROCESSES = 4
SECONDS = 0.4
LEAST = 100
"""Decisions of each process, however long it waits for a processor: fewer have no slowest hundredth."""

AIM = 10.0

_FORK = get_context("fork")


def figures(size: Size) -> list[Figure]:
    """The slowest hundredth, and how many decisions all make together."""
    kinds = [(store, processes) for store in ("local", "memory") for processes in (1, PROCESSES)]
    slow: dict[tuple[str, int], list[float]] = {kind: [] for kind in kinds}
    rates: dict[tuple[str, int], list[float]] = {kind: [] for kind in kinds}
    seconds = max(0.05, SECONDS * size.share)
    with directory() as place:
        for block in range(size.rounds(1 / 3)):
            for store, processes in kinds if block % 2 else kinds[::-1]:
                uri = f"local://{place}/{processes}" if store == "local" else "memory://"
                times, rate = decide_together(uri, processes, seconds)
                slow[store, processes].append(quantiles(times, n=100)[-1])
                rates[store, processes].append(rate)
    alone, together = slow["local", 1], slow["local", PROCESSES]
    nothing_shared = ratios(slow["memory", PROCESSES], slow["memory", 1])
    behind = {"p99 alone": alone, f"p99 of {PROCESSES} processes": together}
    behind_memory = {"p99 alone": slow["memory", 1], f"p99 of {PROCESSES} processes": slow["memory", PROCESSES]}
    throughput = ratios(rates["local", PROCESSES], rates["local", 1])
    return [
        Figure(f"p99 of a decision, local://, {PROCESSES} busy processes / alone", ratios(together, alone), "x", AIM,
               times=behind, remark="of the processor's time slices, too: see the next row"),
        Figure(f"p99 of a decision, memory:// (nothing shared), {PROCESSES} busy processes / alone", nothing_shared,
               times=behind_memory, remark="what the machine alone does to processes that share no lock"),
        Figure(f"decisions with settlements a second, local://, {PROCESSES} processes / 1", throughput,
               remark=f"{sum(rates['local', 1]) / len(alone):,.0f} a second alone"),
    ]  # fmt: skip


def decide_together(uri: str, processes: int, seconds: float) -> tuple[list[float], float]:
    """Microseconds of each decision of all processes, and how many they make together in a second."""
    ready, told = _FORK.Barrier(processes), _FORK.SimpleQueue()
    workers = [
        _FORK.Process(target=decide_for, args=(uri, seconds, number, ready, told), daemon=True)
        for number in range(processes)
    ]
    for worker in workers:
        worker.start()
    times: list[float] = []
    rate = 0.0
    for _ in workers:
        while told.empty():
            if any(worker.exitcode for worker in workers):
                raise RuntimeError("One of the processes failed, and the others wait for it.")
            time.sleep(0.01)
        of_one, took = told.get()
        times += of_one
        rate += len(of_one) / took
    for worker in workers:
        worker.join()
    return times, rate


def decide_for(uri: str, seconds: float, number: int, ready: object, told: SimpleQueue) -> None:
    """Decide and settle as one of several, for all users in an order of its own."""
    engine = open_engine(uri)
    asked = [charges_of(engine, user) for user in USERS]
    for charges in asked:
        engine.reserve(charges).settle({"tokens": COST // 2})
    times = []
    ready.wait()
    began = time.perf_counter()
    while len(times) < LEAST or time.perf_counter() < began + seconds:
        charges = asked[(len(times) * 7 + number * 31) % len(asked)]
        start = time.perf_counter_ns()
        reservation = engine.reserve(charges)
        times.append((time.perf_counter_ns() - start) / 1000)
        if not reservation.allowed:
            raise RuntimeError("It was refused, which costs less than the work.")
        reservation.settle({"tokens": COST // 2})
    took = time.perf_counter() - began
    engine.close()
    told.put((times, took))
