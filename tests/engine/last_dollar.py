"""Calls that take the last dollar of a budget in parallel, some of which are killed, and the sums of what they did.

Each writes into one file what it has taken, what it has used (before it is settled) and that it has settled.
"""

import os
import random
import signal
import struct
import time
import traceback
from collections import Counter
from dataclasses import replace
from typing import NamedTuple

from soak import spawn

from flask_ailimit.engine import Charge, Quota
from flask_ailimit.engine.grant import Grant
from flask_ailimit.engine.quota import LATEST_SECOND

TAKEN, USED, SETTLED, REFUSED = range(4)

CALLERS = 20
CALLS = 15
"""Of each caller."""

DOLLAR = 10**9
SUBJECT = b"spender".ljust(16)
GONE_US = 600 * 10**6
"""When whoever is still in flight is taken for gone, in microseconds."""

_PLAIN = Quota(DOLLAR, 1, "nano_usd", "budget", every="month")
_GRANTS = (Grant(1, DOLLAR // 10, 0, LATEST_SECOND), Grant(2, DOLLAR // 4, 0, LATEST_SECOND - 1))
BUDGETS = {
    "a month": _PLAIN,
    "a balance": replace(_PLAIN, every="ever"),
    "credit": replace(_PLAIN, limit=0, burst=None, credit=(Grant(1, DOLLAR, 0, LATEST_SECOND),)),
    "a month and credit": replace(_PLAIN, limit=DOLLAR * 13 // 20, burst=None, credit=_GRANTS),
}
"""A dollar each."""

_RECORD = struct.Struct("<BQQQ")


class Log:
    """What callers did. Each entry is written in one step, so a kill leaves it whole or leaves none."""

    def __init__(self, path):
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, kind, lease=0, cost=0, actual=0):
        os.write(self._file, _RECORD.pack(kind, lease, cost, actual))

    @property
    def entries(self):
        return self._path.stat().st_size // _RECORD.size

    def read(self):
        os.close(self._file)
        return list(_RECORD.iter_unpack(self._path.read_bytes()))


class Sums(NamedTuple):
    """What a log comes to.

    Attributes:
        overran: What calls used beyond their reservations.
        within: What they used of their reservations.
        least: What must be charged, whatever became of those that were killed.
        counts: How many entries of each kind.
    """

    overran: int
    within: int
    least: int
    counts: Counter


def sums_of(entries):
    calls, counts = {}, Counter()
    for kind, lease, cost, actual in entries:
        counts[kind] += 1
        if kind != REFUSED:
            calls[lease] = kind, cost, actual
    used = [(cost, actual) for kind, cost, actual in calls.values() if kind != TAKEN]
    settled = sum(actual for kind, _, actual in calls.values() if kind == SETTLED)
    unsettled = [(cost, actual) for kind, cost, actual in calls.values() if kind != SETTLED]
    return Sums(
        sum(max(0, actual - cost) for cost, actual in used),
        sum(min(actual, cost) for cost, actual in used),
        settled + sum(min(cost, actual or cost) for cost, actual in unsettled),
        counts,
    )


def call_on(engine, quota, log, seed, *, dies=None):
    """Make a caller's calls: reserve, use something, settle. ``dies`` is called in the middle of the first."""
    draw = random.Random(seed)
    for _ in range(CALLS):
        cost = draw.randrange(1, DOLLAR // 40)
        reservation = engine.reserve([Charge(SUBJECT, quota, cost)])
        if not reservation.allowed:
            log.note(REFUSED)
            time.sleep(0.002)  # Others have it. They go on meanwhile.
            continue
        log.note(TAKEN, reservation._lease, cost)
        time.sleep(draw.random() * 0.01)
        if dies:
            dies()
            return
        actual = max(1, round(cost * draw.choice([0.01, 0.2, 0.5, 1, 1.3])))
        log.note(USED, reservation._lease, cost, actual)
        assert reservation.settle({quota.unit: actual})
        log.note(SETTLED, reservation._lease, cost, actual)


def processes_call(open_engine, quota, log, seed, kills):
    """Have processes call at once, and kill some of them; answer how many were killed.

    Every fifth ends itself while it holds a reservation. When these have, the others begin at once, and so many of all
    are killed wherever they are just then.
    """
    draw, (waits, gate) = random.Random(seed), os.pipe()

    def work(slot):
        dies = (lambda: os.kill(os.getpid(), signal.SIGKILL)) if slot % 5 == 0 else None
        os.close(gate)
        try:
            if not dies:
                os.read(waits, 1)
            call_on(open_engine(), quota, log, f"{seed} {slot}", dies=dies)
        except BaseException:
            traceback.print_exc()
            raise

    running = [spawn(work, slot) for slot in range(CALLERS)]
    while log.entries < CALLERS // 5:
        time.sleep(0.001)
    os.close(gate)  # By the last who has it: whoever waits reads its end.
    for child in draw.sample(running, kills):
        time.sleep(draw.random() * 0.03)
        os.kill(child, signal.SIGKILL)  # Nobody has waited for it, so the number is still its own.
    os.close(waits)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in running]
    assert set(codes) <= {0, -signal.SIGKILL}
    return codes.count(-signal.SIGKILL)


def charged_of(store, quota):
    """What a store has charged: of the window, of the credit and beyond; and what of it is only reserved."""
    (verdict,) = store.peek([Charge(SUBJECT, quota, 0)]).verdicts
    spent, reserved, credit, reserved_credit, _ = verdict.spending
    return spent + reserved + sum(grant.amount for grant in quota.credit) - credit, reserved + reserved_credit


def check(sums, charged):
    """Nothing was granted twice, and nothing was forgotten."""
    assert sums.within <= DOLLAR
    assert sums.least <= charged <= DOLLAR + sums.overran


def figures(rounds):
    """Print what many rounds came to, each the sums of its log, what was charged, and how many were killed."""
    calls = sum(sums.counts[kind] for sums, *_ in rounds for kind in (TAKEN, REFUSED))
    overran = sum(sums.overran for sums, *_ in rounds) / DOLLAR
    most = max((charged - sums.overran) / DOLLAR for sums, charged, _ in rounds)
    print(  # noqa: T201  the figures, with -s
        f"\n{len(rounds)} budgets of a dollar, {calls} calls, {sum(killed for *_, killed in rounds)} kill -9, "
        f"{overran:.2f} used beyond reservations; but for that at most {most:.6f} of a dollar were charged"
    )
