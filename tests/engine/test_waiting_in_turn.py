"""A provider asks everybody to wait, and hundreds do: who calls when, on a clock that only this test moves."""

from bisect import bisect_right
from heapq import heapify, heappop, heappush

from flask_ailimit.engine import Charge, Engine, Quota, Settlement, open_store
from flask_ailimit.engine.algorithms.gate import NEUTRAL, Outcome, packed
from flask_ailimit.testing import START_US, ManualClock

SECOND = 1_000_000
WAITERS, A_SECOND, LEASE, PAUSE = 200, 5, 15, 2
TURN_US = SECOND // A_SECOND


class Provider:
    """What an app has of an upstream: a gate, a line and a bucket. Waiters are woken in the order of their times."""

    def __init__(self):
        self.clock = ManualClock()
        self.engine = Engine(open_store("memory://", name="waiting", clock=self.clock, options={}), secret=bytes(16))
        subject = self.engine.subject("openai")
        self.gate = Charge(subject, Quota(1, 60, "gate", "gate"))
        self.line = Charge(subject, Quota(1000, LEASE, "turns", "turns"), 0)
        self.bucket = Charge(subject, Quota(A_SECOND, 1, "requests", "provider-bucket", burst=1))
        self.sent, self.asked = [], 0
        self.renewed_us = self.clock()

    def pause(self, seconds):
        refused = self.engine.reserve([self.gate])
        assert refused.end(lambda _: packed(Outcome(NEUTRAL, 429, 1000 * seconds)))

    def attempt(self, ticket):
        """Call if it may: answers None then, else when to try again, in microseconds from now."""
        self.asked += 1
        attempt = self.engine.reserve([self.gate, self.line.costing(ticket), self.bucket])
        if attempt.allowed:
            self.engine.leases.remove(ticket)
            self.sent.append((self.clock() - START_US, ticket))
            attempt.settle({})
            return None
        self.engine.store.settle([Settlement(self.line, 0, 1, ticket)])
        self.engine.leases.add(ticket, [self.line])
        gate, turn, bucket = (verdict.retry_after_us for verdict in attempt.decision.verdicts)
        return max(gate + turn // SECOND * TURN_US, bucket, 1)

    def run(self, waiters, dead=()):
        """Let all of them wait until each was sent, except for those that die once they have their places."""
        heapify(waiters)
        while waiters:
            at, ticket = heappop(waiters)
            self.renew_until(at)
            wait_us = self.attempt(ticket)
            if ticket in dead:
                self.engine.leases.remove(ticket)
            elif wait_us is not None:
                heappush(waiters, (at + wait_us, ticket))
        self.engine.close()

    def renew_until(self, at):
        while self.renewed_us + LEASE * SECOND // 3 <= at:
            self.renewed_us += LEASE * SECOND // 3
            self.clock.set(max(self.clock(), self.renewed_us))
            self.engine.leases.renew()
        self.clock.set(at)


def most_within_a_second(times):
    return max(bisect_right(times, at + SECOND - 1) - number for number, at in enumerate(times))


def test_two_hundred_who_wait_for_a_pause_come_five_a_second_and_in_order():
    provider = Provider()
    provider.pause(PAUSE)
    tickets = [2 * number for number in range(1, WAITERS + 1)]
    provider.run([(START_US + number, ticket) for number, ticket in enumerate(tickets)])
    times = [at for at, _ in provider.sent]
    assert [ticket for _, ticket in provider.sent] == tickets
    assert times[0] >= PAUSE * SECOND
    assert most_within_a_second(times) <= A_SECOND + 1
    assert times[-1] <= (PAUSE + WAITERS / A_SECOND) * SECOND
    assert provider.asked <= 4 * WAITERS


def test_calls_of_a_batch_are_sent_after_all_others():
    provider = Provider()
    provider.pause(PAUSE)
    batch, others = [2 * n + 1 for n in range(50)], [2 * n for n in range(1, 51)]
    provider.run([(START_US + number, ticket) for number, ticket in enumerate(batch + others)])
    assert [ticket for _, ticket in provider.sent] == others + batch


def test_who_dies_in_the_line_holds_up_the_others_for_a_lease_and_nobody_loses_a_place():
    provider = Provider()
    provider.pause(PAUSE)
    tickets = [2 * number for number in range(1, WAITERS + 1)]
    dead = {tickets[0], tickets[7], tickets[100]}
    provider.run([(START_US + number, ticket) for number, ticket in enumerate(tickets)], dead)
    times = [at for at, _ in provider.sent]
    assert [ticket for _, ticket in provider.sent] == [each for each in tickets if each not in dead]
    assert most_within_a_second(times) <= A_SECOND + 1
    assert times[-1] <= (LEASE + 1 + WAITERS / A_SECOND) * SECOND
