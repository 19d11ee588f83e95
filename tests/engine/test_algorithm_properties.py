"""What holds for every algorithm, whatever the traffic."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from traffic import SECOND, quota_of, run, traffic

from flask_ailimit.engine import ALGORITHMS
from flask_ailimit.engine.quota import MAX_EXACT
from flask_ailimit.testing import COUNTING, every_algorithm

OVER_TIME = sorted(set(COUNTING) - {"concurrency"})


@every_algorithm
@given(data=st.data())
def test_refusal_leaves_the_state_as_it_was(algorithm, data):
    for _, cost, state, step in run(*data.draw(traffic(algorithm))):
        if not step.allowed or not cost:
            assert step.state is state


@every_algorithm
@given(data=st.data())
def test_numbers_are_whole_and_below_2_to_the_53(algorithm, data):
    quota, calls = data.draw(traffic(algorithm))
    for *_, step in run(quota, calls):
        assert all(type(number) is int and 0 <= number <= MAX_EXACT for number in step.state)
        assert 0 <= step.remaining <= quota.burst
        assert step.reset_after_us >= 0


@every_algorithm
@given(data=st.data())
def test_cost_of_nothing_fits_and_a_cost_above_the_limit_never_does(algorithm, data):
    quota, calls = data.draw(traffic(algorithm))
    for now, cost, state, step in run(quota, calls):
        assert ALGORITHMS[algorithm].admit(state, now, quota, 0, 1).allowed
        assert (step.retry_after_us is None) == (cost > quota.burst)
        assert (step.retry_after_us == 0) == step.allowed


@pytest.mark.parametrize("algorithm", OVER_TIME)
@given(data=st.data())
def test_refused_charge_fits_at_the_promised_microsecond_and_not_one_earlier(algorithm, data):
    quota, calls = data.draw(traffic(algorithm))
    admit = ALGORITHMS[algorithm].admit
    for now, cost, state, step in run(quota, calls):
        if not step.allowed and step.retry_after_us is not None:
            assert admit(state, now + step.retry_after_us, quota, cost, 1).allowed
            assert not admit(state, now + step.retry_after_us - 1, quota, cost, 1).allowed


@given(data=st.data())
def test_refused_call_is_asked_back_when_the_oldest_has_run_twice_as_long_or_its_lease_ends(data):
    quota, calls = data.draw(traffic("concurrency"))
    for now, _, state, step in run(quota, calls):
        if step.retry_after_us:
            left = min(min(end - now, quota.period * SECOND) for end in state[::2] if end > now)
            assert step.retry_after_us == min(max(SECOND, quota.period * SECOND - left), left)


@every_algorithm
@given(data=st.data())
def test_what_remains_is_the_largest_cost_that_fits(algorithm, data):
    quota, calls = data.draw(traffic(algorithm))
    admit = ALGORITHMS[algorithm].admit
    for now, _, _, step in run(quota, calls):
        assert admit(step.state, now, quota, step.remaining, 1).allowed
        assert not admit(step.state, now, quota, step.remaining + 1, 1).allowed


@every_algorithm
@given(data=st.data())
def test_count_is_as_if_never_used_at_the_promised_microsecond_and_not_one_earlier(algorithm, data):
    quota, calls = data.draw(traffic(algorithm))
    admit, expires = ALGORITHMS[algorithm].admit, ALGORITHMS[algorithm].expires
    for now, _, _, step in run(quota, calls):
        if step.reset_after_us:
            reset = now + step.reset_after_us
            assert expires(step.state, quota) == reset
            assert admit(step.state, reset, quota, quota.burst, 1) == admit((), reset, quota, quota.burst, 1)._replace(
                state=admit(step.state, reset, quota, quota.burst, 1).state
            )
            assert admit(step.state, reset - 1, quota, 0, 1).remaining < quota.burst


@every_algorithm
@given(data=st.data(), later=st.lists(st.integers(0, 100 * SECOND), max_size=5))
def test_room_only_grows_while_nobody_calls(algorithm, data, later):
    quota, calls = data.draw(traffic(algorithm))
    *_, (now, _, _, step) = run(quota, calls)
    room = [ALGORITHMS[algorithm].admit(step.state, now + us, quota, 0, 1).remaining for us in sorted(later)]
    assert [step.remaining, *room] == sorted([step.remaining, *room])


@every_algorithm
@given(data=st.data())
def test_cost_changes_neither_the_verdict_nor_the_size_of_the_state(algorithm, data):
    """A thousandth of everything is decided and kept alike: no loop and no entry for each unit."""
    if algorithm == "concurrency":
        return  # Each slot is an entry, and has a lease of its own to end.
    period, calls = 60, data.draw(st.lists(st.tuples(st.integers(0, 9 * SECOND), st.integers(0, 10)), max_size=100))
    small, large = (quota_of(algorithm, limit, period) for limit in (10, 10 * 10**9))
    few = [(step.allowed, len(step.state)) for *_, step in run(small, calls)]
    many = [
        (step.allowed, len(step.state)) for *_, step in run(large, [(pause, cost * 10**9) for pause, cost in calls])
    ]
    assert few == many


# Bounds


def admitted(quota, calls):
    return [(now, cost) for now, cost, _, step in run(quota, calls) if step.allowed and cost]


@given(data=st.data())
def test_token_bucket_grants_at_most_its_burst_and_what_leaked_in_any_interval(data):
    quota, calls = data.draw(traffic("token-bucket"))
    granted = admitted(quota, calls)
    for i, (start, _) in enumerate(granted):
        for j in range(i, len(granted)):
            ticks = granted[j][0] // quota.tick_us - start // quota.tick_us
            leaked = Fraction(quota.limit * ticks, quota.period_ticks)
            assert sum(cost for _, cost in granted[i : j + 1]) <= quota.burst + leaked


@given(data=st.data())
def test_moving_window_grants_at_most_its_limit_in_any_period(data):
    quota, calls = data.draw(traffic("moving-window", most=150))
    granted = admitted(quota, calls)
    for now, _ in granted:
        assert sum(cost for t, cost in granted if now - quota.period * SECOND < t <= now) <= quota.limit


@given(data=st.data())
def test_fixed_window_grants_its_limit_in_each_window_and_refuses_only_beyond(data):
    quota, calls = data.draw(traffic("fixed-window"))
    windows = {}
    for now, cost, _, step in run(quota, calls):
        window = now // (quota.period * SECOND)
        assert step.allowed == (not cost or windows.get(window, 0) + cost <= quota.limit)
        windows[window] = windows.get(window, 0) + cost * step.allowed


@given(data=st.data())
def test_sliding_window_counter_follows_its_formula(data):
    quota, calls = data.draw(traffic("sliding-window-counter"))
    tick_us = next(us for us in (1, 1000, SECOND) if 4 * quota.limit * (quota.period * SECOND // us) <= MAX_EXACT)
    windows = {}
    for now, cost, _, step in run(quota, calls):
        window, elapsed_us = divmod(now // tick_us * tick_us, quota.period * SECOND)
        overlap = 1 - Fraction(elapsed_us, quota.period * SECOND)
        used = windows.get(window, 0) + windows.get(window - 1, 0) * overlap
        assert step.allowed == (not cost or used + cost <= quota.limit)
        windows[window] = windows.get(window, 0) + cost * step.allowed


@given(data=st.data())
def test_concurrency_holds_at_most_its_limit(data):
    quota, calls = data.draw(traffic("concurrency"))
    granted = admitted(quota, calls)
    for now, _ in granted:
        assert sum(cost for t, cost in granted if t <= now < t + quota.period * SECOND) <= quota.limit


@given(pauses=st.lists(st.integers(0, 3 * SECOND), min_size=60, max_size=300), cost=st.integers(1, 3))
def test_moving_window_is_exact_up_to_64_entries_and_then_at_most_a_sixtieth_late(pauses, cost):
    quota = quota_of("moving-window", 250, 60)
    granted = []
    for now, asked, state, step in run(quota, [(pause, cost) for pause in pauses]):
        in_period = sum(units for t, units in granted if t > now - 60 * SECOND)
        and_a_sixtieth = sum(units for t, units in granted if t > now - 61 * SECOND)
        if len(granted) <= 64:
            assert step.allowed == (in_period + asked <= 250)
        assert (and_a_sixtieth + asked <= 250) <= step.allowed <= (in_period + asked <= 250)
        assert len(state) <= 2 * 64
        if step.allowed:
            granted.append((now, asked))
