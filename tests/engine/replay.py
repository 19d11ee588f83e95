"""Works every answer of a soak's log out again, and looks at what was granted."""

from collections import deque
from itertools import pairwise

from soak import RESERVE, SETTLE, Logged, read_log, request, settlements, verdicts_of

from flask_ailimit.engine import decide
from flask_ailimit.engine.stores.renewing import by_count


class Replay:
    """Over a plain dictionary, in the order of the log."""

    def __init__(self):
        self.records = {}
        self.decisions = self.allowed = self.settled = self.passed = self.different = self.uncommitted = 0
        self.granted = {}  # By subject and quota: [time, cost] in the order granted

    def run(self, log, last_transaction):
        ahead = Logged(RESERVE, 0, 0, last_transaction + 1, 0, 0, ())  # What would be written next.
        for logged, following in pairwise([*read_log(log), ahead]):
            # Each number follows from the one before, so there is no commit that nobody has logged.
            assert following.transaction - logged.transaction in (0, 1)
            self.step(logged, is_committed=following.transaction > logged.transaction)

    def step(self, logged, *, is_committed):
        charges, _ = request(logged.slot, logged.number)
        if logged.kind == RESERVE:
            answer, changes = decide.decide(self.read, charges, logged.now_us, logged.lease)
            self.different += verdicts_of(answer) != logged.body
            self.decisions += 1
            self.allowed += answer.allowed
            if answer.allowed and is_committed:
                for charge in charges:
                    self.granted.setdefault((charge.subject, charge.quota), []).append((logged.now_us, charge.cost))
        elif logged.kind == SETTLE:
            taken_at_us, *told = logged.body
            ended = settlements(request(logged.slot, logged.number), taken_at_us, logged.lease)
            answer, changes = decide.settle(self.read, ended, logged.now_us)
            self.different += [answer.unknown, len(answer.passed)] != told
            self.passed += len(answer.passed)
            self.settled += 1
        else:
            leases = [(charge, logged.lease) for charge in charges if charge.quota.unit == "concurrency"]
            changes = decide.renew(self.read, by_count(leases), logged.now_us)
        if is_committed:
            self.records.update(changes)
        else:
            self.uncommitted += any(record != self.read(subject) for subject, record in changes.items())

    def read(self, subject):
        return dict(self.records.get(subject, {}))

    def over_admitted(self):
        """Requests beyond what their limit allows, counted without the engine: these are never refunded."""
        over = 0
        for (_, quota), granted in self.granted.items():
            if quota.unit == "requests":
                over += sum(units > quota.limit for units in MOST[quota.algorithm](quota, granted))
        return over


def in_each_window(quota, granted):
    windows = {}
    for now, cost in granted:
        window = now // (quota.period * 1_000_000)
        windows[window] = windows.get(window, 0) + cost
    return windows.values()


def in_each_period(quota, granted):
    inside, units = deque(), 0
    for now, cost in granted:
        inside.append((now, cost))
        units += cost
        while inside[0][0] <= now - quota.period * 1_000_000:
            units -= inside.popleft()[1]
        yield units


def in_a_leaking_bucket(quota, granted):
    debt, at = 0, 0
    for now, cost in granted:
        debt = max(0, debt - (now - at) * quota.limit) + cost * quota.period * 1_000_000
        at = now
        yield debt / (quota.period * 1_000_000)


MOST = {"fixed-window": in_each_window, "moving-window": in_each_period, "token-bucket": in_a_leaking_bucket}
