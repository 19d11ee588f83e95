"""A refusal's wait is true, for requests with several limits of all kinds and with any cost."""

import random

import pytest

from flask_ailimit.engine import Charge, Engine, Quota
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.testing import ManualClock

SECOND = 1_000_000
REFUSALS = 10_000
QUOTAS = [
    Quota(60, 60),
    Quota(1000, 3600, algorithm="fixed-window"),
    Quota(10_000, 60, "tokens", burst=15_000),
    Quota(8_000, 45, "tokens", "moving-window"),
    Quota(40_000, 600, "input_tokens", "sliding-window-counter"),
    Quota(123_457, 3600, "output_tokens"),
    Quota(999_999_937, 86400, "credits", burst=40_000_000),  # Counts in seconds.
]


def request(draw, engine):
    user = engine.subject(draw.choice(["alice", "bob", "carol"]))
    charges = [
        Charge(user, quota, round(quota.burst * draw.choice([0, 0.001, 0.02, 0.2, 0.6, 1])))
        for quota in draw.sample(QUOTAS, draw.randint(1, 5))
    ]
    if draw.random() < 0.2:  # Twice from one count, as a retried step of one request would.
        charges.append(charges[0])
    return charges


def test_refused_request_is_admitted_when_promised_and_not_before():
    draw, clock = random.Random(0), ManualClock()
    engine = Engine(MemoryStore(clock))
    honest = hasty = 0
    for _ in range(20 * REFUSALS):
        charges = request(draw, engine)
        reservation = engine.reserve(charges)
        wait = reservation.decision.retry_after_us
        if wait:
            if wait > SECOND:
                clock.advance_us(wait - SECOND)
                hasty += engine.reserve(charges).allowed
                clock.advance_us(SECOND - 1)
            else:
                clock.advance_us(wait - 1)
            hasty += engine.reserve(charges).allowed
            clock.advance_us(1)
            reservation = engine.reserve(charges)
            honest += reservation.allowed
            if honest == REFUSALS or not reservation.allowed:
                break
        if reservation.allowed and draw.random() < 0.7:
            part = draw.choice([0, 0.1, 0.5, 1, 1, 1.3, 3])
            reservation.end(lambda charge, part=part: round(charge.cost * part))
        clock.advance_us(draw.choice([0, 0, draw.randrange(SECOND), draw.randrange(20 * SECOND)]))
    assert (honest, hasty) == (REFUSALS, 0)


@pytest.mark.parametrize("quota", QUOTAS, ids=lambda quota: f"{quota.algorithm} {quota.text}")
def test_request_that_can_never_fit_is_told_so(quota):
    engine = Engine(MemoryStore(ManualClock()))
    user = engine.subject("alice")
    for charges in ([Charge(user, quota, quota.burst + 1)], [Charge(user, quota, quota.burst), Charge(user, quota, 1)]):
        decision = engine.reserve(charges).decision
        assert (decision.allowed, decision.possible, decision.retry_after) == (False, False, None)
