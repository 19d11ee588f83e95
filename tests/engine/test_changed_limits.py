"""What was used is kept when a limit changes, at once or while old and new workers share a store.

The models are plain: the sum of what was charged in a window, or a debt in fractions that is never rounded.
"""

import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from traffic import CARRY_NOTHING

from flask_ailimit.engine import Charge, Quota, Settlement
from flask_ailimit.engine.algorithms import token_bucket
from flask_ailimit.engine.quota import MAX_EXACT
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.testing import COUNTING, START_US, ManualClock, every_algorithm

SECOND = 1_000_000
PERIOD = 60
FINE = Fraction(1, 1000)
"""Of a unit: what is set aside is counted in parts of 1/1024."""

SUBJECT = b"somebody".ljust(16)
OVER_TIME = sorted(set(COUNTING) - {"concurrency"})
BUCKETS = ("provider-bucket", "token-bucket")
over_time = pytest.mark.parametrize("algorithm", OVER_TIME)


def quota(algorithm, limit, burst=None, debt_periods=4):
    unit = "concurrency" if algorithm == "concurrency" else "tokens"
    return Quota(limit, PERIOD, unit, algorithm, burst if algorithm in BUCKETS else None, debt_periods)


class Count:
    """One count of a store in memory, asked under one quota or another."""

    def __init__(self, start_us=START_US):
        self.clock = ManualClock(start_us)
        self.store = MemoryStore(self.clock)
        self.lease = 0

    def reserve(self, quota, cost):
        self.lease += 1
        return self.store.reserve([Charge(SUBJECT, quota, cost)], self.lease).verdicts[0]

    def settle(self, quota, taken_at_us, cost, actual, lease=0):
        self.store.settle([Settlement(Charge(SUBJECT, quota, cost), taken_at_us, actual, lease)])

    def peek(self, quota, cost=0):
        return self.store.peek([Charge(SUBJECT, quota, cost)]).verdicts[0]

    def left(self, quota):
        return self.peek(quota).remaining


# In words


@every_algorithm
def test_raise_grants_what_it_adds_and_no_more(algorithm):
    count = Count()
    assert all(count.reserve(quota(algorithm, 1000), 9).allowed for _ in range(100))
    assert count.left(quota(algorithm, 1200)) == 300
    assert not count.reserve(quota(algorithm, 1200), 301).allowed
    assert count.reserve(quota(algorithm, 1200), 300).allowed
    assert count.left(quota(algorithm, 1200)) == 0


@every_algorithm
def test_switch_down_and_up_refills_nothing_and_leaves_nothing_below_zero(algorithm):
    count = Count()
    count.reserve(quota(algorithm, 1000), 900)
    assert [count.left(quota(algorithm, limit)) for limit in (100, 1000, 899, 901)] == [0, 100, 0, 1]
    assert not count.reserve(quota(algorithm, 100), 1).allowed
    assert count.reserve(quota(algorithm, 1000), 100).allowed
    assert count.left(quota(algorithm, 1000)) == 0


@over_time
def test_what_was_granted_under_a_higher_limit_is_no_debt_under_a_lower_one(algorithm):
    """It counts for as long as it would have counted, and locks nobody out for longer."""
    count = Count()
    count.reserve(quota(algorithm, 1000), 900)
    count.settle(quota(algorithm, 1000), START_US, 900, 900)
    refused = count.reserve(quota(algorithm, 100), 1)
    assert not refused.allowed
    assert refused.retry_after <= {"sliding-window-counter": 2 * PERIOD}.get(algorithm, PERIOD)
    count.clock.advance_us(refused.retry_after_us)
    assert count.reserve(quota(algorithm, 100), 1).allowed


@over_time
def test_what_was_used_beyond_a_limit_is_owed_under_another_one_too(algorithm):
    count = Count()
    count.reserve(quota(algorithm, 100), 100)
    count.settle(quota(algorithm, 100), START_US, 100, 300)
    assert count.left(quota(algorithm, 250)) == 0
    assert count.left(quota(algorithm, 1000)) == 700
    waits = [count.peek(quota(algorithm, limit), 1).retry_after for limit in (250, 100, 90)]
    if algorithm in CARRY_NOTHING:
        assert waits == [PERIOD] * 3
    else:
        assert 0 < waits[0] < waits[1] <= waits[2]


@over_time
@pytest.mark.parametrize("limits", [(1000, 1200), (1200, 1000), (1000, 300)])
def test_refund_under_the_old_limit_is_whole_under_the_new_one(algorithm, limits):
    old, new = (quota(algorithm, limit) for limit in limits)
    count = Count()
    count.reserve(old, 200)
    count.reserve(old, 500)
    count.reserve(new, 0)
    count.settle(old, START_US, 500, 20)
    assert count.left(new) == new.limit - 220
    assert count.left(old) == old.limit - 220
    assert not count.reserve(new, new.limit).allowed


@over_time
def test_settlement_under_the_old_limit_does_not_bring_it_back(algorithm):
    old, new = quota(algorithm, 100), quota(algorithm, 1000)
    count = Count()
    count.reserve(old, 100)
    count.reserve(new, 400)
    count.settle(old, START_US, 100, 350)
    assert count.left(new) == 250
    assert count.reserve(new, 250).allowed


def test_what_is_used_beyond_a_reservation_leaks_by_its_own_limit_if_nothing_else_is_left():
    old, new = quota("token-bucket", 41), quota("token-bucket", 335)
    count = Count()
    count.reserve(old, 1)
    count.reserve(new, 9)
    count.clock.advance(2 * PERIOD)
    count.settle(old, START_US, 1, 1)
    count.settle(new, START_US, 9, 144)
    assert count.left(new) == 200
    count.clock.advance(PERIOD / 5)
    assert count.left(new) == 200 + 335 // 5


def test_slots_beyond_a_lowered_limit_stay_with_who_has_them():
    old, new = quota("concurrency", 10), quota("concurrency", 4)
    count = Count()
    taken = [count.reserve(old, 1) for _ in range(6)]
    refused = count.reserve(new, 1)
    assert (len(taken), refused.allowed, refused.remaining) == (6, False, 0)
    assert 0 < refused.retry_after <= PERIOD
    for lease in (1, 2, 3):
        count.settle(old, START_US, 1, 0, lease)
    assert count.reserve(new, 1).allowed
    assert not count.reserve(new, 1).allowed
    assert count.left(old) == 6


# Switching


PAIRS = [
    ((1000, 1200), (1000, 1200)),
    ((1000, 100), (1000, 100)),
    ((123_457, 1_000_000), (7_000, 123_457)),
    ((60_000_000, 61_000_007), (60_000_000, 61_000_007)),
    ((10, 10), (1000, 30)),
    ((999_999_937, 1_000_000_000), (999_999_937, 1_000_000_000)),
]


@pytest.mark.parametrize(
    ("algorithm", "limits", "bursts"),
    [("token-bucket", *pair) for pair in PAIRS]
    + [(algorithm, *PAIRS[1]) for algorithm in OVER_TIME if algorithm not in BUCKETS],
)
def test_switching_ten_thousand_times_refills_nothing_and_takes_nothing(algorithm, limits, bursts):
    one, other = (quota(algorithm, limit, burst) for limit, burst in zip(limits, bursts, strict=True))
    used = one.burst * 9 // 10
    count = Count(START_US + 12_345_678)
    count.reserve(one, used)
    for _ in range(5_000):
        count.reserve(other, other.burst)
        count.reserve(one, 0)
    assert one.burst - used - 1 <= count.left(one) <= one.burst - used


@pytest.mark.parametrize("limits", [(1000, 1200), (1000, 100), (999_999_937, 1_000_000_000)])
def test_old_and_new_workers_together_leak_at_the_slower_of_their_rates(limits):
    old, new = (quota("token-bucket", limit) for limit in limits)
    count = Count()
    count.reserve(old, old.burst)
    for _ in range(5_000):
        count.clock.advance_us(1_000)
        count.reserve(new, 0)
        count.clock.advance_us(1_000)
        count.reserve(old, 0)
    leaked = Fraction(10 * min(limits), PERIOD)
    tick = Fraction(old.limit * old.tick_us, PERIOD * SECOND)
    assert leaked - 1 - tick <= count.left(old) <= leaked


@over_time
@given(data=st.data())
def test_wait_is_true_right_after_a_change_and_to_the_microsecond(algorithm, data):
    limits = st.sampled_from([1, 3, 10, 100, 999, 123_457])
    quotas = [
        quota(algorithm, data.draw(limits), data.draw(limits), data.draw(st.sampled_from([0, 1, 4]))) for _ in range(3)
    ]
    count = Count(START_US + data.draw(st.integers(0, PERIOD * SECOND)))
    for _ in range(data.draw(st.integers(1, 6))):
        each = data.draw(st.sampled_from(quotas))
        cost = data.draw(st.integers(0, each.burst))
        at = count.clock()
        if count.reserve(each, cost).allowed:
            count.clock.advance_us(data.draw(st.integers(0, 90 * SECOND)))
            count.settle(each, at, cost, data.draw(st.integers(0, 3 * each.burst)))
    asked = data.draw(st.sampled_from(quotas))
    cost = data.draw(st.integers(0, asked.burst))
    refused = count.reserve(asked, cost)
    if not refused.allowed:
        count.clock.advance_us(refused.retry_after_us - 1)
        assert not count.peek(asked, cost).allowed
        count.clock.advance_us(1)
        assert count.reserve(asked, cost).allowed


# Against plain models


class Windows:
    """The sum of what counts. A charge is corrected in place."""

    def __init__(self, algorithm):
        self.algorithm = algorithm
        self.charges = []

    def take(self, now, quota, units):
        self.charges = [each for each in self.charges if each[0] > now - 2 * PERIOD * SECOND]
        self.charges.append([now, units])
        return self.charges[-1]

    def refuse(self, now, quota):
        pass

    def settle(self, now, quota, charge, actual):
        charge[1] = actual

    def left(self, now, quota):
        period = PERIOD * SECOND
        if self.algorithm == "moving-window":
            return quota.limit - sum(units for at, units in self.charges if at > now - period)
        in_window = [sum(u for at, u in self.charges if at // period == now // period - ago) for ago in (0, 1)]
        if self.algorithm in ("fixed-window", *CARRY_NOTHING):
            return quota.limit - in_window[0]
        return quota.limit - in_window[0] - in_window[1] * (1 - Fraction(now % period, period))


class Bucket:
    """A debt in fractions of units, with every trough. What was granted beyond the burst in force is set aside.

    It can't say what is left at the moment when the debt ends, and with it what is set aside.
    """

    def __init__(self, _):
        self.debt, self.aside, self.at, self.quota, self.troughs = Fraction(0), Fraction(0), 0, None, []

    def is_under(self, quota):
        return bool(self.quota) and (self.quota.limit, self.quota.burst) == (quota.limit, quota.burst)

    def leak(self, now, quota):
        """Bound it, if it stands under this quota, and bring it to the present."""
        if self.is_under(quota):
            self.debt = min(self.debt, Fraction(quota.most_debt, quota.cost_scale))
        if self.quota:  # Once it has ended, by the second, it is as if never used.
            end_us = self.at + self.debt * PERIOD * SECOND / self.quota.limit
            if now >= -(-end_us // SECOND) * SECOND:
                self.debt, self.quota = Fraction(0), None
        limit = min(quota.limit, self.quota.limit) if self.quota else quota.limit
        left = self.debt - Fraction((now - self.at) * limit, PERIOD * SECOND)
        self.is_at_edge = bool(self.aside) and abs(left) < FINE
        self.debt, self.at = max(Fraction(0), left), now
        if not self.debt:
            self.aside, self.troughs = Fraction(0), []

    def switch(self, now, quota):
        self.leak(now, quota)
        if self.quota and not self.is_under(quota):
            owed = max(0, self.debt - self.quota.burst)
            granted = self.debt - owed + self.aside
            self.aside = max(Fraction(0), granted - quota.burst)
            self.debt = granted - self.aside + owed
        self.debt = min(self.debt, Fraction(quota.most_debt, quota.cost_scale))
        self.quota = quota

    def refuse(self, now, quota):
        """Only what changes is noted. Until then it leaks at the slower of the two rates."""
        if self.quota and not self.is_under(quota):
            self.switch(now, quota)

    def take(self, now, quota, units):
        self.switch(now, quota)
        self.troughs.append((now, self.debt))
        self.debt += units
        return [now, units]

    def settle(self, now, quota, charge, actual):
        taken_at, cost = charge
        is_own = not self.quota or self.is_under(quota)
        self.leak(now, quota if is_own else self.quota.owing(1000))
        is_own = is_own or not self.quota
        self.quota = self.quota or quota
        if actual < cost:
            self.refund(Fraction(cost - actual), taken_at, is_own)
        elif actual > cost:
            self.troughs.append((now, self.debt))
            self.debt += actual - cost
            most = quota.most_debt if is_own else MAX_EXACT
            self.debt = min(self.debt, Fraction(most, self.quota.cost_scale))
        if not self.debt:  # Nothing is left of it, so the next charge may be under any limit.
            self.aside, self.troughs, self.quota = Fraction(0), [], None

    def refund(self, undone, taken_at, is_own):
        if not is_own and self.debt:
            back = min(undone, self.aside)
            self.aside, undone = self.aside - back, undone - back
        refund = min([undone, self.debt, *(low for at, low in self.troughs if at > taken_at)])
        self.debt -= refund
        self.troughs = [(at, low - refund if at > taken_at else low) for at, low in self.troughs]

    def left(self, now, quota):
        copy = Bucket(None)
        copy.__dict__.update(self.__dict__)
        copy.switch(now, quota)
        return None if copy.is_at_edge else quota.burst - copy.debt


def live(algorithm, seed, steps, *, overruns):
    """Random lives, each of some hundred steps: limits change by up to ten times between reserve and settle."""
    draw, done, refused, granted = random.Random(f"{algorithm} {seed}"), 0, 0, 0
    while done < steps:
        base = draw.choice([20, 100, 1000, 123_457, 1_000_000])  # All in ticks of a microsecond.
        quotas = [quota(algorithm, base)] * 2
        count, open_ones = Count(START_US + draw.randrange(100 * SECOND)), []
        model = (Bucket if algorithm in BUCKETS else Windows)(algorithm)
        for _ in range(300):
            done += 1
            count.clock.advance_us(draw.choice([draw.randrange(2 * SECOND), draw.randrange(12 * SECOND)]) + 1)
            now = count.clock()
            if None in [model.left(now, each) for each in quotas]:
                continue
            if draw.random() < 0.1:  # From now on there are workers with another limit.
                limit = max(2, round(base * 10 ** draw.uniform(-1, 1)))
                burst = draw.choice([limit, limit, max(2, round(limit * 10 ** draw.uniform(-0.5, 0.5)))])
                quotas = [quotas[1], quota(algorithm, limit, burst)]
            asked = draw.choice(quotas)
            if draw.random() < 0.6 or not open_ones:
                cost = 1 + draw.randrange(max(1, round(asked.burst * draw.choice([0.02, 0.2, 1]))))
                room = model.left(now, asked)
                verdict = count.reserve(asked, cost)
                if verdict.allowed:
                    assert cost <= room + FINE, "more is granted than the limit in force allows"
                    granted += 1
                    open_ones.append((asked, model.take(now, asked, cost), cost))
                else:
                    assert room - cost < 1, "refused though there is room"
                    refused += 1
                    model.refuse(now, asked)
                    is_guess = verdict.spending and verdict.spending.reserved
                    if verdict.retry_after and not is_guess and draw.random() < 0.2:
                        count.clock.advance_us(verdict.retry_after_us)
                        assert count.peek(asked, cost).allowed, "the wait is not true"
            else:
                reserved, charge, cost = open_ones.pop(draw.randrange(len(open_ones)))
                part = draw.choice([0, 0.1, 0.5, 0.9] + ([1.5, 3] if overruns else [1]))
                at, actual = charge[0], round(cost * part)
                count.settle(reserved, at, cost, actual)
                model.settle(now, reserved, charge, actual)
            for each in quotas:
                left, should = count.left(each), model.left(count.clock(), each)
                assert left >= 0
                assert should is None or max(0, should) - 1 - FINE <= left <= max(0, should) + FINE, (
                    done,
                    each,
                    float(should),
                )
    assert min(refused, granted) > steps / 20


@pytest.fixture
def every_trough(monkeypatch):
    monkeypatch.setattr(token_bucket, "_MAX_TROUGHS", 10**9)


@over_time
@pytest.mark.usefixtures("every_trough")
def test_what_is_left_is_what_a_plain_model_says_whatever_the_limits_do(algorithm):
    live(algorithm, 0, 3_000, overruns=algorithm in BUCKETS)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@over_time
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.usefixtures("every_trough")
def test_what_is_left_is_what_a_plain_model_says_for_a_hundred_thousand_steps(algorithm, seed):
    live(algorithm, seed, 100_000, overruns=algorithm in BUCKETS)
