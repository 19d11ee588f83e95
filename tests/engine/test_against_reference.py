"""Random lives of reservations: the memory store, the local store and the reference model must always agree."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from reference_model import SECOND, Reference

from flask_ailimit.engine import Charge, Engine, Quota
from flask_ailimit.engine.algorithms import token_bucket
from flask_ailimit.engine.calendars import Calendar
from flask_ailimit.engine.stores.local import LocalStore
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.testing import ManualClock

SECRET = b"0123456789abcdef"
QUOTAS = [
    Quota(10, 60),
    Quota(100, 10, "tokens", burst=150),
    Quota(100, 10, "tokens", "provider-bucket", 150),
    Quota(20, 60, "tokens", "fixed-window"),
    Quota(20, 30, "tokens", "moving-window"),
    Quota(20, 60, "tokens", "sliding-window-counter"),
    Quota(3, 3600, "concurrency", "concurrency"),
    Quota(20, 60, "tokens", "window"),
    Quota(20, 90, "tokens", "window", every="session"),
    Quota(20, 60, "nano_usd", "budget"),
    Quota(20, 1000, "nano_usd", "budget", every="session"),
    Quota(20, 1, "nano_eur", "budget", every="hour", calendar=Calendar("Asia/Kathmandu")),
    Quota(20, 1, "nano_usd", "budget", every="ever"),
]
TOLD_OF_EVERY_END = ("budget", "concurrency")
"""Algorithms whose counts change with a settlement though it cost what was reserved."""


@st.composite
def charges(draw):
    engine = Engine(MemoryStore(), secret=SECRET)
    subject = engine.subject(draw(st.sampled_from(["alice", "bob"])))
    quota = draw(st.sampled_from(QUOTAS))
    cost = draw(st.one_of(st.integers(0, 3), st.integers(0, quota.burst // 2), st.integers(0, quota.burst + 1)))
    return Charge(subject, quota, cost, dry=draw(st.integers(0, 9)) == 0)


class Lives(RuleBasedStateMachine):
    """Each step is done to both stores and to the model; after each, all counts are compared."""

    @initialize()
    def open(self):
        # Every trough is kept: that four give nothing away is shown elsewhere, here all must be equal.
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(token_bucket, "_MAX_TROUGHS", 10**9)
        self.clock = ManualClock()
        self.directory = Path(tempfile.mkdtemp())
        self.engines = [
            Engine(MemoryStore(self.clock), secret=SECRET),
            Engine(LocalStore(self.directory / "limits", clock=self.clock), secret=SECRET),
        ]
        self.reference = Reference()
        self.open_ones = []
        self.ended = []
        self.lease = 0

    def teardown(self):
        if hasattr(self, "engines"):
            for engine in self.engines:
                engine.close()
            shutil.rmtree(self.directory)
            self.patch.undo()

    @rule(asked=st.lists(charges(), min_size=1, max_size=4))
    def reserve(self, asked):
        self.lease += 1
        both = [engine.reserve(asked) for engine in self.engines]
        expected, taken = self.reference.reserve(asked, self.clock(), self.lease)
        for reservation in both:
            verdicts = reservation.decision.verdicts
            assert [(v.allowed, v.remaining, v.reset_after_us, v.retry_after_us) for v in verdicts] == expected
            assert reservation.allowed == all(fits for fits, *_ in expected)
        assert both[0].decision == both[1].decision
        if both[0].allowed:
            self.open_ones.append((both, taken))

    @precondition(lambda self: self.open_ones)
    @rule(which=st.integers(0, 100), part=st.one_of(st.sampled_from([0.0, 0.5, 1.0, 1.5]), st.floats(0, 2)))
    def settle(self, which, part):
        both, taken = self.open_ones.pop(which % len(self.open_ones))
        for reservation in both:
            assert reservation.end(lambda charge: round(charge.cost * part))
        for charge, charged in taken:
            actual = round(charge.cost * part)
            if actual != charge.cost or charge.quota.algorithm in TOLD_OF_EVERY_END:
                self.reference.count(charge).settle(self.clock(), charged, actual)
        for verdict in both[0].decision.taken:
            if verdict.charge.quota.unit == "concurrency" and not verdict.charge.cost:
                self.reference.count(verdict.charge).refuse(self.clock())  # It changes nothing but the time.
        self.ended.append(both)

    @precondition(lambda self: self.ended)
    @rule(which=st.integers(0, 100), part=st.floats(0, 2))
    def settle_again(self, which, part):
        for reservation in self.ended[which % len(self.ended)]:
            assert not reservation.end(lambda charge: round(charge.cost * part))

    @precondition(lambda self: self.open_ones)
    @rule(which=st.integers(0, 100))
    def die(self, which):
        """Its process is killed: nobody settles it, nobody renews it."""
        for reservation in self.open_ones.pop(which % len(self.open_ones))[0]:
            reservation._leases.remove(reservation._lease)

    @rule()
    def renew(self):
        for engine in self.engines:
            engine.leases.renew()
        for _, taken in self.open_ones:
            for charge, charged in taken:
                if charge.quota.unit == "concurrency":
                    self.reference.count(charge).renew(self.clock(), charged.lease)

    @rule(us=st.one_of(st.integers(0, 10), st.integers(0, 90 * SECOND), st.integers(0, 2 * 3600 * SECOND)))
    def advance(self, us):
        self.clock.advance_us(us)

    @rule(us=st.one_of(st.integers(1, 10), st.integers(1, 90 * SECOND), st.integers(1, 2 * 3600 * SECOND)))
    def jump_back(self, us):
        """What was reserved before is not settled any more: it may have been charged in time that is still to come.

        What has ended by then is forgotten: a store keeps it for a while or not, as it likes.
        """
        while self.open_ones:
            self.die(0)
        for (subject, bucket), count in [*self.reference.counts.items()]:
            if count.seen_at(self.clock()).reset_after_us(self.clock()) == 0:
                for engine in self.engines:
                    engine.reset(subject, bucket)
                self.reference.reset(subject, bucket)
        self.clock.advance_us(-us)

    @rule(charge=charges(), what=st.sampled_from(["bucket", "subject", "all"]))
    def reset(self, charge, what):
        forget = {"bucket": (charge.subject, charge.bucket), "subject": (charge.subject,), "all": ()}[what]
        for engine in self.engines:
            engine.reset(*forget)
        self.reference.reset(*forget)
        # Settling what was forgotten gives no credit; later it could meet another's charge of the same window.
        for both, taken in self.open_ones:
            if any((c.subject, c.bucket) not in self.reference.counts for c, _ in taken):
                for reservation in both:
                    reservation.end(lambda charge: 0 if self.is_forgotten(charge) else charge.cost)
                for c, charged in taken:
                    if c.quota.algorithm in TOLD_OF_EVERY_END and not self.is_forgotten(c):
                        self.reference.count(c).settle(self.clock(), charged, c.cost)
        self.open_ones = [one for one in self.open_ones if not any(self.is_forgotten(c) for c, _ in one[1])]

    def is_forgotten(self, charge):
        return (charge.subject, charge.bucket) not in self.reference.counts

    @rule()
    def restart(self):
        """The local store's counts outlive whoever has it open."""
        self.engines[1].store.close()

    @invariant()
    def all_counts_agree(self):
        if not hasattr(self, "engines"):
            return
        for (subject, _), count in self.reference.counts.items():
            asked = [Charge(subject, count.quota, 0)]
            answers = [engine.peek(asked) for engine in self.engines]
            assert answers[0] == answers[1]
            seen = count.seen_at(self.clock())
            assert answers[0].verdicts[0].remaining == seen.remaining(self.clock())
            assert answers[0].verdicts[0].reset_after_us == seen.reset_after_us(self.clock())


TestLives = Lives.TestCase
TestLives.settings = settings(stateful_step_count=30)
