"""What holds for every algorithm, whatever the traffic."""

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flask_ailimit.engine import ALGORITHMS, Charge, Quota
from flask_ailimit.engine.decide import decide
from flask_ailimit.engine.quota import MAX_EXACT
from flask_ailimit.testing import START_US, every_algorithm

SECOND = 1_000_000
YEAR = 366 * 86400 * SECOND
OVER_TIME = sorted(set(ALGORITHMS) - {"concurrency"})


def quota_of(algorithm, limit, period, burst=0):
    if algorithm == "concurrency":
        return Quota(limit, period, "concurrency", algorithm)
    return Quota(limit, period, "tokens", algorithm, burst if algorithm == "token-bucket" else 0)


@st.composite
def traffic(draw, algorithm, most=25):
    """A quota, and calls of it: microseconds since the one before, and the cost."""
    limits = [1, 2, 3, 7, 10, 100]
    limit = draw(st.sampled_from(limits if algorithm == "concurrency" else [*limits, 9_999, 123_457, 10**9 + 7]))
    period = draw(st.sampled_from([1, 7, 60, 3600, 86400]))
    burst = draw(st.sampled_from([0, 1, limit // 2 + 1, 3 * limit]))
    pauses = st.one_of(
        st.sampled_from([0, 0, 1, SECOND]),
        st.integers(0, period * SECOND // max(1, min(limit, 100))),
        st.integers(0, 3 * period * SECOND),
    )
    quota = quota_of(algorithm, limit, period, burst)
    costs = st.one_of(st.just(1), st.integers(0, quota.burst), st.integers(quota.burst // 2, 2 * quota.burst + 2))
    return quota, draw(st.lists(st.tuples(pauses, costs), min_size=1, max_size=most))


def run(quota, calls):
    """Each call's time, cost, state before and step."""
    algorithm, state, now = ALGORITHMS[quota.algorithm], (), START_US + 12_345_678
    for lease, (pause, cost) in enumerate(calls):
        now += pause
        step = algorithm.admit(state, now, quota, cost, lease)
        yield now, cost, state, step
        state = step.state


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


# A clock that jumps


@every_algorithm
@given(
    data=st.data(),
    jumps=st.lists(st.one_of(st.integers(-10 * YEAR, 10 * YEAR), st.integers(-100 * SECOND, 100 * SECOND)), max_size=4),
)
def test_clock_that_jumps_freezes_nobody_for_longer_than_a_full_bucket_takes(algorithm, data, jumps):
    """After any jump, a charge that fits the limit waits no longer than from a full count, and not in vain."""
    quota, calls = data.draw(traffic(algorithm, most=10))
    records = {}

    def ask(cost, now, lease):
        charge = Charge(bytes(16), quota, cost)
        decision, changes = decide(lambda subject: dict(records.get(subject, {})), [charge], now, lease)
        records.update(changes)
        numbers = [number for record in records.values() for bucket in record.values() for number in bucket.state]
        assert all(0 <= number <= MAX_EXACT for number in numbers)
        return decision.verdicts[0]

    now = START_US + 20 * YEAR
    for jump in [0, *jumps]:
        now += jump
        for lease, (pause, cost) in enumerate(calls):
            now += pause
            verdict = ask(cost, now, lease)
            if not verdict.allowed and verdict.retry_after_us is not None:
                windows = 2 if algorithm == "sliding-window-counter" else 1
                longest = windows * max(1, Fraction(quota.burst, quota.limit)) * quota.period * SECOND
                assert 0 < verdict.retry_after_us <= longest + quota.tick_us
                if algorithm != "concurrency":
                    assert not ask(cost, now + verdict.retry_after_us - 1, lease).allowed
                    now += verdict.retry_after_us
                    assert ask(cost, now, lease).allowed


@every_algorithm
@pytest.mark.parametrize("back", [1, SECOND, 59 * SECOND, 60 * SECOND, 3600 * SECOND, 10 * YEAR])
def test_refusals_alone_bring_a_count_back_from_the_future(algorithm, back):
    """Nothing but refusals comes after the jump, so only they can write that the time is another one."""
    quota = quota_of(algorithm, 10, 60)
    records = {}

    def ask(now):
        decision, changes = decide(lambda s: dict(records.get(s, {})), [Charge(bytes(16), quota, 10)], now, 1)
        records.update(changes)
        return decision.allowed

    now = START_US + 20 * YEAR + 30 * SECOND
    assert ask(now)
    now -= back
    asked = [ask(now + second * SECOND) for second in range(121)]
    assert not asked[0]
    assert any(asked)


@every_algorithm
@given(data=st.data(), forward=st.integers(0, 10 * YEAR))
def test_clock_that_jumps_forward_grants_at_most_one_full_count(algorithm, data, forward):
    quota, calls = data.draw(traffic(algorithm))
    *_, (now, _, _, step) = run(quota, calls)
    assert ALGORITHMS[algorithm].admit(step.state, now + forward, quota, 0, 1).remaining <= quota.burst


@example(pause=0, cost=MAX_EXACT)
@every_algorithm
@given(pause=st.integers(0, 100 * SECOND), cost=st.integers(1, MAX_EXACT))
def test_overruns_of_any_size_stay_within_range(algorithm, pause, cost):
    quota = quota_of(algorithm, 10, 60)
    rule = ALGORITHMS[algorithm]
    now = START_US
    state = rule.admit((), now, quota, 1, 1).state
    for _ in range(70):
        now += pause
        state = rule.settle(state, now, quota, now - pause, 0, cost, 2)
        assert all(0 <= number <= MAX_EXACT for number in state)
        assert 0 <= rule.admit(state, now, quota, 1, 3).remaining <= 10
