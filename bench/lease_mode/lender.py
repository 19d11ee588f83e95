"""Redis's side: the counts, by the limiter's own algorithms, and what is lent of them. Each method is part of one trip.

What is lent is held beside the count and doesn't leak. A worker tells what it spent, and only then is it charged.
``leaking`` is the plain way, which the operations of today could do: to lend is to charge, and time forgives the debt
of what is lent although nobody has spent it yet. It grants too much, and is here to show that.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace

from arrivals import SECOND

from flask_ailimit.engine import Quota
from flask_ailimit.engine.algorithms import ALGORITHMS, State


@dataclass(frozen=True, slots=True)
class Loan:
    """What one worker has of one subject: balance, calls still open, and what it spent and didn't tell yet.

    Attributes:
        units: At the time of the loan.
        since_us: That time.
        runs_us: How long it may be spent.
        rate: Units per period that are added, a part of the quota's own rate.
        cap: Up to here.
        demand: What the worker said that it needs.
        period_us: The quota's.
    """

    units: int
    since_us: int
    runs_us: int
    rate: int
    cap: int
    demand: float
    period_us: int

    @property
    def ends_us(self) -> int:
        """When the lender takes it for spent."""
        return self.since_us + self.runs_us

    def at(self, now_us: int) -> int:
        """Units by now."""
        if not self.rate:
            return self.units
        passed = min(now_us - self.since_us, self.runs_us)
        return max(self.units, min(self.cap, self.units + self.rate * passed // self.period_us))


class Lender:
    """Counts of all subjects under one quota.

    Args:
        quota: It.
        lease_us: How long what is lent may be spent.
        rates: The part of the quota's rate that is lent, shared by demand.
        leaking: See above.
    """

    def __init__(self, quota: Quota, lease_us: int, *, rates: float = 0, leaking: bool = False) -> None:
        self.quota = quota
        self._lease_us = lease_us
        self._rates = int(quota.limit * rates)
        self._leaking = leaking
        self._algorithm = ALGORITHMS[quota.algorithm]
        self._states: dict[int, State] = {}
        self._loans: defaultdict[int, dict[int, Loan]] = defaultdict(dict)
        self._edges = quota.period * SECOND if quota.algorithm == "fixed-window" else 0

    def settle(self, subject: int, now_us: int, taken_at_us: int, cost: int, actual: int) -> None:
        """Make the count what it were had ``actual`` been charged in place of ``cost``."""
        state = self._states.get(subject, ())
        self._states[subject] = self._algorithm.settle(state, now_us, self.quota, taken_at_us, cost, actual, 0)

    def take_back(self, subject: int, worker: int, now_us: int, in_use: int, spent: int) -> None:
        """Take the worker's balance back, and charge what it spent. What its open calls hold stays lent."""
        self._end_loans(subject, now_us)
        loan = self._loans[subject].pop(worker, None)
        if loan and self._leaking:
            self.settle(subject, now_us, loan.since_us, loan.units - in_use - spent, 0)
        elif loan:
            self.settle(subject, now_us, now_us, 0, spent)
        if loan and in_use:
            self._loans[subject][worker] = replace(loan, units=in_use, since_us=now_us, rate=0, cap=in_use, demand=0)

    def charge(self, subject: int, now_us: int, cost: int) -> bool:
        """Take ``cost``, as the limiter does, if it fits beside all that is lent."""
        self._end_loans(subject, now_us)
        state, lent = self._states.get(subject, ()), self._lent(subject, now_us)
        step = self._algorithm.admit(state, now_us, self.quota, cost + lent, 0)
        if step.allowed:
            taken = self._algorithm.admit(state, now_us, self.quota, cost, 0) if lent else step
            self._states[subject] = taken.state
        return step.allowed

    def lend(
        self, subject: int, worker: int, now_us: int, in_use: int, demand: float, wanted: Callable[[int], int]
    ) -> Loan:
        """Lend what is wanted of what is free, and again what the worker's open calls hold."""
        self._end_loans(subject, now_us)
        loans, burst = self._loans[subject], self.quota.burst
        loans.pop(worker, None)
        state = self._states.get(subject, ())
        remaining = self._algorithm.admit(state, now_us, self.quota, 0, 0).remaining
        uncapped = burst - sum(loan.cap for loan in loans.values()) - in_use
        free = max(0, min(remaining - self._lent(subject, now_us) - in_use, uncapped))
        units = min(free, wanted(free))
        runs_us = min(self._lease_us, self._edges - now_us % self._edges) if self._edges else self._lease_us
        rate, cap = 0, units
        if self._rates and demand:
            fair = self._rates * demand / (demand + sum(loan.demand for loan in loans.values()))
            rate = max(0, min(int(fair), self._rates - sum(loan.rate for loan in loans.values())))
            cap = max(units, min(units + rate * runs_us // (self.quota.period * SECOND), uncapped))
        loan = Loan(units + in_use, now_us, runs_us, rate, cap + in_use, demand, self.quota.period * SECOND)
        if self._leaking:
            self.settle(subject, now_us, now_us, 0, units)
        if loan.cap:
            loans[worker] = loan
        return loan

    def _lent(self, subject: int, now_us: int) -> int:
        return 0 if self._leaking else sum(loan.at(now_us) for loan in self._loans[subject].values())

    def _end_loans(self, subject: int, now_us: int) -> None:
        """Charge what was lent to workers that said nothing until the end: all of it may have been spent."""
        loans = self._loans[subject]
        ended = [(loan.ends_us, worker) for worker, loan in loans.items() if loan.ends_us <= now_us]
        for ends_us, worker in sorted(ended):
            loan = loans.pop(worker)
            # What was lent of a window that is over matters no more.
            if not self._leaking and not (self._edges and ends_us % self._edges == 0):
                self.settle(subject, ends_us, ends_us, 0, loan.at(ends_us))
