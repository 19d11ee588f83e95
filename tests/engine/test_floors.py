"""A charge with a floor leaves so much to others, and its wait is true."""

import random

import pytest

from flask_ailimit.engine import Charge, Engine, Quota
from flask_ailimit.engine.quota import CONCURRENCY, MAX_EXACT
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.testing import COUNTING, ManualClock, every_algorithm

TIMED = sorted(set(COUNTING) - {CONCURRENCY})


@pytest.mark.parametrize("seed", range(4))
@every_algorithm
def test_it_fits_if_what_is_left_is_cost_and_floor(algorithm, seed):
    draw, clock = random.Random(seed), ManualClock()
    engine = Engine(MemoryStore(clock))
    unit = CONCURRENCY if algorithm == CONCURRENCY else "tokens"
    user, quota = engine.subject("user"), Quota(20, 60, unit, algorithm)
    verdicts = set()
    for _ in range(400):
        clock.advance_us(draw.randrange(4_000_000))
        cost, floor = draw.randint(1, 22), draw.choice([0, 5, 20, 30])
        plain = engine.peek([Charge(user, quota, cost)]).verdicts[0]
        left = engine.peek([Charge(user, quota, 0)]).verdicts[0].remaining
        reservation = engine.reserve([Charge(user, quota, cost, floor=floor)])
        kept = min(floor, 20 - cost)  # A cost that could never fit beside the floor fits if nothing is used.
        assert reservation.allowed == (cost <= 20 and left >= cost + kept)
        verdict = reservation.decision.verdicts[0]
        if cost > 20:
            assert verdict.retry_after_us is None
        elif not reservation.allowed:
            assert verdict.retry_after_us >= plain.retry_after_us
        if reservation.allowed:
            assert verdict.remaining == max(0, left - cost - floor)
            if draw.random() < 0.5:
                reservation.settle({})
        verdicts.add((reservation.allowed, plain.allowed))
    assert verdicts == {(True, True), (False, True), (False, False)}


@pytest.mark.parametrize("algorithm", TIMED)
def test_it_is_admitted_when_promised_and_not_before(algorithm):
    draw, clock = random.Random(1), ManualClock()
    engine = Engine(MemoryStore(clock))
    quota, waits = Quota(700, 60, "tokens", algorithm), 0
    charge = Charge(engine.subject("user"), quota, 1)

    def ask(asked):
        reservation = engine.reserve([asked])
        reservation.settle({})  # The wait for what is reserved of a budget is a guess.
        return reservation

    while waits < 300:
        asked = charge._replace(cost=draw.randint(1, 600), floor=draw.choice([70, 350, 690]))
        wait = ask(asked).decision.retry_after_us
        if wait:
            waits += 1
            clock.advance_us(wait - 1)
            assert not ask(asked).allowed
            clock.advance_us(1)
            assert ask(asked).allowed
        clock.advance_us(draw.randrange(9_000_000))


def test_low_class_yields_to_the_high_one_and_nothing_is_lost():
    """Twice as much is asked for as there is: 30 % by the high class, 170 % by the low one, whose floor is 20 %."""
    draw, clock = random.Random(0), ManualClock()
    engine = Engine(MemoryStore(clock))
    quota = Quota(6000, 60, "tokens", burst=6000)
    everybody = engine.subject("service")
    asked, got = {"high": 0, "low": 0}, {"high": 0, "low": 0}
    for _ in range(120_000):  # 20 minutes in hundredths of a second; per step 1 token refills.
        clock.advance_us(10_000)
        for name, rate, floor in (("high", 0.3, 0), ("low", 1.7, 1200)):
            if draw.random() < rate / 20:
                asked[name] += 20
                got[name] += 20 * engine.reserve([Charge(everybody, quota, 20, floor=floor)]).allowed
    admitted = {name: got[name] / asked[name] for name in asked}
    assert admitted["high"] == 1
    assert 0.4 < admitted["low"] < 0.47
    assert sum(got.values()) > 120_000


@pytest.mark.parametrize("floor", [-1, 1.5, "1", True, float("nan"), MAX_EXACT + 1])
def test_floor_that_is_no_whole_number_is_refused(floor):
    with pytest.raises(ValueError, match="floor: a whole number from 0 to"):
        Charge(bytes(16), Quota(1, 60), floor=floor)
