"""The line in front of a provider: each in its turn, calls of a batch after all others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit.engine import Charge, ConfigurationError, Engine, Quota, Settlement
from flask_ailimit.engine.algorithms import turns
from flask_ailimit.engine.quota import MAX_EXACT
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.testing import START_US

SECOND = 1_000_000
LEASE = 15
FIRST, SECOND_ONE, THIRD, BATCH, LATER_BATCH = 10, 12, 2, 7, 3


class Line:
    """A line by itself, and the time."""

    def __init__(self, most=5):
        self.quota = Quota(most, LEASE, "turns", "turns")
        self.state, self.now = (), START_US

    def ask(self, ticket):
        step = turns.admit(self.state, self.now, self.quota, ticket, 99)
        self.state = step.state
        return step

    def take(self, *tickets):
        for ticket in tickets:
            self.state = turns.settle(self.state, self.now, self.quota, 0, 0, 1, ticket)

    def leave(self, ticket):
        self.state = turns.settle(self.state, self.now, self.quota, 0, 0, 0, ticket)

    def renew(self, *tickets):
        self.state = turns.renew(self.state, self.now, self.quota, tickets)

    @property
    def tickets(self):
        return [ticket for end, ticket in zip(self.state[::2], self.state[1::2], strict=True) if end > self.now]


def test_first_come_is_first_served_and_a_batch_comes_last():
    line = Line()
    line.take(BATCH, FIRST, SECOND_ONE, LATER_BATCH, THIRD)
    assert line.tickets == [FIRST, SECOND_ONE, THIRD, BATCH, LATER_BATCH]
    for ticket in (FIRST, SECOND_ONE, THIRD, BATCH, LATER_BATCH):
        assert line.ask(ticket).allowed


def test_each_waits_a_second_for_each_who_is_before_it():
    line = Line()
    line.take(BATCH, FIRST, SECOND_ONE)
    assert [line.ask(each).retry_after_us for each in (BATCH, SECOND_ONE)] == [2 * SECOND, SECOND]
    assert line.ask(FIRST).allowed
    assert [line.ask(each).retry_after_us for each in (BATCH, SECOND_ONE)] == [SECOND, 0]


def test_who_has_no_place_comes_after_all_of_its_class():
    line = Line()
    line.take(BATCH)
    assert line.ask(FIRST).allowed
    assert line.ask(LATER_BATCH).retry_after_us == SECOND
    line.take(SECOND_ONE)
    assert line.ask(FIRST).retry_after_us == SECOND


def test_turn_that_is_taken_leaves_the_line_and_one_without_a_place_changes_nothing():
    line = Line()
    assert line.ask(FIRST) == (True, (), 5, 0, 0)
    line.take(FIRST, BATCH)
    step = line.ask(FIRST)
    assert (step.allowed, step.remaining, line.tickets) == (True, 4, [BATCH])
    assert line.ask(BATCH) == (True, (), 5, 0, 0)


def test_full_line_leaves_nobody_else_in():
    line = Line(most=2)
    line.take(FIRST, BATCH, SECOND_ONE)
    assert line.tickets == [FIRST, BATCH]
    assert line.ask(SECOND_ONE).retry_after_us is None
    assert line.ask(BATCH).retry_after_us == SECOND
    line.leave(FIRST)
    line.take(SECOND_ONE)
    assert line.tickets == [SECOND_ONE, BATCH]


def test_place_taken_twice_is_one_place_with_a_new_lease():
    line = Line()
    line.take(FIRST, SECOND_ONE)
    line.now += 10 * SECOND
    line.take(FIRST)
    line.now += 10 * SECOND
    assert line.tickets == [FIRST]


def test_place_of_who_died_ends_with_its_lease_and_that_of_who_waits_is_renewed():
    line = Line()
    line.take(FIRST, SECOND_ONE)
    for _ in range(3):
        line.now += (LEASE - 1) * SECOND
        line.renew(SECOND_ONE)
    assert line.tickets == [SECOND_ONE]
    assert line.ask(SECOND_ONE).allowed


def test_lease_that_ended_is_not_renewed():
    line = Line()
    line.take(FIRST)
    line.now += LEASE * SECOND
    line.renew(FIRST)
    assert line.state == ()


def test_who_gives_up_leaves_the_line_by_its_ticket_or_by_its_charge():
    line = Line()
    line.take(FIRST, SECOND_ONE, THIRD)
    line.leave(FIRST)
    line.state = turns.settle(line.state, line.now, line.quota, 0, SECOND_ONE, SECOND_ONE, 99)
    assert line.tickets == [THIRD]


def test_asking_for_nothing_tells_how_many_places_are_left():
    line = Line()
    line.take(FIRST, BATCH)
    step = line.ask(0)
    assert (step.allowed, step.remaining, step.reset_after_us) == (True, 3, LEASE * SECOND)


@pytest.mark.parametrize("limit", [0, 1001])
def test_line_has_one_to_a_thousand_places(limit):
    with pytest.raises(ConfigurationError, match="limit"):
        Quota(limit, LEASE, "turns", "turns")


tickets = st.integers(1, 12)


@given(steps=st.lists(st.tuples(st.sampled_from(["take", "ask", "leave", "renew", "wait"]), tickets), max_size=60))
def test_line_is_always_in_the_order_of_classes_and_of_coming(steps):
    """Against a list of those who came, in order, each until its lease ends."""
    line, came = Line(), {}
    for what, ticket in steps:
        came = {each: end for each, end in came.items() if end > line.now}
        expected = [each for each in came if each % 2 == 0] + [each for each in came if each % 2]
        if what == "take":
            line.take(ticket)
            if ticket in came or len(came) < line.quota.limit:
                came[ticket] = line.now + LEASE * SECOND
        elif what == "ask":
            ahead = [each for each in expected if (each % 2, each not in came) < (ticket % 2, True)]
            if ticket in came:
                ahead = expected[: expected.index(ticket)]
            step = line.ask(ticket)
            assert step.allowed == (not ahead)
            if step.allowed:
                came.pop(ticket, None)
            else:
                is_left_out = ticket not in came and len(came) >= line.quota.limit
                assert step.retry_after_us == (None if is_left_out else len(ahead) * SECOND)
        elif what == "leave":
            line.leave(ticket)
            came.pop(ticket, None)
        elif what == "renew":
            line.renew(ticket)
            if ticket in came:
                came[ticket] = line.now + LEASE * SECOND
        else:
            line.now += ticket * SECOND
        alive = [each for each, end in came.items() if end > line.now]
        assert line.tickets == [e for e in alive if e % 2 == 0] + [e for e in alive if e % 2]
        assert all(type(number) is int and 0 <= number <= MAX_EXACT for number in line.state)
        assert line.ask(0).remaining == line.quota.limit - len(alive)


@given(here=st.lists(tickets, max_size=5), back=st.integers(1, 10**12))
def test_no_place_lasts_longer_than_a_lease_if_the_clock_goes_back(here, back):
    line = Line()
    line.take(*here)
    line.now -= back
    line.renew()
    line.now += LEASE * SECOND
    assert line.tickets == []


@pytest.fixture(params=["memory", "local"])
def engine(request, clock, open_local):
    engine = Engine(MemoryStore(clock) if request.param == "memory" else open_local(), secret=b"0123456789abcdef")
    yield engine
    engine.close()


def places(engine, *numbers):
    """A charge to a line for each ticket, which has a place that this process renews."""
    charges = [Charge(engine.subject("openai"), Quota(5, LEASE, "turns", "turns"), number) for number in numbers]
    for charge in charges:
        place = charge.costing(0)
        engine.store.settle([Settlement(place, 0, 1, charge.cost)])
        engine.leases.add(charge.cost, [place])
    return charges


def test_places_are_renewed_while_somebody_waits(engine, clock):
    first, second = places(engine, FIRST, SECOND_ONE)
    engine.leases.remove(FIRST)
    for _ in range(2):
        clock.advance(LEASE - 1)
        engine.leases.renew()
    assert engine.reserve([second]).allowed
    assert engine.peek([first]).verdicts[0].remaining == 5


def test_refusal_for_another_reason_keeps_the_place(engine):
    (first,) = places(engine, FIRST)
    scarce = Charge(first.subject, Quota(1, 60), 1)
    assert engine.reserve([scarce]).allowed
    assert not engine.reserve([first, scarce]).allowed
    later = first.costing(SECOND_ONE)
    assert engine.reserve([later]).decision.verdicts[0].retry_after == 1


def test_turn_that_was_taken_is_not_settled(engine):
    (first,) = places(engine, FIRST)
    taken = engine.reserve([first])
    assert taken.allowed
    places(engine, FIRST)  # It waits again, as for the second attempt.
    assert taken.settlements(lambda _: 0) == []
    assert taken.cancel()
    assert engine.peek([first.costing(0)]).verdicts[0].remaining == 4
