"""Random burns, refunds, overruns, top-ups and ends of grants: a budget's books are those of a plain model."""

import random
from collections import Counter

import pytest
from plain_credit import PlainCredit

from flask_ailimit.engine import Charge, Quota, Settlement
from flask_ailimit.engine.grant import Grant
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.testing import ManualClock

SUBJECT = b"somebody".ljust(16)
MINUTE = 60 * 10**6
PAUSES = (1, 1000, 10**6, MINUTE, 20 * MINUTE)
MOST_GRANTS = 6


class Life:
    """One payer, in a store and in the model."""

    def __init__(self, draw):
        self.draw = draw
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.model = PlainCredit(draw.choice([0, 10, 40]))
        self.open = []
        self.ids = 0
        self.most_granted = {}
        self.lost = self.paid_back = 0
        self.seen = Counter()

    @property
    def quota(self):
        return self.quota_with(self.model.known(self.clock()))

    def quota_with(self, grants):
        return Quota(self.model.limit, 3600, "nano_usd", "budget", credit=tuple(grants))

    def peek(self, *grants):
        (verdict,) = self.store.peek([Charge(SUBJECT, self.quota_with(grants), 0)]).verdicts
        return verdict

    def reserve(self):
        cost = self.draw.choice([1, 3, 20, 60, self.model.left(self.clock()), self.model.left(self.clock()) + 1])
        lease = self.draw.getrandbits(53)
        charge = Charge(SUBJECT, self.quota, cost)
        allowed = self.store.reserve([charge], lease).allowed
        assert self.model.reserve(self.clock(), cost, lease) == allowed
        self.seen["allowed" if allowed else "refused"] += 1
        if allowed:
            self.open.append((charge, self.clock(), lease))

    def settle(self):
        if not self.open:
            return
        charge, taken_at_us, lease = self.open.pop(self.draw.randrange(len(self.open)))
        cost = charge.cost
        actual = self.draw.choice([0, cost, cost // 2, self.draw.randint(0, cost), cost + self.draw.randrange(30)])
        settlement = Settlement(charge._replace(quota=self.quota), taken_at_us, actual, lease)
        self.store.settle([settlement])
        self.model.settle(self.clock(), cost, actual, lease)
        self.seen["settled"] += 1
        self.seen["refunds"] += actual < cost
        self.seen["debts"] += self.model.owed > 0

    def grant(self, id_=None):
        now = self.clock() // 10**6
        begins = now + self.draw.choice([-100, 0, 600])
        ends = max(begins, now) + 1 + self.draw.choice([10, 3600, 4 * 3600, 86400])
        id_ = id_ or self.ids + 1
        grant = Grant(id_, self.draw.choice([1, 15, 50, 200]), begins, ends)
        self.model.grants[id_] = grant
        self.seen["grants"] += 1
        self.ids = max(self.ids, id_)
        self.most_granted[id_] = max(grant.amount, self.most_granted.get(id_, 0))

    def top_up(self):
        if len(self.model.known(self.clock())) < MOST_GRANTS:
            self.seen["debts that a grant meets"] += self.model.owed > 0
            self.grant()

    def change(self):
        """An operator changes a grant. Somebody calls then, so the store hears of its end while it is kept."""
        known = self.model.known(self.clock())
        if known:
            self.grant(self.draw.choice(known).id)
            self.reserve()
            self.seen["changed grants"] += 1

    def change_limit(self):
        self.model.limit = self.draw.choice([0, 10, 40])

    def step(self):
        self.clock.advance_us(1 + self.draw.randrange(self.draw.choice(PAUSES)))
        (do,) = self.draw.choices(KINDS, WEIGHTS)
        do(self)
        self.compare()
        self.model.forget(self.clock(), {lease for *_, lease in self.open})

    def compare(self):
        now_us, model = self.clock(), self.model
        grants = model.known(now_us)
        verdict = self.peek(*grants)
        assert verdict.remaining == model.left(now_us)
        assert verdict.spending.spent + verdict.spending.reserved == model.used(model.window(now_us))
        assert verdict.spending.credit == model.balance(now_us)
        if self.draw.random() < 0.8:
            return
        owed = -self.peek().spending.credit
        assert owed == model.owed
        for grant in model.in_force(now_us):
            assert self.peek(grant).spending.credit + owed == model.left_of(grant)
        for id_, most in self.most_granted.items():
            assert model.used(id_) <= most, "a unit was burnt twice"


KINDS, WEIGHTS = zip(
    (Life.reserve, 50), (Life.settle, 40), (Life.top_up, 6), (Life.change, 3), (Life.change_limit, 0.5), strict=True
)


def live(seed, steps):
    seen = Counter()
    for number in range(steps // 500):
        life = Life(random.Random(f"{seed} {number}"))
        for _ in range(500):
            life.step()
        seen += life.seen
    return seen


def test_books_of_twenty_thousand_steps_are_those_of_the_model():
    seen = live("usual", 20_000)
    assert min(seen[what] for what in ("allowed", "refused", "refunds", "debts", "changed grants")) > 200
    assert seen["debts that a grant meets"] > 20


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_books_of_three_hundred_thousand_steps_are_those_of_the_model():
    seen = live("long", 300_000)
    print(f"\n{dict(seen)}")  # noqa: T201  the figures, with -s
    assert seen["allowed"] + seen["settled"] + seen["grants"] > 100_000
