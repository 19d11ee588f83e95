"""Random requests, such as nobody sends and everybody may: great and small numbers, clocks that jump, long records."""

from collections import Counter
from random import Random

from twin_numbers import LEASED, changed, log_uniform, quota_of
from twin_oracle import Oracle, Rehearsal, answer_of, settled_of

from flask_ailimit.engine import Charge, Decision, Settled, Settlement
from flask_ailimit.engine.algorithms.gate import (
    FAULT,
    GOOD,
    HALF_OPEN,
    NEUTRAL,
    NOTHING,
    OPEN,
    PAUSED,
    Outcome,
    packed,
    standing_of,
)
from flask_ailimit.engine.clock import MICROSECONDS
from flask_ailimit.engine.quota import CONCURRENCY, GATE, MAX_EXACT, PROVIDER_BUCKET, TURNS
from flask_ailimit.engine.stores.redis.links import Link
from flask_ailimit.engine.stores.redis.scripts import load
from flask_ailimit.engine.stores.redis.store import RedisStore
from flask_ailimit.testing import START_US, ManualClock

SCRIPTS = ("reserve", "settle", "renew", "forget", "delete")
STARTS = (START_US, START_US + 12_345_678, 10**15 + 7, 39 * 10**14)
MOST_OPEN = 400
MOODS = (5, 25, 25, 100)
LATEST = 42 * 10**14
"""2103. The arithmetic is exact until 2112."""

CHANGING = 0.5
"""Part of the episodes in which limits change all the time."""

DENSE = 0.15
"""Part of the episodes that make one record long."""


class Episode:
    """Some hundred requests of few subjects under few quotas, to the oracle and to the scripts.

    Attributes:
        seen: What has happened how often, so that a test can ask whether it happened at all.
    """

    def __init__(self, algorithms, seed):
        self.seed = seed
        self.seen = Counter()
        self._random = random = Random(seed)
        self._clock = clock = ManualClock(random.choice(STARTS))
        self._oracle = Oracle(clock)
        self._rehearsal = Rehearsal()
        self._store = RedisStore(Link(self._rehearsal, "rehearsal"), prefix="ailimit", clock=clock)
        self._dense = random.random() < DENSE
        size = (1,) if self._dense else (1, 2, 4)
        self._subjects = [random.randbytes(16) for _ in range(random.choice(size))]
        self._quotas = [quota_of(random.choice(algorithms), random) for _ in range(random.choice(size))]
        if random.random() < CHANGING:  # Of some counts there are workers with another limit.
            self._quotas += [changed(quota, random) for quota in self._quotas for _ in range(random.choice((1, 1, 2)))]
            self.seen["limits that change"] += 1
        self._scopes = ("",) if self._dense else random.choice((("",), ("", "x")))
        self._to_tell = max(TOLD.get(quota.algorithm, 0) for quota in self._quotas)
        self._open = []
        self._decided = []
        self._settled = []
        self._waits = [1]

    def run(self, client, steps):
        """Take so many steps. What the server did otherwise than the oracle is raised, with the seed."""
        next_mood = 0
        for step in range(steps):
            if step == next_mood:
                self._look()
                self._jump = self._random.choice((self._stand, self._creep, self._walk, self._leap, self._reel))
                self._spend = self._random.choice((self._little, self._much, self._anything))
                weights = self._random.choice((WEIGHTS, WEIGHTS, OPEN_ENDED))
                next_mood += self._random.choice(MOODS)
                if self._dense:
                    self._jump, self._spend, weights = self._creep, self._little, OPEN_ENDED
            self._jump()
            (kind,) = self._random.choices(KINDS, (*weights[:-1], self._to_tell))
            kind(self)
        self._look()
        for name in SCRIPTS:
            client.script_load(load(name).text)
        wrong = self._rehearsal.perform(client)
        assert not wrong, f"seed {self.seed!r}: {len(wrong)} answers differ, the first: {wrong[0]}"

    def _look(self):
        for subject in self._subjects:
            record = self._oracle.read(subject)
            self._rehearsal.look_at(self._store._key(subject), record, self._clock())
            longest = max((len(count.state) for count in record.values()), default=0)
            self.seen["more numbers than are read at once"] += longest > 100
            self.seen["most that can be counted"] += any(MAX_EXACT in count.state for count in record.values())

    # What the clock does

    def _forward(self, microseconds):
        self._clock.advance_us(max(0, min(microseconds, LATEST - self._clock())))

    def _stand(self):
        self._clock.advance_us(self._random.choice((0, 0, 0, 1, 2)))

    def _creep(self):
        self._forward(self._random.randrange(self._random.choice(self._quotas).period * MICROSECONDS // 99))

    def _walk(self):
        self._forward(log_uniform(self._random, self._random.choice(self._quotas).period * MICROSECONDS))

    def _leap(self):
        """To a microsecond before, at, or after the end of something."""
        period_us = self._random.choice(self._quotas).period * MICROSECONDS
        to_boundary = period_us - self._clock() % period_us
        wait = self._random.choice((self._random.choice(self._waits), to_boundary, period_us, 0, 0, 0))
        self._forward(max(0, wait + self._random.choice((-1, 0, 0, 1))))

    def _reel(self):
        if self._random.random() < 0.3:
            for subject in self._subjects:
                self._oracle.sweep(subject)
                self._rehearsal.expect(None, "sweep")
                self._store.reset(subject, b"no count")
            self._clock.advance_us(-log_uniform(self._random, 10 ** self._random.randint(1, 12)))
            self.seen["the clock went back"] += 1
        else:
            self._forward(log_uniform(self._random, 10 ** self._random.randint(1, 13)))

    # What is asked for

    def _little(self, quota):
        return self._random.choice((0, 1, 1, 1, 2, 3))

    def _much(self, quota):
        whole = min(quota.burst + sum(grant.amount for grant in quota.credit), MAX_EXACT)
        return self._random.choice((whole, whole // 2 + 1, whole // 3, whole // 10, min(whole + 1, MAX_EXACT)))

    def _anything(self, quota):
        if quota.algorithm in LEASED:
            return self._random.choice((0, 1, self._random.randrange(quota.limit + 2)))
        return self._random.choice(
            (log_uniform(self._random, max(1, quota.burst)), log_uniform(self._random, MAX_EXACT))
        )

    def _charges(self):
        random = self._random
        count = random.choice((1, 1, 1, 2, 3, 8))
        few = random.random() < 0.3
        chosen = (random.choice(self._subjects), random.choice(self._quotas), random.choice(self._scopes))
        charges = []
        for _ in range(count):
            subject, quota, scope = (
                chosen
                if few
                else (random.choice(self._subjects), random.choice(self._quotas), random.choice(self._scopes))
            )
            cost = self._spend(quota)
            floor = log_uniform(random, random.choice((quota.burst or 1, MAX_EXACT))) if random.random() < 0.1 else 0
            dry, shadow = random.random() < 0.1, random.random() < 0.1
            charges.append(Charge(subject, quota, cost, scope, dry=dry, floor=floor, shadow=shadow))
        self.seen["several subjects"] += len({charge.subject for charge in charges}) > 1
        self.seen["one count several times"] += len({(c.subject, c.bucket) for c in charges}) < count
        self.seen["dry"] += any(charge.dry for charge in charges)
        self.seen["floors"] += any(charge.floor for charge in charges)
        for quota in {charge.quota for charge in charges}:
            self.seen[f"ticks of {quota.tick_us} us"] += 1
        return charges

    def reserve(self):
        charges, lease = self._charges(), self._random.getrandbits(53)
        expected = self._oracle.reserve(charges, lease)
        self._rehearsal.expect(answer_of(expected), ("reserve", self._clock(), charges))
        assert self._store.reserve(charges, lease) == expected
        self._note(expected)
        self._decided.append((expected, lease))
        if expected.allowed:
            self._open.append((expected, lease))
            del self._open[:-MOST_OPEN]

    def peek(self):
        charges = self._charges()
        expected = self._oracle.peek(charges)
        self._rehearsal.expect(answer_of(expected), ("peek", self._clock(), charges))
        assert self._store.peek(charges) == expected
        self._note(expected)

    def decide_again(self):
        """As when the answer was lost: what was taken is not taken again, what was refused is asked anew."""
        if not self._decided:
            return
        first, lease = self._decided[-1]
        charges = [verdict.charge for verdict in first.verdicts]
        if not first.allowed:
            self._decided.pop()
            return
        in_vain = {place for place, verdict in enumerate(first.verdicts) if not (verdict.allowed or verdict.charge.dry)}
        expected = self._taken_before(charges, first.at_us, in_vain)
        self._rehearsal.expect(expected, ("decide again", self._clock(), charges))
        told = self._store.reserve(charges, lease)
        assert (told.allowed, told.at_us) == (True, first.at_us)
        assert {verdict.charge.counted_in for verdict in told.taken} == {v.charge.counted_in for v in first.taken}
        self.seen["decided again"] += 1
        self.seen["decided again, in part"] += bool(in_vain)

    def _taken_before(self, charges, at_us, in_vain=()):
        """What is answered to a decision that was made: that it was, also if a count is in debt by now."""
        seen = self._oracle.peek([charge.costing(0) for charge in charges])
        verdicts = [
            verdict._replace(allowed=place not in in_vain, retry_after_us=0)
            for place, verdict in enumerate(seen.verdicts)
        ]
        return answer_of(Decision(tuple(verdicts), at_us))

    def settle(self):
        settlements = []
        for _ in range(min(self._random.choice((1, 1, 1, 2)), len(self._open))):
            decision, lease = self._open.pop(self._random.randrange(len(self._open)))
            taken = [verdict.charge for verdict in decision.taken]
            settlements += [Settlement(c, decision.at_us, self._actual(c), lease) for c in taken]
        if settlements:
            settled = self._oracle.settle(settlements)
            self._rehearsal.expect(settled_of(settled, settlements), ("settle", self._clock(), settlements))
            assert self._store.settle(settlements) == settled
            self.seen["unknown counts"] += settled.unknown
            self.seen["told of"] += bool(settled.passed)
            self.seen["several told of at once"] += len(settled.passed) > 1
            self.seen["debts"] += not self._oracle.peek([each.charge.costing(0) for each in settlements]).allowed
            self.seen["refunds"] += any(each.actual < each.charge.cost for each in settlements)
            if not all(each.is_repeatable for each in settlements):
                self._settled.append(settlements)

    def settle_again(self):
        if self._settled:
            self._rehearsal.expect(0, "settle again")
            assert self._store.settle(self._random.choice(self._settled)) == Settled(0)
            self.seen["settled again"] += 1

    def undo(self):
        """As when nobody heard of the decision. Whether it was made is known to the scripts alone."""
        if not self._open:
            return
        decision, lease = self._open.pop()
        charges = [verdict.charge for verdict in decision.verdicts]
        undone = [Settlement(verdict.charge, decision.at_us, 0, lease) for verdict in decision.taken]
        if undone:
            self.seen["undone in part"] += any(not (v.allowed or v.charge.dry) for v in decision.verdicts)
            self._rehearsal.expect(self._oracle.settle(undone).unknown, ("undo", self._clock(), undone))
            self._store._undo(charges, lease)
            self.seen["undone"] += 1

    def undo_early(self):
        """As when the undoing is faster than what it undoes, which then takes nothing."""
        charges, lease = self._charges(), self._random.getrandbits(53)
        if all(charge.dry for charge in charges):
            return
        undone_at_us = self._clock()
        self._rehearsal.expect(0, ("undo early", undone_at_us, charges))
        self._store._undo(charges, lease)
        self._jump()
        self._rehearsal.expect(self._taken_before(charges, undone_at_us), ("decide late", self._clock(), charges))
        self._store.reserve(charges, lease)
        self.seen["undone early"] += 1

    def hold(self):
        """As when work goes on after its end, or in another process."""
        chosen = self._random.sample(self._open, min(len(self._open), 2))
        slots = [
            Settlement(verdict.charge.costing(0), 0, self._random.choice((0, 1, 1, 3)), lease)
            for decision, lease in chosen
            for verdict in decision.verdicts
            if verdict.charge.quota.algorithm in (CONCURRENCY, GATE)
        ]
        if slots:
            settled = self._oracle.settle(slots)
            self._rehearsal.expect(settled.unknown, ("hold", self._clock(), slots))
            assert self._store.settle(slots) == settled
            self.seen["held"] += 1

    def tell(self):
        """Who waits takes a place or leaves, and a provider tells what is used."""
        told = []
        for quota in self._quotas:
            charge = Charge(self._random.choice(self._subjects), quota, 0, self._random.choice(self._scopes))
            if quota.algorithm == TURNS:
                tickets = self._random.choices(
                    range(1, 2 * self._random.choice((3, quota.limit)) + 2), k=self._random.choice((3,) * 15 + (200,))
                )
                told += [Settlement(charge, 0, self._random.choice((0, 1, 1, 1)), ticket) for ticket in tickets]
            if quota.algorithm == PROVIDER_BUCKET:
                usual = (1, quota.burst, log_uniform(self._random, quota.burst)) * 8
                units = self._random.choice((*usual, min(2 * quota.burst, MAX_EXACT), MAX_EXACT))
                told.append(Settlement(charge, 0, units, 0))
        if told:
            settled = self._oracle.settle(told)
            self._rehearsal.expect(settled_of(settled, told), ("tell", self._clock(), told))
            assert self._store.settle(told) == settled
            self.seen["places and what is told"] += 1

    def renew(self):
        chosen = self._random.sample(self._open, min(len(self._open), self._random.choice((1, 3, 30))))
        leases = [
            (verdict.charge, verdict.charge.cost if verdict.charge.quota.algorithm == TURNS else lease)
            for decision, lease in chosen
            for verdict in decision.verdicts
        ]
        if leases:
            self._oracle.renew(leases)
            counts = {(charge.subject, charge.bucket) for charge, _ in leases}
            self._rehearsal.expect(len(counts), ("renew", self._clock(), leases))
            self._store.renew(leases)
            self.seen["renewed"] += any(charge.quota.algorithm in LEASED for charge, _ in leases)

    def reset(self):
        charge = self._charges()[0]
        bucket = self._random.choice((None, charge.bucket))
        self._oracle.reset(charge.subject, bucket)
        self._rehearsal.expect(None, "reset")
        self._store.reset(charge.subject, bucket)

    def _actual(self, charge):
        random, cost = self._random, charge.cost
        if charge.quota.algorithm == GATE:
            kind = random.choice((NEUTRAL, NOTHING, GOOD, FAULT, FAULT, FAULT, FAULT))
            pause_ms = random.choice((0, 0, 0, 0, 1, 1500, log_uniform(random, MAX_EXACT)))
            return packed(Outcome(kind, random.choice((0, 200, 429, 503, 999)), pause_ms))
        if random.random() < 0.05:
            return random.choice((MAX_EXACT, MAX_EXACT - 1, MAX_EXACT // 2))
        return random.choice(
            (0, cost, cost // 2, random.randrange(cost + 1), min(cost + random.randrange(9), MAX_EXACT))
        )

    def _note(self, decision):
        waits = [v.retry_after_us for v in decision.refused]
        self.seen["refused"] += None not in waits and bool(waits)
        self.seen["never to be allowed"] += None in waits
        self.seen["shadows that would refuse"] += bool(decision.would_refuse)
        for verdict in decision.verdicts:
            if verdict.charge.quota.algorithm == GATE:
                kind = standing_of(verdict.remaining + verdict.charge.floor).kind
                self.seen[{PAUSED: "paused", OPEN: "open", HALF_OPEN: "half-open"}.get(kind, "closed")] += 1
        self._waits = [wait for v in decision.verdicts for wait in (v.retry_after_us, v.reset_after_us) if wait] or [1]


KINDS, WEIGHTS = zip(
    (Episode.reserve, 50),
    (Episode.renew, 4),
    (Episode.hold, 3),
    (Episode.peek, 4),
    (Episode.decide_again, 5),
    (Episode.settle_again, 4),
    (Episode.undo_early, 2),
    (Episode.reset, 0.5),
    (Episode.undo, 4),
    (Episode.settle, 26),
    (Episode.tell, 0),
    strict=True,
)

TOLD = {PROVIDER_BUCKET: 6, TURNS: 20}
"""How much of :meth:`Episode.tell` there is, if there is anything to be told."""

OPEN_ENDED = (*WEIGHTS[:-3], 0, 0, 0)
"""Nothing is settled or undone."""
