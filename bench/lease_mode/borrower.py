"""A worker's side: decides by what it has borrowed, and goes to the lender when that is not enough.

A request that needs a trip is charged on that trip, as the limiter does; what is borrowed beside it is for the next.
With nothing borrowed beside, and settlements sent at once, this is the limiter of today.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from arrivals import SECOND, Request
from lender import Lender, Loan

from flask_ailimit.engine import Quota

Schedule = Callable[[int, Callable[[int], None]], None]
"""Calls something with the time, at that microsecond."""

_SUBJECTS_PER_TRIP = 500


@dataclass(frozen=True)
class Policy:
    """How much is borrowed, and for how long.

    Attributes:
        name: For the table.
        share: Borrow this part of the burst at a time.
        guard: Only where this many such parts are free.
        horizon_us: Or borrow what was asked for in about so long.
        reach: But no more than this part of what is free.
        lease_us: What is borrowed must be renewed within this time; workers do so each third of it.
        flush_us: Settlements wait this long for a trip that goes anyway. 0: each is a trip.
        memory_us: Refuse without a trip what would cost as much as what was refused less than this ago.
        rates: Lend this part of the quota's rate as well, shared by demand.
        leaking: See :mod:`lender`.
        slow: A worker's clock runs slow by this part.
        margin: And this part of each lease is not used, for that reason.
    """

    name: str
    share: float = 0
    guard: int = 0
    horizon_us: int = 0
    reach: float = 0
    lease_us: int = 30 * SECOND
    flush_us: int = SECOND
    memory_us: int = 0
    rates: float = 0
    leaking: bool = False
    slow: float = 0
    margin: float = 0

    @property
    def borrows(self) -> bool:
        """Whether anything is ever borrowed."""
        return self.share > 0 or self.horizon_us > 0

    def wanted(self, free: int, quota: Quota, demand: float) -> int:
        """Units to hold, of those that are free."""
        if self.horizon_us:
            return int(min(demand, free * self.reach))
        chunk = math.ceil(quota.burst * self.share)
        return chunk if demand and free >= chunk * self.guard else 0


@dataclass(eq=False)
class Lease:
    """What a worker has of one subject, as it knows it. ``spent`` has been settled, ``in_use`` has not."""

    loan: Loan
    ends_us: int
    wanted: int
    in_use: int = 0
    spent: int = 0

    def balance(self, now_us: int) -> int:
        """Units that may be spent."""
        return self.loan.at(now_us) - self.in_use - self.spent


@dataclass
class Demand:
    """Units asked for, those of long ago forgotten."""

    units: float = 0
    at_us: int = 0

    def add(self, units: int, now_us: int, horizon_us: int) -> None:
        self.units = self.at(now_us, horizon_us) + units
        self.at_us = now_us

    def at(self, now_us: int, horizon_us: int) -> float:
        idle_us = now_us - self.at_us
        return self.units * math.exp(-idle_us / horizon_us) if idle_us < horizon_us else 0


@dataclass
class Worker:
    """One of those that decide."""

    number: int
    lender: Lender
    policy: Policy
    schedule: Schedule
    trips: int = 0
    most_held: int = 0
    _leases: dict[int, Lease] = field(default_factory=dict)
    _demand: dict[int, Demand] = field(default_factory=dict)
    _paid_from: dict[int, Lease | None] = field(default_factory=dict)
    _unsettled: list[Request] = field(default_factory=list)
    _due: set[int] = field(default_factory=set)
    _refused: dict[int, tuple[int, int]] = field(default_factory=dict)
    _flushes: bool = False
    _ticks: bool = False

    def ask(self, index: int, request: Request, now_us: int) -> bool:
        """Decide."""
        subject, cost = request.subject, request.reserve
        self._demand.setdefault(subject, Demand()).add(cost, now_us, self._horizon_us)
        lease = self._living(subject, now_us)
        if lease and lease.balance(now_us) >= cost:
            lease.in_use += cost
            self._paid_from[index] = lease
            return True
        least, until_us = self._refused.get(subject, (0, 0))
        if now_us < until_us and cost >= least:
            return False
        self._due.add(subject)
        if not self._trip(now_us, request):
            self._refused[subject] = cost, now_us + self.policy.memory_us
            return False
        self._paid_from[index] = None
        return True

    def settle(self, index: int, request: Request, now_us: int) -> None:
        """Make what was taken what was used: in the lease it came from, else at the lender."""
        lease = self._paid_from.pop(index)
        if lease is None:
            if request.actual != request.reserve:
                self._unsettled.append(request)
                if request.actual > request.reserve:
                    self._trip(now_us)  # The others must know at once.
                else:
                    self._flush_soon(now_us)
            return
        if lease is not self._living(request.subject, now_us):
            overrun = request.actual - request.reserve
        else:
            lease.in_use -= request.reserve
            lease.spent += request.actual
            overrun = -lease.balance(now_us)
            lease.spent -= max(0, overrun)
        if overrun > 0:
            # Nothing borrowed is left to pay it.
            self.trips += 1
            self.lender.settle(request.subject, now_us, now_us, 0, overrun)
        elif lease.balance(now_us) > 2 * lease.wanted:
            self._due.add(request.subject)
            self._flush_soon(now_us)

    @property
    def _horizon_us(self) -> int:
        return self.policy.horizon_us or self.policy.lease_us

    def _living(self, subject: int, now_us: int) -> Lease | None:
        lease = self._leases.get(subject)
        if lease and lease.ends_us <= now_us:
            del self._leases[subject]
            return None
        return lease

    def _trip(self, now_us: int, asked: Request | None = None) -> bool:
        """Once to the lender and back: settle, tell what was spent, charge, and borrow anew."""
        self.trips += max(1, -(-len(self._due) // _SUBJECTS_PER_TRIP))
        for request in self._unsettled:
            self.lender.settle(request.subject, now_us, request.at_us, request.reserve, request.actual)
        self._unsettled.clear()
        for subject in self._due:
            lease = self._living(subject, now_us)
            if lease:
                self.lender.take_back(subject, self.number, now_us, lease.in_use, lease.spent)
                lease.spent = 0
        allowed = asked is None or self.lender.charge(asked.subject, now_us, asked.reserve)
        for subject in sorted(self._due) if self.policy.borrows else ():
            self._borrow(subject, now_us)
        self._due.clear()
        self._tick_later(now_us)
        return allowed

    def _borrow(self, subject: int, now_us: int) -> None:
        demand = self._demand[subject].at(now_us, self._horizon_us)
        wanted, quota = self.policy.wanted, self.lender.quota
        lease = self._leases.pop(subject, None)
        in_use = lease.in_use if lease else 0
        loan = self.lender.lend(subject, self.number, now_us, in_use, demand, lambda free: wanted(free, quota, demand))
        if not loan.cap:
            return
        runs_us = int(loan.runs_us * (1 + self.policy.slow) * (1 - self.policy.margin))
        lease = lease or Lease(loan, 0, 0)
        lease.loan, lease.ends_us, lease.wanted = loan, now_us + runs_us, loan.cap - in_use
        self._leases[subject] = lease
        self.most_held = max(self.most_held, loan.cap - in_use)

    def _flush_soon(self, now_us: int) -> None:
        if not self.policy.flush_us:
            self._trip(now_us)
        elif not self._flushes:
            self._flushes = True
            self.schedule(now_us + self.policy.flush_us, self._flush)

    def _flush(self, now_us: int) -> None:
        self._flushes = False
        if self._unsettled or self._due:
            self._trip(now_us)

    def _tick_later(self, now_us: int) -> None:
        if self._leases and not self._ticks:
            self._ticks = True
            self.schedule(now_us + self.policy.lease_us // 3, self._tick)

    def _tick(self, now_us: int) -> None:
        """Renew, give back and borrow, for all subjects at once."""
        self._ticks = False
        self._due.update(subject for subject in list(self._leases) if self._living(subject, now_us))
        if self._due:
            self._trip(now_us)
