"""The refund law: a bucket stands where it would stand had each reservation been charged its actual cost at its time.

The oracle knows nothing of troughs. It keeps every charge ever made, corrects them in place, and plays the bucket from
the beginning: between two charges the debt falls, never below zero; a charge raises it.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit.engine import Quota
from flask_ailimit.engine.algorithms import token_bucket
from flask_ailimit.engine.algorithms.token_bucket import admit, settle
from flask_ailimit.engine.quota import MAX_EXACT
from flask_ailimit.testing import START_US

SECOND = 1_000_000
QUOTAS = [
    Quota(10, 60),
    Quota(60, 60, burst=7),
    Quota(7, 1, burst=30),
    Quota(1000, 1),
    Quota(999_999_937, 3600, burst=50_000_000),  # Counts in milliseconds
    Quota(999_999_937, 86400, burst=50_000),  # Counts in seconds: many charges share a tick.
]
NO_LIMIT = 10**9


class Oracle:
    """Charges as [tick, debt they make], in the order they were made."""

    def __init__(self, quota):
        self.quota = quota
        self.charges = []

    def charge(self, now_us, cost):
        self.charges.append([now_us // self.quota.tick_us, cost * self.quota.cost_scale])
        return self.charges[-1]

    def correct(self, charge, actual):
        charge[1] = actual * self.quota.cost_scale

    def debt(self, now_us):
        debt, at = 0, 0
        for tick, made in [*self.charges, (now_us // self.quota.tick_us, 0)]:
            debt = max(0, debt - (tick - at) * self.quota.leak) + made
            at = tick
        return debt


def debt_of(state, now_us, quota):
    return token_bucket._leaked(state, now_us - now_us % quota.tick_us, quota)[0]


def pauses(quota):
    """Microseconds: none, within a tick, the time of some units, a whole bucket's and beyond."""
    full = quota.burst * quota.period * SECOND // quota.limit
    return st.one_of(
        st.just(0),
        st.sampled_from([1, quota.tick_us - 1, quota.tick_us]),
        st.integers(0, max(1, full // 4)),
        st.integers(0, 2 * full),
    )


@st.composite
def lives(draw, most=40):
    """A quota, and what happens: (pause, None, cost) reserves; (pause, which open one, part of it used) settles."""
    quota = draw(st.sampled_from(QUOTAS))
    costs = st.one_of(st.integers(1, max(1, quota.burst // 5)), st.integers(1, quota.burst))
    parts = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
    happens = st.one_of(
        st.tuples(pauses(quota), st.none(), costs),
        st.tuples(pauses(quota), st.integers(0, 100), parts),
    )
    return quota, draw(st.lists(happens, min_size=2, max_size=most))


def live(quota, happenings):
    """Play a life; after each happening answer the time, the state and the oracle."""
    oracle, state, now, reserved = Oracle(quota), (), START_US, []
    for pause, which, amount in happenings:
        now += pause
        if which is None:
            step = admit(state, now, quota, amount, 0)
            if step.allowed:
                state = step.state
                reserved.append((now, amount, oracle.charge(now, amount)))
        elif reserved:
            taken_at, cost, charge = reserved.pop(which % len(reserved))
            actual = round(cost * amount)
            state = settle(state, now, quota, taken_at, cost, actual, 0)
            oracle.correct(charge, actual)
        yield now, state, oracle


@given(lives())
def test_with_every_trough_kept_the_debt_is_exactly_what_it_would_have_been(life):
    quota, happenings = life
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_bucket, "_MAX_TROUGHS", NO_LIMIT)
        for now, state, oracle in live(quota, happenings):
            assert debt_of(state, now, quota) == oracle.debt(now)


@given(lives())
def test_with_four_troughs_the_debt_is_never_less_than_it_would_have_been(life):
    quota, happenings = life
    for now, state, oracle in live(quota, happenings):
        assert debt_of(state, now, quota) >= oracle.debt(now)


@given(lives())
def test_until_a_fifth_trough_is_needed_four_are_as_good_as_all(life):
    quota, happenings = life
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_bucket, "_MAX_TROUGHS", NO_LIMIT)
        every = [(now, state) for now, state, _ in live(quota, happenings)]
    for (now, state), (_, four, oracle) in zip(every, live(quota, happenings), strict=True):
        if len(state) > 5 + 2 * 4:
            break
        assert four == state
        assert debt_of(four, now, quota) == oracle.debt(now)


@given(lives())
def test_troughs_rise_in_time_and_in_debt_and_numbers_stay_small(life):
    quota, happenings = life
    for _, state, _ in live(quota, happenings):
        assert len(state) <= 5 + 2 * 4
        assert all(0 <= number <= MAX_EXACT for number in state)
        times, lows = state[5::2], state[6::2]
        assert list(times) == sorted(set(times))
        assert list(lows) == sorted(set(lows))


@given(lives(), st.lists(st.integers(1, 50), min_size=1, max_size=40))
def test_overrun_is_charged_when_it_is_known(life, overruns):
    """The same with reservations that cost more: that part is a charge of its own, made at the settlement."""
    quota, happenings = life
    quota = quota.owing(1000)  # The oracle knows of no bound.
    oracle, state, now, reserved, exact = Oracle(quota), (), START_US, [], True
    for (pause, which, amount), more in zip(happenings, overruns * 40, strict=False):
        now += pause
        if which is None:
            step = admit(state, now, quota, amount, 0)
            if step.allowed:
                state = step.state
                reserved.append((now, amount, oracle.charge(now, amount)))
        elif reserved:
            taken_at, cost, charge = reserved.pop(which % len(reserved))
            actual = cost + more if amount > 0.5 else round(cost * amount)
            state = settle(state, now, quota, taken_at, cost, actual, 0)
            if actual > cost:
                oracle.charge(now, more)
            else:
                oracle.correct(charge, actual)
        exact = exact and len(state) < 5 + 2 * 4
        assert debt_of(state, now, quota) >= oracle.debt(now)
        if exact:
            assert debt_of(state, now, quota) == oracle.debt(now)


@given(lives())
def test_net_of_refunds_no_interval_is_granted_more_than_burst_and_leak(life):
    quota, happenings = life
    *_, (_, _, oracle) = live(quota, happenings)
    for i, (start, _) in enumerate(oracle.charges):
        total = 0
        for tick, made in oracle.charges[i:]:
            total += made
            assert total <= quota.burst * quota.cost_scale + quota.leak * (tick - start)


@given(lives(), st.lists(st.integers(-3600 * SECOND, 0), min_size=40, max_size=40))
def test_clock_that_goes_back_gives_no_refund_away(life, jumps):
    """A refund is at most the reservation's own, and none for one made before the clock went back."""
    quota, happenings = life
    state, now, reserved = (), START_US, []
    for (pause, which, amount), jump in zip(happenings, jumps, strict=False):
        back = min(0, jump + 1800 * SECOND)
        now += pause + back
        if back:
            reserved = [(taken_at, cost, True) for taken_at, cost, _ in reserved]
        before = debt_of(state, now, quota)
        if which is None:
            step = admit(state, now, quota, amount, 0)
            if step.allowed:
                state = step.state
                reserved.append((now, amount, False))
        elif reserved:
            taken_at, cost, is_old = reserved.pop(which % len(reserved))
            state = settle(state, now, quota, taken_at, cost, round(cost * amount), 0)
            refund = before - debt_of(state, now, quota)
            assert 0 <= refund <= (cost - round(cost * amount)) * quota.cost_scale
            if is_old and taken_at // quota.tick_us > now // quota.tick_us:
                assert refund == 0


# What the law means, in words


def bucket(*happenings):
    """10 a minute: one unit leaks in 6 seconds. Answer what is left after ('reserve', t, cost), ('settle', i, t, n)."""
    quota, state, taken = Quota(10, 60), (), []
    for kind, *numbers in happenings:
        if kind == "reserve":
            second, cost = numbers
            now = START_US + second * SECOND
            step = admit(state, now, quota, cost, 0)
            assert step.allowed
            state = step.state
            taken.append((now, cost))
        else:
            which, second, actual = numbers
            now = START_US + second * SECOND
            state = settle(state, now, quota, *taken[which], actual, 0)
    return 10 - debt_of(state, now, quota) / quota.cost_scale


def test_refund_at_once_is_whole():
    assert bucket(("reserve", 0, 8), ("settle", 0, 0, 3)) == 7


def test_time_that_paid_for_a_reservation_is_not_paid_back():
    """After 30 seconds 5 of the 8 have leaked. Had it cost 3, the bucket would be full: it is, and not fuller."""
    assert bucket(("reserve", 0, 8), ("settle", 0, 30, 3)) == 10


def test_refund_of_one_does_not_pay_for_another():
    """The first has leaked wholly before the second was made; there is nothing of it to give back."""
    assert bucket(("reserve", 0, 5), ("reserve", 30, 6), ("settle", 0, 30, 0)) == 4


def test_part_that_had_not_leaked_when_the_next_came_is_given_back():
    """Of the 5, 2 were left at second 18 when 6 more were reserved: of these 8, the first one's 2 come back."""
    assert bucket(("reserve", 0, 5), ("reserve", 18, 6), ("settle", 0, 18, 0)) == 4


def test_order_of_settling_does_not_matter():
    reserve = [("reserve", 0, 4), ("reserve", 6, 3), ("reserve", 12, 3)]
    settles = [("settle", 0, 18, 1), ("settle", 1, 18, 0), ("settle", 2, 18, 2)]
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    assert len({bucket(*reserve, *(settles[i] for i in order)) for order in orders}) == 1
