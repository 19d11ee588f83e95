"""What a decision costs with Redis, beside the least that can be asked of it: one INCRBY by redis-py.

    python bench/redis_decision.py [decisions] [valkey or redis]

A decision is that of ``decision.py``: three limits on requests, two on tokens and one on calls in flight. It starts a
server of its own, so times are those of one machine, without a network between. A round is an INCRBY, a decision and
its settlement; every other round has the INCRBY last. All run in the same minute: the ratios say more than the times.
"""

import sys
import time
from collections.abc import Callable
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import redis
from decision import SUBJECTS, charges_of

from flask_ailimit.engine import Engine, Reservation

sys.path.append(str(Path(__file__).parents[1] / "tests" / "redis"))
from redis_servers import Server, binary_of, start_server  # the tests' own way to start one
from redis_stores import store_at

SECRET = b"s" * 32
COST = 1000
BLOCKS = 20
FIELDS = ("used_cpu_user", "used_cpu_sys", "total_net_input_bytes", "total_net_output_bytes")


def engine_at(server: Server) -> Engine:
    return Engine(store_at(server.uri), secret=SECRET)


def rounds(server: Server, decisions: int) -> dict[str, list[float]]:
    """Microseconds of each operation, round by round."""
    engine, client = engine_at(server), redis.Redis(port=server.port)
    asked = [charges_of(engine, number, COST) for number in range(SUBJECTS)]
    times: dict[str, list[float]] = {"INCRBY": [], "reserve": [], "settle": []}

    def timed(name: str, do: Callable[[], Any]) -> Any:
        start = time.perf_counter_ns()
        answer = do()
        times[name].append((time.perf_counter_ns() - start) / 1000)
        return answer

    for number in range(decisions):
        charges, key = asked[number * 7 % SUBJECTS], f"plain:{number % SUBJECTS}"
        if number % 2:
            timed("INCRBY", lambda key=key: client.incrby(key, COST))
        reservation = timed("reserve", lambda charges=charges: engine.reserve(charges))
        timed("settle", lambda reservation=reservation: reservation.settle({"tokens": COST // 2}))
        if not number % 2:
            timed("INCRBY", lambda key=key: client.incrby(key, COST))
    engine.close()
    client.close()
    return times


def print_rounds(times: dict[str, list[float]]) -> None:
    """Medians, the middle half of all, and ratios to INCRBY with the middle half of those of the blocks."""
    print(f"{'one process':14}{'median us':>10}{'middle half':>16}{'to one INCRBY':>15}{'middle half':>15}")
    size = len(times["INCRBY"]) // BLOCKS
    for name, each in times.items():
        low, _, high = quantiles(each, n=4)
        blocks = [
            median(each[at : at + size]) / median(times["INCRBY"][at : at + size])
            for at in range(0, size * BLOCKS, size)
        ]
        least, middle, most = quantiles(blocks, n=4)
        spread, ratios = f"{low:.1f} to {high:.1f}", f"{least:.2f} to {most:.2f}"
        print(f"{name:14}{median(each):>10.1f}{spread:>16}{middle:>15.2f}{ratios:>15}")


def print_server_side(server: Server, decisions: int) -> None:
    """What the server says of its own work: the time inside a command, and the bytes that go over the network."""
    engine, client = engine_at(server), server.client()
    asked = [charges_of(engine, number, COST) for number in range(SUBJECTS)]
    charges_of_round = [asked[number % SUBJECTS] for number in range(decisions)]
    for charges in charges_of_round[:SUBJECTS]:
        engine.reserve(charges).cancel()
    print(f"\n{'server':14}{'us per call':>12}{'quietest':>10}{'CPU us':>10}{'bytes to it':>13}{'bytes back':>12}")
    reservations: list[Reservation] = []

    def row(name: str, command: str, do: Callable[[range], object]) -> None:
        usec, cpu = [], []
        for part in range(BLOCKS):
            server.ask("CONFIG", "RESETSTAT")
            asked_of_it, before = server.ask("INFO"), server.ask("INFO")
            do(range(decisions * part // BLOCKS, decisions * (part + 1) // BLOCKS))
            after, stats = server.ask("INFO"), server.ask("INFO", "commandstats")[f"cmdstat_{command}"]
            own = {field: before[field] - asked_of_it[field] for field in FIELDS}  # To ask costs, too.
            spent = {field: (after[field] - before[field] - own[field]) / stats["calls"] for field in FIELDS}
            usec.append(stats["usec_per_call"])
            cpu.append((spent["used_cpu_user"] + spent["used_cpu_sys"]) * 1e6)
        sent, received = spent["total_net_input_bytes"], spent["total_net_output_bytes"]
        print(f"{name:14}{median(usec):>12.1f}{min(usec):>10.1f}{median(cpu):>10.1f}{sent:>13.0f}{received:>12.0f}")

    row("INCRBY", "incrby", lambda part: [client.incrby("plain", COST) for _ in part])
    row("reserve", "evalsha", lambda part: reservations.extend(engine.reserve(charges_of_round[n]) for n in part))
    row("settle", "evalsha", lambda part: [reservations[n].settle({"tokens": COST // 2}) for n in part])
    engine.close()


def decide_for(server: Server, decisions: int, number: int) -> None:
    """Decide and settle, as one process of several."""
    engine = engine_at(server)
    asked = [charges_of(engine, subject, COST) for subject in range(SUBJECTS)]
    for each in range(decisions):
        engine.reserve(asked[(each * 7 + number * 131) % SUBJECTS]).settle({"tokens": COST // 2})
    engine.close()


def print_together(server: Server, decisions: int) -> None:
    """How many decisions one server makes and settles, and how much of a core that takes it."""
    print(f"\n{'processes':>9}{'decisions/s':>13}{'of a core, server':>19}{'server us/decision':>20}")
    context = get_context("fork")
    for processes in (1, 2, 4):
        each = decisions // processes
        workers = [context.Process(target=decide_for, args=(server, each, number)) for number in range(processes)]
        before, start = server.ask("INFO", "cpu"), time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        seconds, after = time.perf_counter() - start, server.ask("INFO", "cpu")
        busy = sum(after[field] - before[field] for field in ("used_cpu_user", "used_cpu_sys"))
        total = each * processes
        print(f"{processes:>9}{total / seconds:>13,.0f}{busy / seconds:>19.0%}{busy / total * 1e6:>20.1f}")


def main(decisions: int, name: str) -> None:
    binary = binary_of(name) or sys.exit(f"{name} is not installed.")
    with closing(start_server(binary)) as server:
        print(f"{name} {server.ask('INFO', 'server').get(f'{name}_version')}, redis-py {redis.__version__}\n")
        rounds(server, decisions // 10)
        print_rounds(rounds(server, decisions))
        print_server_side(server, decisions)
        print_together(server, decisions)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4_000, sys.argv[2] if len(sys.argv) > 2 else "valkey")
