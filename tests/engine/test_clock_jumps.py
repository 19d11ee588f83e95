"""What holds for every algorithm when the clock is set, or counts are driven out of bounds."""

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from traffic import SECOND, quota_of, run, traffic

from flask_ailimit.engine import ALGORITHMS, Charge, Settlement
from flask_ailimit.engine.decide import decide, settle
from flask_ailimit.engine.quota import MAX_EXACT
from flask_ailimit.testing import START_US, every_algorithm

YEAR = 366 * 86400 * SECOND


@every_algorithm
@given(
    data=st.data(),
    jumps=st.lists(st.one_of(st.integers(-10 * YEAR, 10 * YEAR), st.integers(-100 * SECOND, 100 * SECOND)), max_size=4),
)
def test_clock_that_jumps_freezes_nobody_for_longer_than_a_full_bucket_takes(algorithm, data, jumps):
    """After any jump, a charge that fits the limit waits no longer than from a full count, and not in vain."""
    quota, calls = data.draw(traffic(algorithm, most=10))
    records = {}

    def read(subject):
        return dict(records.get(subject, {}))

    def ask(cost, now, lease):
        charge = Charge(bytes(16), quota, cost)
        decision, changes = decide(read, [charge], now, lease)
        records.update(changes)
        if decision.allowed and ALGORITHMS[algorithm].spending:  # What is reserved makes the next wait a guess.
            records.update(settle(read, [Settlement(charge, now, cost, lease)], now)[1])
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
