"""Processes that decide over one local store until they are killed, and a log to work every answer out again.

Each process writes what it is about to commit to one file, inside the transaction. Whoever is inside holds the lock of
the machine, so the file is in the order of the commits. A record also names its transaction: LMDB numbers those that
change something one after the other, and the number of one that was killed before its commit is used again.
"""

import mmap
import os
import random
import struct
import time
from collections import deque
from contextlib import contextmanager
from typing import NamedTuple

from flask_ailimit.engine import Charge, Quota, Settlement, decide
from flask_ailimit.engine.stores.local import LocalStore

RESERVE, SETTLE, RENEW = range(3)

SUBJECTS = [bytes([i]) * 16 for i in range(5)]
QUOTAS = [
    Quota(40, 1, soft_percent=50),
    Quota(100, 3, algorithm="fixed-window", soft_percent=80),
    Quota(80, 2, algorithm="moving-window"),
    Quota(60_000, 1, "tokens", burst=100_000, soft_percent=90),
    Quota(100_000, 2, "tokens", "sliding-window-counter", soft_percent=1),
    Quota(20, 1, "concurrency", "concurrency"),
]

GATE = -1
"""Where, behind the progress of all slots, stands how many decisions are made before they wait for the next kill."""

LATE = 50
"""Decisions by which a kill may come late. Who kills may not be scheduled for a while, and nobody waits otherwise."""

NOTHING_MORE = 2**63

_SIZE = 256  # A power of two: no record lies across two pages, so a kill leaves whole ones.
_HEAD = struct.Struct("<BBHIQQQ")
_VERDICT = struct.Struct("<?QQq")
_SETTLED = struct.Struct("<QBB")
_NEVER = -1


class Logged(NamedTuple):
    kind: int
    slot: int
    number: int
    transaction: int
    now_us: int
    lease: int
    body: tuple


def request(slot, number):
    """The charges of this process's so-manieth request, and what each will really have cost."""
    draw = random.Random(slot << 32 | number)
    subject = draw.choice(SUBJECTS)
    charges = [
        Charge(subject, quota, draw.choice([1, 200, 5000]) if quota.unit == "tokens" else 1)
        for quota in draw.sample(QUOTAS, draw.randint(2, 6))
    ]
    part = draw.choice([0, 0.3, 1, 1.7])
    return charges, [round(c.cost * part) if c.quota.unit == "tokens" else c.cost for c in charges]


def settlements(asked, taken_at_us, lease):
    """Of a request: its charges, and what each has really cost."""
    return [Settlement(charge, taken_at_us, actual, lease) for charge, actual in zip(*asked, strict=True)]


def verdicts_of(decision):
    return tuple(
        (v.allowed, v.remaining, v.reset_after_us, _NEVER if v.retry_after_us is None else v.retry_after_us)
        for v in decision.verdicts
    )


class LoggedStore(LocalStore):
    def __init__(self, directory, log, slot):
        super().__init__(directory, lock_timeout=60)
        self.log = os.open(log, os.O_WRONLY | os.O_APPEND)
        self.slot = slot
        self.answers(decide, "decide")
        self.answers(decide, "settle")

    def answers(self, module, name):
        """Remember what the pure function answers, which here still does all the work."""
        function = getattr(module, name)

        def remembered(*arguments):
            self.answer, changes = function(*arguments)
            return self.answer, changes

        setattr(module, name, remembered)

    @contextmanager
    def transaction(self):
        with super().transaction() as transaction:
            yield transaction
            kind, number, lease, taken_at_us = self.about
            head = _HEAD.pack(kind, self.slot, 0, number, transaction._lmdb.id(), transaction.now_us, lease)
            if kind == RESERVE:
                body = b"".join(_VERDICT.pack(*verdict) for verdict in verdicts_of(self.answer))
            else:
                told = (self.answer.unknown, len(self.answer.passed)) if kind == SETTLE else (0, 0)
                body = _SETTLED.pack(taken_at_us, *told)
            os.write(self.log, (head + body).ljust(_SIZE, b"\0"))


def work(directory, log, progress, slot, decisions):
    """Decide until so many decisions of this slot are done, by this process and those killed before it."""
    store, draw, unsettled = LoggedStore(directory, log, slot), random.Random(), deque(maxlen=200)
    number = progress[slot]
    while number < decisions:
        if sum(progress[:GATE]) >= progress[GATE]:
            time.sleep(0.001)
            continue  # Somebody was to be killed long ago.
        lease = draw.getrandbits(53)
        charges, _ = request(slot, number)
        store.about = RESERVE, number, lease, 0
        decision = store.reserve(charges, lease)
        if decision.allowed:
            unsettled.append((number, decision.at_us, lease))
        number += 1
        progress[slot] = number
        while unsettled and draw.random() < 0.5:
            settled, taken_at_us, lease = unsettled.popleft() if draw.random() < 0.9 else unsettled.pop()
            store.about = SETTLE, settled, lease, taken_at_us
            store.settle(settlements(request(slot, settled), taken_at_us, lease))
        if unsettled and draw.random() < 0.05:
            renewed, taken_at_us, lease = draw.choice(unsettled)
            store.about = RENEW, renewed, lease, taken_at_us
            store.renew([(c, lease) for c in request(slot, renewed)[0] if c.quota.unit == "concurrency"])


def spawn(work, *arguments):
    child = os.fork()
    if child == 0:
        code = 70
        try:
            work(*arguments)
            code = 0
        finally:
            os._exit(code)
    return child


def soak(place, *, processes, decisions, kills):
    """Run it; answer the log's path and how many were killed."""
    log = place / "log"
    log.touch()
    (place / "progress").write_bytes(bytes(8 * (processes + 1)))
    draw = random.Random()
    with (place / "progress").open("r+b") as file, mmap.mmap(file.fileno(), 0) as shared:
        progress = memoryview(shared).cast("Q")

        def start(slot):
            return spawn(work, place / "limits", log, progress, slot, decisions)

        moments = deque(sorted(draw.randrange(processes * decisions * 19 // 20) for _ in range(kills)))

        def gate():
            return moments[0] + LATE if moments else NOTHING_MORE

        progress[GATE] = gate()
        running = {start(slot): slot for slot in range(processes)}
        killed = 0
        while running:
            while moments and sum(progress[:GATE]) >= moments[0]:
                moments.popleft()
                os.kill(draw.choice(list(running)), 9)
            progress[GATE] = gate()
            child, status = os.waitpid(-1, os.WNOHANG if moments else 0)
            if child:
                slot = running.pop(child)
                assert os.waitstatus_to_exitcode(status) in (0, -9)
                killed += os.WIFSIGNALED(status)
                if progress[slot] < decisions:
                    running[start(slot)] = slot
            else:
                time.sleep(0.002)  # Leaves the cores to those who decide.
        assert list(progress[:GATE]) == [decisions] * processes
        progress.release()
    return log, killed


def read_log(log):
    with log.open("rb") as file:
        while record := file.read(_SIZE):
            kind, slot, _, number, transaction, now_us, lease = _HEAD.unpack_from(record)
            if kind == RESERVE:
                count = len(request(slot, number)[0])
                body = tuple(_VERDICT.unpack_from(record, _HEAD.size + i * _VERDICT.size) for i in range(count))
            else:
                body = _SETTLED.unpack_from(record, _HEAD.size)
            yield Logged(kind, slot, number, transaction, now_us, lease, body)
