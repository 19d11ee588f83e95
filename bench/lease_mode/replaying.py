"""Let a fleet of workers decide over all requests, and compare what came of it."""

import heapq
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from arrivals import Request
from borrower import Policy, Worker
from lender import Lender

from flask_ailimit.engine import Quota


@dataclass(frozen=True)
class Outcome:
    """What a replay did: which requests were admitted, in how many trips, and the most that a worker borrowed."""

    admitted: list[bool]
    trips: int
    most_held: int


class Agenda:
    """What is to happen, in the order of time; what is for one time in the order in which it was written down."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, int, Callable[[int], None]]] = []
        self._written = 0

    def write(self, at_us: int, do: Callable[[int], None]) -> None:
        """Note that it is to be done then."""
        self._written += 1
        heapq.heappush(self._entries, (at_us, self._written, do))

    def run(self, until_us: int) -> None:
        """Do all that is to be done until then."""
        while self._entries and self._entries[0][0] <= until_us:
            at_us, _, do = heapq.heappop(self._entries)
            do(at_us)


def replay(requests: Sequence[Request], quota: Quota, policy: Policy) -> Outcome:
    """Ask and settle all, without a network's delays: each trip is over in the moment it begins."""
    lender, agenda = Lender(quota, policy.lease_us, rates=policy.rates, leaking=policy.leaking), Agenda()
    workers = {n: Worker(n, lender, policy, agenda.write) for n in sorted({request.worker for request in requests})}
    admitted = []
    for number, request in enumerate(requests):
        agenda.run(request.at_us)
        worker = workers[request.worker]
        allowed = worker.ask(number, request, request.at_us)
        admitted.append(allowed)
        if allowed:
            agenda.write(request.ends_us, _settling(worker, number, request))
    # Ticks end by themselves once nothing is asked for any more.
    agenda.run(max((request.ends_us for request in requests), default=0))
    return Outcome(
        admitted, sum(w.trips for w in workers.values()), max((w.most_held for w in workers.values()), default=0)
    )


def _settling(worker: Worker, number: int, request: Request) -> Callable[[int], None]:
    return lambda now_us: worker.settle(number, request, now_us)


def fairness(requests: Sequence[Request], admitted: Sequence[bool]) -> float:
    """Jain's index of the workers' admitted shares: 1 if all are equal, 1/n if one alone gets anything.

    Source: Jain, Chiu, Hawe, "A Quantitative Measure of Fairness", DEC-TR-301, 1984.
    """
    asked: defaultdict[int, int] = defaultdict(int)
    got: defaultdict[int, int] = defaultdict(int)
    for request, allowed in zip(requests, admitted, strict=True):
        asked[request.worker] += 1
        got[request.worker] += allowed
    shares = [got[worker] / asked[worker] for worker in asked]
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def companions(requests: Sequence[Request], within_us: int) -> float:
    """The part of the requests that come so soon after another one at their worker that they could share its trip."""
    gone: dict[int, int] = {}
    riding = 0
    for request in requests:
        if request.at_us - gone.get(request.worker, -within_us) < within_us:
            riding += 1
        else:
            gone[request.worker] = request.at_us
    return riding / len(requests)


def first_calls(requests: Sequence[Request], within_us: int) -> int:
    """Requests whose worker has seen nothing of their subject for so long: no lease can be there, so each is a trip."""
    seen: dict[tuple[int, int], int] = {}
    first = 0
    for request in requests:
        key = request.worker, request.subject
        first += request.at_us - seen.get(key, -within_us) >= within_us
        seen[key] = request.at_us
    return first
