"""A refund goes to the window of its charge, and to no later one."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_model import COUNTS, SECOND

from flask_ailimit.engine import ALGORITHMS, Quota
from flask_ailimit.engine.algorithms import moving_window
from flask_ailimit.testing import START_US

WINDOWS = ["fixed-window", "moving-window", "sliding-window-counter"]


def play(quota, happenings):
    """Play (pause, None, cost) and (pause, which, part used); answer each time's state and model."""
    rule, state, now, reserved = ALGORITHMS[quota.algorithm], (), START_US, []
    model = COUNTS[quota.algorithm](quota)
    for pause, which, amount in happenings:
        now += pause
        if which is None:
            step = rule.admit(state, now, quota, amount, 0)
            if step.allowed:
                state = step.state
                reserved.append((now, amount, model.take(now, amount, 0)))
        elif reserved:
            taken_at, cost, charged = reserved.pop(which % len(reserved))
            state = rule.settle(state, now, quota, taken_at, cost, round(cost * amount), 0)
            model.settle(now, charged, round(cost * amount))
        yield now, state, model


pauses = st.one_of(st.sampled_from([0, 1, 30 * SECOND, 60 * SECOND]), st.integers(0, 90 * SECOND))
happenings = st.one_of(
    st.tuples(pauses, st.none(), st.integers(1, 100)),
    st.tuples(pauses, st.integers(0, 100), st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 3))),
)


@pytest.mark.parametrize("algorithm", WINDOWS)
@given(life=st.lists(happenings, max_size=40))
def test_count_is_what_it_would_be_had_each_been_charged_its_actual_cost(algorithm, life):
    quota = Quota(100, 60, algorithm=algorithm)
    for now, state, model in play(quota, life):
        step = ALGORITHMS[algorithm].admit(state, now, quota, 0, 0)
        assert (step.remaining, step.reset_after_us) == (model.remaining(now), model.reset_after_us(now))


@pytest.mark.parametrize("limit", [1000, 10**6])
@pytest.mark.parametrize("seed", range(20))
def test_merged_moving_window_counts_nothing_too_little_and_nothing_longer_than_a_sixtieth_too_long(seed, limit):
    draw = random.Random(seed)
    quota = Quota(limit, 60, algorithm="moving-window")
    longest = draw.choice([SECOND // 10, SECOND, 2 * SECOND])
    life = []
    for _ in range(700):  # Each is settled soon: within its minute.
        life.append((draw.randrange(longest), None, draw.randrange(1, 9)))
        if draw.random() < 0.7:
            life.append((draw.randrange(longest), -1 - draw.randrange(3), draw.choice([0, 1, draw.random(), 2])))
    for now, state, model in play(quota, life):
        log, debt = moving_window._present(*moving_window._read(state), now, quota)
        used = sum(units for _, units in log) + debt
        in_61_seconds = sum(c.units for c in model.charges + model.ended if c.at_us > now - 61 * SECOND)
        assert model.used(now) <= used
        assert used <= in_61_seconds or limit == 1000  # A debt takes the room of what counted too long.
        assert len(state) <= 2 * 64 + 2
