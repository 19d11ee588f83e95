"""The gate in front of a provider: one probe at a time, and only faults open it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit.engine import Charge, Engine, Quota, Settlement
from flask_ailimit.engine.algorithms import gate
from flask_ailimit.engine.algorithms.gate import (
    CLOSED,
    FAULT,
    GOOD,
    HALF_OPEN,
    NEUTRAL,
    NOTHING,
    OPEN,
    PAUSED,
    Outcome,
    Standing,
    outcome_of,
    packed,
    standing_of,
)
from flask_ailimit.engine.quota import MAX_EXACT
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.testing import START_US

SECOND = 1_000_000
LEASE = 60
QUOTA = Quota(1, LEASE, "gate", "gate")
OLD = 10**6
"""The lease of a call that began long before."""

outcomes = st.builds(
    Outcome, st.sampled_from([NEUTRAL, GOOD, FAULT]), st.integers(0, 999), st.sampled_from([0, 0, 0, 1, 500, 90_000])
)


class Gate:
    """A gate by itself, and the time."""

    def __init__(self):
        self.state, self.now = (), START_US

    def ask(self, lease=1, cost=1):
        step = gate.admit(self.state, self.now, QUOTA, cost, lease)
        self.state = step.state
        return step

    def tell(self, outcome, lease=OLD):
        self.state = gate.settle(self.state, self.now, QUOTA, self.now, 1, packed(outcome), lease)

    def wait(self, seconds):
        self.now += round(seconds * SECOND)

    @property
    def standing(self):
        return standing_of(self.ask(cost=0).remaining)

    def break_open(self, status=503):
        for _ in range(10):
            self.tell(Outcome(FAULT, status))
        assert self.standing[:2] == (OPEN, status)


@given(outcome=st.builds(Outcome, st.sampled_from([NEUTRAL, GOOD, FAULT]), st.integers(0, 999), st.integers(0, 2**50)))
def test_outcome_is_read_as_it_was_packed(outcome):
    assert 0 <= packed(outcome) <= MAX_EXACT
    assert outcome_of(packed(outcome))[:2] == outcome[:2]
    assert outcome_of(packed(outcome)).pause_ms == min(outcome.pause_ms, MAX_EXACT // 4096 - 1)


def test_probe_is_told_while_it_holds_its_lease():
    each = Gate()
    each.break_open()
    each.wait(1)
    assert each.standing.probe == 0
    each.ask(lease=2**52 + 7)
    assert each.standing == (HALF_OPEN, 503, 7)
    each.tell(Outcome(NEUTRAL), lease=2**52 + 7)
    assert each.standing.probe == 0


def test_only_nothing_to_correct_is_packed_as_what_a_call_costs():
    assert packed(Outcome(NOTHING)) == 1
    assert [packed(Outcome(kind)) for kind in (NEUTRAL, GOOD, FAULT)] == [0, 2, 3]


@pytest.mark.parametrize("outcome", [Outcome(GOOD, 1000), Outcome(GOOD, -1), Outcome(NEUTRAL, 429, -1)])
def test_outcome_that_no_answer_has_is_not_packed(outcome):
    with pytest.raises(ValueError, match="gate: a status"):
        packed(outcome)


@pytest.mark.parametrize("times", [1, 2])
def test_answer_to_the_probe_that_has_begun_closes_the_breaker_and_counts_nothing(times):
    it = Gate()
    it.break_open()
    it.wait(1)
    assert it.ask(lease=7).allowed
    for lease in (OLD, *[7] * times):
        it.state = gate.settle(it.state, it.now, QUOTA, 0, 0, GOOD, lease)
        assert it.standing[:2] == ((HALF_OPEN, 503) if lease == OLD else (CLOSED, 0))
    assert it.state == ()


def test_nine_faults_do_not_open_it_and_ten_do():
    each = Gate()
    for _ in range(9):
        each.tell(Outcome(FAULT, 500))
    assert each.standing[:2] == (CLOSED, 0)
    each.tell(Outcome(FAULT, 502))
    assert each.standing[:2] == (OPEN, 502)
    step = each.ask()
    assert (step.allowed, step.retry_after_us) == (False, SECOND)


def test_faults_that_are_fewer_than_half_do_not_open_it():
    each = Gate()
    for _ in range(11):
        each.tell(Outcome(GOOD, 200))
    for _ in range(10):
        each.tell(Outcome(FAULT, 500))
    assert each.standing[:2] == (CLOSED, 0)
    each.tell(Outcome(FAULT, 500))
    assert each.standing.kind == OPEN


def test_faults_of_another_window_do_not_count():
    each = Gate()
    for _ in range(9):
        each.tell(Outcome(FAULT, 500))
    each.wait(30)
    each.tell(Outcome(FAULT, 500))
    assert each.standing.kind == CLOSED


def test_good_answers_keep_three_numbers_and_a_call_none():
    each = Gate()
    each.ask()
    assert each.state == ()
    each.tell(Outcome(GOOD, 200))
    each.tell(Outcome(GOOD, 200))
    assert each.state == (START_US, 2, 0)


def test_neutral_answers_keep_nothing():
    each = Gate()
    each.tell(Outcome(NEUTRAL, 400))
    assert each.state == ()


def test_call_that_waits_for_the_probe_asks_again_within_a_second():
    each = Gate()
    each.break_open()
    each.wait(1)
    assert each.standing[:2] == (HALF_OPEN, 503)
    assert each.ask(lease=1).allowed
    step = each.ask(lease=2)
    assert (step.allowed, step.retry_after_us) == (False, SECOND)
    each.wait(LEASE - 0.25)
    assert each.ask(lease=2).retry_after_us == SECOND // 4


def test_faults_of_probes_double_the_second_up_to_ten():
    each = Gate()
    each.break_open()
    lasted = []
    for lease in range(6):
        lasted.append(each.ask(lease).retry_after_us / SECOND)
        each.wait(lasted[-1])
        assert each.ask(lease).allowed
        each.tell(Outcome(FAULT, 500), lease)
    assert lasted == [1, 2, 4, 8, 10, 10]


def test_good_probe_closes_it_and_the_next_time_it_opens_for_a_second():
    each = Gate()
    for _ in range(2):
        each.break_open()
        each.wait(1)
        assert each.ask(lease=5).allowed
        each.tell(Outcome(GOOD, 200), lease=5)
        assert (each.standing[:2], each.state) == ((CLOSED, 0), ())


@pytest.mark.parametrize("outcome", [Outcome(GOOD, 200), Outcome(FAULT, 500), Outcome(NEUTRAL, 400)])
def test_answers_to_calls_from_before_change_nothing_while_it_is_not_closed(outcome):
    each = Gate()
    each.break_open()
    for seconds, kind in ((0, OPEN), (1, HALF_OPEN)):
        each.wait(seconds)
        before = each.state
        for _ in range(20):
            each.tell(outcome)
        assert (each.state, each.standing.kind) == (before, kind)
    assert each.ask(lease=5).allowed
    before = each.state
    each.tell(outcome)
    assert each.state == before


@pytest.mark.parametrize("outcome", [Outcome(NEUTRAL, 400), Outcome(NEUTRAL, 429, 500)])
def test_neutral_answer_gives_the_probe_to_the_next_call(outcome):
    each = Gate()
    each.break_open()
    each.wait(1)
    assert each.ask(lease=5).allowed
    each.wait(40)
    each.tell(outcome, lease=5)
    each.wait(outcome.pause_ms / 1000)
    assert each.standing.kind == HALF_OPEN
    assert each.ask(lease=6).allowed
    assert not each.ask(lease=7).allowed


def test_probe_whose_process_died_is_given_to_the_next_call():
    each = Gate()
    each.break_open()
    each.wait(1)
    assert each.ask(lease=5).allowed
    each.wait(LEASE)
    assert each.ask(lease=6).allowed
    each.tell(Outcome(GOOD, 200), lease=5)
    assert each.standing.kind == HALF_OPEN


def test_probe_that_lives_keeps_its_lease():
    each = Gate()
    each.break_open()
    each.wait(1)
    assert each.ask(lease=5).allowed
    for _ in range(10):
        each.wait(LEASE / 3)
        each.state = gate.renew(each.state, each.now, QUOTA, {5})
        assert not each.ask(lease=6).allowed


def test_half_open_breaker_that_nobody_probes_is_closed_after_half_a_minute():
    each = Gate()
    each.break_open()
    each.wait(30.999999)
    assert each.standing.kind == HALF_OPEN
    each.wait(0.000001)
    assert each.standing.kind == CLOSED
    assert gate.expires(each.state, QUOTA) == each.now


def test_pause_refuses_every_call_until_it_ends():
    each = Gate()
    each.tell(Outcome(NEUTRAL, 429, 2500))
    assert each.standing[:2] == (PAUSED, 429)
    assert each.ask().retry_after_us == 2_500_000
    each.tell(Outcome(NEUTRAL, 503, 1000))  # The longer one stays.
    assert (each.standing[:2], each.ask().retry_after_us) == ((PAUSED, 429), 2_500_000)
    each.wait(2.5)
    assert each.ask().allowed
    assert each.standing[:2] == (CLOSED, 0)


def test_pause_during_an_open_breaker_is_waited_for_and_so_is_the_breaker():
    each = Gate()
    each.break_open()
    each.tell(Outcome(NEUTRAL, 429, 400))
    assert (each.standing[:2], each.ask().retry_after_us) == ((PAUSED, 429), SECOND)
    each.tell(Outcome(NEUTRAL, 429, 4000))
    assert each.ask().retry_after_us == 4 * SECOND
    each.wait(1)
    assert each.standing[:2] == (PAUSED, 429)


@given(steps=st.lists(st.tuples(outcomes.filter(lambda each: each.kind != FAULT), st.integers(0, 20 * SECOND))))
def test_only_faults_open_it(steps):
    each = Gate()
    for outcome, us in steps:
        each.tell(outcome)
        assert each.standing.kind in (CLOSED, PAUSED)
        each.now += us


@given(data=st.data())
def test_one_probe_at_a_time_whatever_happens(data):
    """Calls begin, end and die, and the clock goes on, in any order."""
    each = Gate()
    probe, ends, calls, number = None, 0, [], 0
    for _ in range(data.draw(st.integers(1, 80))):
        what = data.draw(st.sampled_from(["ask", "ask", "end", "end", "die", "wait", "faults"]))
        if what == "ask":
            number += 1
            kind = each.standing.kind
            step = each.ask(lease=number)
            assert step.allowed == (kind == CLOSED or (kind == HALF_OPEN and (probe is None or ends <= each.now)))
            if step.allowed:
                calls.append(number)
                if kind == HALF_OPEN:
                    probe, ends = number, each.now + LEASE * SECOND
        elif what == "end" and calls:
            lease = calls.pop(data.draw(st.integers(0, len(calls) - 1)))
            each.tell(data.draw(outcomes), lease)
            probe = None if lease == probe else probe
        elif what == "die" and calls:
            calls.pop()
        elif what == "faults":
            for _ in range(10):
                each.tell(Outcome(FAULT, 500))
        else:
            each.now += data.draw(st.sampled_from([1, SECOND, 10 * SECOND, 30 * SECOND, LEASE * SECOND]))
        if each.standing.kind == CLOSED:
            probe = None
        assert all(type(n) is int and 0 <= n <= MAX_EXACT for n in each.state)
        assert len(each.state) in (0, 3, 11)


@given(data=st.data())
def test_refusal_tells_when_to_ask_again_and_changes_nothing(data):
    each = Gate()
    for number in range(data.draw(st.integers(1, 40))):
        before = each.state
        step = each.ask(lease=number)
        if not step.allowed:
            assert step.state is before
            assert 0 < step.retry_after_us <= max(10 * SECOND, 90 * SECOND)
            if each.standing.kind in (PAUSED, OPEN):
                assert not gate.admit(before, each.now + step.retry_after_us - 1, QUOTA, 1, 0).allowed
                after = gate.admit(before, each.now + step.retry_after_us, QUOTA, 0, 0)
                assert standing_of(after.remaining).kind in (CLOSED, HALF_OPEN)
        if step.reset_after_us:
            assert gate.expires(step.state, QUOTA) == each.now + step.reset_after_us
            assert gate.admit(step.state, each.now + step.reset_after_us, QUOTA, 0, 0).remaining == CLOSED
        each.tell(data.draw(outcomes), number if data.draw(st.booleans()) else OLD)
        if data.draw(st.booleans()):
            each.break_open() if each.standing.kind == CLOSED else each.tell(Outcome(FAULT, 500))
        each.now += data.draw(st.sampled_from([0, 1, SECOND, 31 * SECOND]))


@given(back=st.integers(1, 10**13), outcome=outcomes)
def test_clock_that_goes_back_makes_nothing_last_longer_than_it_would_from_then_on(back, outcome):
    each = Gate()
    each.now += 10**13
    each.break_open()
    each.wait(1)
    assert each.ask(lease=5).allowed
    each.tell(outcome)
    each.now -= back
    each.state = gate.settle(each.state, each.now, QUOTA, each.now, 0, 0, -1)  # As each refusal does.
    each.now += max(10, LEASE, outcome.pause_ms / 1000) * SECOND
    assert each.ask(lease=6).allowed


def test_refusals_bring_a_clock_that_went_back_to_the_present(clock):
    engine = Engine(MemoryStore(clock), secret=b"0123456789abcdef")
    call = Charge(engine.subject("openai"), QUOTA)
    engine.store.settle([Settlement(call, clock(), packed(Outcome(NEUTRAL, 429, 5000)), 1)])
    clock.advance(-3600)
    assert engine.reserve([call]).decision.verdicts[0].retry_after == 5
    clock.advance(5)
    assert engine.reserve([call]).allowed
    engine.close()


@pytest.fixture(params=["memory", "local"])
def engine(request, clock, open_local):
    engine = Engine(MemoryStore(clock) if request.param == "memory" else open_local(), secret=b"0123456789abcdef")
    yield engine
    engine.close()


def broken(engine):
    """The charge of a gate that is half-open in a second."""
    call = Charge(engine.subject("openai"), QUOTA)
    for _ in range(10):
        assert engine.reserve([call]).end(lambda _: packed(Outcome(FAULT, 503)))
    return call


def standing(engine, call):
    return standing_of(engine.peek([call]).verdicts[0].remaining)


def test_reservations_tell_what_came_of_their_calls(engine, clock):
    call = broken(engine)
    assert standing(engine, call) == Standing(OPEN, 503)
    assert not engine.reserve([call]).allowed
    clock.advance(1)
    probe = engine.reserve([call])
    assert probe.allowed
    assert not engine.reserve([call]).allowed
    assert probe.end(lambda _: packed(Outcome(GOOD, 200)))
    assert engine.reserve([call]).allowed
    assert standing(engine, call) == Standing(CLOSED, 0)


def test_cancelled_probe_is_given_back_and_one_that_tells_nothing_is_not(engine, clock):
    call = broken(engine)
    clock.advance(1)
    assert engine.reserve([call]).cancel()
    tells_nothing = engine.reserve([call])
    assert tells_nothing.allowed
    assert tells_nothing.settle({})
    assert not engine.reserve([call]).allowed
    clock.advance(LEASE)
    assert engine.reserve([call]).allowed


def test_probe_that_lives_is_renewed_and_one_that_nobody_can_end_is_given_back(engine, clock):
    call = broken(engine)
    clock.advance(1)
    probe = engine.reserve([call])
    for _ in range(4):
        clock.advance(LEASE / 2)
        engine.leases.renew()
        assert not engine.reserve([call]).allowed
    probe.open.clear()  # As when its end is interrupted.
    del probe
    engine.leases.give_back()
    assert engine.reserve([call]).allowed
