"""Works every answer of a soak's log out again, and looks at what was granted and at what Redis keeps in the end."""

import struct

from redis_soak import ALL, PREFIX, read_log, request
from redis_traffic import key_of
from replay import Replay
from soak import RESERVE, SETTLE, SUBJECTS, settlements, verdicts_of

from flask_ailimit.engine import Settled, decide
from flask_ailimit.engine.stores import record
from flask_ailimit.engine.stores.redis.packing import unpack_decision, unpack_settled
from flask_ailimit.engine.stores.renewing import by_count

NUMBER_BYTES = 8
REMEMBERED_US = 10_000_000
"""How long a marker lives. A decision that nobody undid in that time, on a machine that stood still, stays charged."""


def settled_of(answer, ended):
    """What a logged answer says. If nothing is told of a count, it is a number."""
    return unpack_settled(*(struct.unpack("<q", answer) if len(answer) == NUMBER_BYTES else (answer,)), ended)


class RedisReplay(Replay):
    """Over a plain dictionary, in the order of the log."""

    def __init__(self):
        super().__init__()
        self.made = {}  # When the decision of a lease was made, or given up, as its marker says.
        self.ended = set()
        self.repeated = self.undone = self.given_up = 0

    def run(self, log):
        for logged in read_log(log):
            charges, actuals = request(logged.slot, logged.number)
            if logged.kind == RESERVE:
                self.reserve(logged, charges)
            elif logged.kind == SETTLE:
                self.settle(logged, charges, actuals)
            else:
                leases = [(charge, logged.lease) for charge in charges if charge.quota.unit == "concurrency"]
                self.records.update(decide.renew(self.read, by_count(leases), logged.now_us))

    def reserve(self, logged, charges):
        told = unpack_decision(logged.answer, charges)
        if not logged.is_new:  # It was sent again: it is told what is left now, and takes nothing.
            charges = [charge.costing(0) for charge in charges]
            answer, _ = decide.decide(self.read, charges, logged.now_us, logged.lease)
            self.different += (verdicts_of(answer), self.made[logged.lease]) != (verdicts_of(told), told.at_us)
            self.repeated += 1
            return
        assert logged.lease not in self.made
        answer, changes = decide.decide(self.read, charges, logged.now_us, logged.lease)
        self.different += (verdicts_of(answer), logged.now_us) != (verdicts_of(told), told.at_us)
        self.decisions += 1
        self.records.update(changes)
        if answer.allowed:
            self.allowed += 1
            self.made[logged.lease] = logged.now_us
            for charge in charges:
                self.granted.setdefault((charge.subject, charge.quota), []).append((logged.now_us, charge.cost))

    def settle(self, logged, charges, actuals):
        told = settled_of(logged.answer, settlements((charges, actuals), 0, 0))
        if not logged.is_new:
            assert logged.lease in self.ended
            self.different += told != Settled(0)
            self.repeated += 1
            return
        assert logged.lease not in self.ended
        self.ended.add(logged.lease)
        taken_at_us = self.made.setdefault(logged.lease, logged.now_us)
        if logged.is_undone is None:
            assert logged.details == [(taken_at_us, actual) for actual in actuals]
        elif logged.is_undone:  # It had not been made; if it still comes, it takes nothing.
            age_us = logged.now_us - taken_at_us
            assert age_us == 0 or age_us >= REMEMBERED_US, f"It was made {age_us} microseconds before."
            self.different += told != Settled(0)
            self.given_up += 1
            return
        else:
            self.undone += 1
            actuals = [0] * len(charges)
            for charge in charges:
                self.granted[charge.subject, charge.quota].remove((taken_at_us, charge.cost))
        # What is brought in the background is told to nobody.
        asked = [
            charge._replace(quota=charge.quota.told_as("", soft_percent=charge.quota.soft_percent * (soft >= 0)))
            for charge, soft in zip(charges, logged.soft, strict=True)
        ]
        ended = settlements((asked, actuals), taken_at_us, logged.lease)
        answer, changes = decide.settle(self.read, ended, logged.now_us)
        self.different += answer != told
        self.passed += len(told.passed)
        self.settled += 1
        self.records.update(changes)

    def differing(self, kept):
        """The subjects of which Redis kept something else than was worked out, or for too short a time."""
        found = []
        for subject, (raw, left_ms, now_us) in kept.items():
            alive = {name: b for name, b in self.read(subject).items() if b.expires_us > now_us}
            there = record.decode(raw or record.encode({}))
            same = all(name in there and there[name].state == bucket.state for name, bucket in alive.items())
            if not same or any(bucket.expires_us - now_us > left_ms * 1000 for bucket in alive.values()):
                found.append(subject)
        return found


def snapshot(client):
    """What Redis keeps of each subject: the record, milliseconds to its end, and what time it was."""
    kept = {}
    for subject in (*SUBJECTS, ALL):
        key = key_of(subject, PREFIX)
        raw, left_ms, (seconds, microseconds) = client.pipeline().get(key).pttl(key).time().execute()
        kept[subject] = (raw, left_ms, seconds * 1_000_000 + microseconds)
    return kept
