"""What was used beyond a limit is owed: to the last unit, with honest waits, and within a bound."""

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from traffic import CARRY_NOTHING, SECOND, is_exact, quota_of

from flask_ailimit.engine import ALGORITHMS, ConfigurationError, Quota, parse_quotas
from flask_ailimit.engine.quota import MAX_EXACT
from flask_ailimit.testing import COUNTING, START_US

OVER_TIME = sorted(set(COUNTING) - {"concurrency"})
over_time = pytest.mark.parametrize("algorithm", OVER_TIME)

pauses = st.one_of(st.sampled_from([0, 1, 30 * SECOND, 60 * SECOND]), st.integers(0, 200 * SECOND))
happenings = st.one_of(
    st.tuples(pauses, st.none(), st.integers(0, 110)),
    st.tuples(pauses, st.integers(0, 100), st.one_of(st.sampled_from([0.0, 1.0, 30.0]), st.floats(0, 4))),
)
lives = st.lists(happenings, max_size=40)


def owing(algorithm, periods=1000):
    burst = 150 if algorithm == "token-bucket" else None
    return Quota(100, 60, "tokens", algorithm, burst, periods)


def play(quota, life):
    """Reserve (pause, None, cost) and settle (pause, which, part used); answer each time's state and what was done.

    That is a reservation's number, its cost, when it was taken, and what it used; the latter is None when it is taken.
    """
    rule, state, now, reserved = ALGORITHMS[quota.algorithm], (), START_US, []
    for number, (pause, which, amount) in enumerate(life):
        now += pause
        done = None
        if which is None:
            step = rule.admit(state, now, quota, amount, 0)
            if step.allowed:
                state = step.state
                done = number, amount, now, None
                reserved.append(done)
        elif reserved:
            taken, cost, taken_at, _ = reserved.pop(which % len(reserved))
            done = taken, cost, taken_at, round(cost * amount)
            state = rule.settle(state, now, quota, taken_at, cost, done[-1], 0)
        yield now, state, done


@over_time
@given(life=lives, cost=st.integers(0, 100), periods=st.sampled_from([0, 1, 4, 1000]))
def test_wait_is_true_to_the_microsecond_also_in_debt(algorithm, life, cost, periods):
    quota = owing(algorithm, periods)
    admit = ALGORITHMS[algorithm].admit
    for now, state, _ in play(quota, life):
        step = admit(state, now, quota, cost, 0)
        if not step.allowed and is_exact(state, now, quota):
            assert admit(state, now + step.retry_after_us, quota, cost, 0).allowed
            assert not admit(state, now + step.retry_after_us - 1, quota, cost, 0).allowed
        assert step.remaining == 0 or admit(state, now, quota, 0, 0).allowed
        if state and step.reset_after_us and not step.allowed:
            assert ALGORITHMS[algorithm].expires(state, quota) == now + step.reset_after_us


@over_time
@given(life=lives)
@example(life=[(0, None, 17), (0, None, 58), (0, None, 9), (0, 0, 2.0)])
def test_count_stands_never_lower_than_had_each_been_charged_what_it_used(algorithm, life):
    """What is used beyond a reservation is charged when it is known, of both."""
    quota, rule, plain = owing(algorithm), ALGORITHMS[algorithm], ()
    history = list(play(quota, life))
    used = {done[0]: done[3] for *_, done in history if done and done[3] is not None}
    for now, state, done in history:
        if done:
            number, cost, _, actual = done
            units = min(cost, used.get(number, cost)) if actual is None else max(0, actual - cost)
            plain = rule.settle(plain, now, quota, now, 0, units, 0)
        stands, should = (rule.admit(each, now, quota, 0, 0) for each in (state, plain))
        assert stands.remaining <= should.remaining
        assert stands.allowed <= should.allowed
        if is_exact(state, now, quota):  # Else it asks to come back soon: what is reserved may be given back.
            assert stands.retry_after_us >= should.retry_after_us


@over_time
@pytest.mark.parametrize(
    ("parallel", "cost", "actual"), [(1, 1, 70), (12, 1, 900), (3, 0, 130), (5, 40, 41), (2, 100, 0)]
)
def test_no_more_is_used_in_the_long_run_than_the_limit_and_what_calls_in_flight_overran(
    algorithm, parallel, cost, actual
):
    """A client that knows no mercy: as many calls at once as it has, each as soon as it is let in.

    Where nothing is carried over, they may overrun anew in each window.
    """
    if algorithm == "provider-bucket" and not cost:
        return  # At a cost of 0 it is what the provider tells, and not what was used too much.
    quota, rule, draw = owing(algorithm), ALGORITHMS[algorithm], random.Random(algorithm)
    state, now, flying, used = (), START_US, [], 0
    while now < START_US + 400 * 60 * SECOND:
        step = rule.admit(state, now, quota, cost, 0)
        if step.allowed and len(flying) < parallel:
            state = step.state
            flying.append((now + draw.randrange(20 * SECOND), now))
            continue
        ends = min(flying)[0] if flying else now + step.retry_after_us
        now = max(now, ends if step.allowed else min(ends, now + step.retry_after_us))
        for ended in [each for each in flying if each[0] <= now]:
            flying.remove(ended)
            state = rule.settle(state, now, quota, ended[1], cost, actual, 0)
            used += actual
        elapsed = (now - START_US) // (60 * SECOND) + 1
        in_flight = parallel * max(actual, cost)
        overran = in_flight * elapsed if algorithm in CARRY_NOTHING else in_flight
        assert used <= quota.limit * elapsed + quota.burst + overran
    if actual > cost:
        assert used >= quota.limit * 300, "nothing is learnt from a client that gets nothing"


@over_time
@pytest.mark.parametrize("periods", [0, 1, 4, 1000])
@pytest.mark.parametrize("period", [1, 60, 86400, 10 * 366 * 86400])
def test_debt_is_bounded_by_its_periods_and_by_a_lifetime(algorithm, periods, period):
    quota = Quota(10, period, "tokens", algorithm, debt_periods=periods)
    rule, state = ALGORITHMS[algorithm], ()
    for _ in range(3):
        state = rule.settle(state, START_US, quota, START_US, 0, MAX_EXACT, 0)
    step = rule.admit(state, START_US, quota, 1, 0)
    assert not step.allowed
    assert step.retry_after_us <= min((periods + 2) * period * SECOND, 2**52 + period * SECOND)
    assert rule.admit(state, START_US + step.retry_after_us, quota, 1, 0).allowed
    assert rule.expires(state, quota) <= MAX_EXACT


@over_time
def test_bound_that_is_lowered_holds_for_debts_that_are_there(algorithm):
    rule = ALGORITHMS[algorithm]
    much, little = owing(algorithm, 1000), owing(algorithm, 1)
    assert much.bucket("") == little.bucket("")
    assert (much.tick_us, much.cost_scale) == (little.tick_us, little.cost_scale)
    state = rule.settle((), START_US, much, START_US, 0, 10**6, 0)
    lowered = rule.settle((), START_US, little, START_US, 0, 10**6, 0)
    assert rule.admit(state, START_US, little, 0, 0)[2:] == rule.admit(lowered, START_US, little, 0, 0)[2:]
    assert rule.expires(state, little) == rule.expires(lowered, little)


def test_moving_window_pays_exactly_its_limit_in_each_period():
    quota = owing("moving-window")
    rule, state = ALGORITHMS["moving-window"], ()
    for second in range(0, 50, 5):
        state = rule.admit(state, START_US + second * SECOND, quota, 10, 0).state
    state = rule.settle(state, START_US + 50 * SECOND, quota, START_US, 10, 10 + 1234, 0)
    free_at = rule.admit(state, START_US + 50 * SECOND, quota, 0, 0).retry_after_us // SECOND + 50
    assert free_at == 60 * 13 + 15  # After twelve periods 34 are left: entries of 10 at 0, 5, 10 and 15 seconds.


@pytest.mark.parametrize("value", [-1, 1001, 1.0, True, None, "4"])
def test_debt_periods_that_are_no_whole_number_from_0_to_1000_are_refused(value):
    with pytest.raises(ConfigurationError, match="debt_periods: a whole number from 0 to 1000"):
        Quota(10, 60, debt_periods=value)


def test_debt_periods_are_part_of_equality_and_of_a_limit_that_is_read():
    assert Quota(10, 60) == Quota(10, 60, debt_periods=4) != Quota(10, 60, debt_periods=3)
    assert parse_quotas("10 per minute", debt_periods=2) == (Quota(10, 60, debt_periods=2),)
    assert quota_of("fixed-window", 10, 60).owing(7).debt_periods == 7
