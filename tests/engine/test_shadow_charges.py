"""Shadow charges are decided and counted, and change nothing else."""

import random

from flask_ailimit.engine import Charge, Engine, Quota, StoreError
from flask_ailimit.engine.decide import MOST_COUNTS
from flask_ailimit.engine.quota import CONCURRENCY
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.testing import COUNTING, ManualClock

SECRET = b"of both engines here"
SCOPE = "tried"


def quota_of(draw, most):
    name = draw.choice(COUNTING)
    unit = CONCURRENCY if name == CONCURRENCY else draw.choice(["requests", "tokens"])
    return Quota(draw.randint(2, most), draw.choice([5, 60]), unit, name)


def test_requests_are_answered_and_counted_as_if_nothing_were_tried():
    """And a limit that is tried answers as if it were the only one, to the requests that the others let through."""
    seen = set().union(*map(answered_as_if_nothing_were_tried, range(30)))
    assert seen == {"would refuse", "fits", "refused"}


def answered_as_if_nothing_were_tried(seed):
    draw, clock = random.Random(seed), ManualClock()
    tried_beside, enforced_alone, tried_alone = (Engine(MemoryStore(clock), secret=SECRET) for _ in range(3))
    enforced, tried = [quota_of(draw, 40) for _ in range(3)], [quota_of(draw, 12) for _ in range(2)]
    user = tried_beside.subject("user")
    open_ones, seen = [], set()
    for _ in range(400):
        clock.advance_us(draw.choice([0, 0, draw.randrange(3_000_000)]))
        cost, floor = draw.randint(0, 4), draw.choice([0, 0, 3])
        charges = [Charge(user, quota, cost, floor=floor) for quota in enforced]
        shadows = [Charge(user, quota, cost, SCOPE + str(i), shadow=True) for i, quota in enumerate(tried)]
        both, alone = tried_beside.reserve([*charges, *shadows]), enforced_alone.reserve(charges)
        assert (both.allowed, both.decision.retry_after_us) == (alone.allowed, alone.decision.retry_after_us)
        assert both.decision.verdicts[:3] == both.decision.told().verdicts == alone.decision.verdicts
        seen.add("refused" if not both.allowed else "would refuse" if both.decision.would_refuse else "fits")
        if both.allowed:
            each_alone = [tried_alone.reserve([shadow._replace(shadow=False)]) for shadow in shadows]
            for verdict, other in zip(both.decision.verdicts[3:], each_alone, strict=True):
                assert verdict[1:] == other.decision.verdicts[0][1:]  # All but the charge.
            open_ones.append([both, alone, *each_alone])
        while open_ones and draw.random() < 0.4:
            part = draw.choice([0, 0.5, 1, 1.5, 3])
            for each in open_ones.pop(draw.randrange(len(open_ones))):
                each.end(lambda charge, part=part: round(charge.cost * part))
    return seen


def test_request_that_is_refused_charges_nothing_to_what_is_tried():
    engine = Engine(MemoryStore(ManualClock()))
    user = engine.subject("user")
    tried = Charge(user, Quota(5, 60, "tokens"), 1, shadow=True)
    assert not engine.reserve([Charge(user, Quota(1, 60), 2), tried]).allowed
    assert engine.peek([tried]).verdicts[0].remaining == 5


def test_slot_that_was_only_tried_is_held_and_given_back():
    engine = Engine(MemoryStore(ManualClock()))
    slot = Charge(engine.subject("user"), Quota(1, 60, CONCURRENCY, CONCURRENCY), shadow=True)
    first, second = engine.reserve([slot]), engine.reserve([slot])
    assert (first.allowed, second.allowed) == (True, True)
    assert [bool(each.decision.would_refuse) for each in (first, second)] == [False, True]
    second.settle({})
    assert engine.peek([slot]).would_refuse
    first.settle({})
    assert not engine.peek([slot]).would_refuse


def test_work_that_goes_on_takes_no_slot_that_it_did_not_have():
    engine = Engine(MemoryStore(ManualClock()))
    slot = Charge(engine.subject("user"), Quota(1, 60, CONCURRENCY, CONCURRENCY), shadow=True)
    first, second = engine.reserve([slot]), engine.reserve([slot])
    first.settle({})
    second.settle({})
    assert second.reopen().decision.verdicts == ()
    assert not engine.peek([slot]).would_refuse


def test_nothing_is_tried_while_the_store_is_away():
    class Away(MemoryStore):
        def reserve(self, charges, lease):
            raise StoreError("It is away.")

    engine = Engine(Away(ManualClock()))
    tried = Charge(engine.subject("user"), Quota(1, 60), 5, shadow=True, on_store_error="deny")
    passed = engine.reserve([Charge(engine.subject("user"), Quota(1, 60), on_store_error="allow"), tried])
    assert passed.allowed
    assert passed.decision.verdicts == ()


def test_counts_that_are_tried_leave_half_of_a_record_to_those_that_hold():
    engine = Engine(MemoryStore(ManualClock()))
    user, quota = engine.subject("user"), Quota(10, 60)
    tried = [Charge(user, quota, 1, f"tried {number}", shadow=True) for number in range(MOST_COUNTS)]
    assert len([each for each in tried if engine.reserve([each]).decision.taken]) == MOST_COUNTS // 2
    assert all(engine.reserve([Charge(user, quota, 1, str(number))]).allowed for number in range(MOST_COUNTS // 2))
    assert engine.reserve([tried[0]]).decision.taken


def test_count_that_is_tried_finds_no_place_in_a_full_record_and_the_request_passes():
    engine = Engine(MemoryStore(ManualClock()))
    user, quota = engine.subject("user"), Quota(10, 60)
    for number in range(MOST_COUNTS):
        assert engine.reserve([Charge(user, quota, 1, str(number))]).allowed
    known, new = Charge(user, quota, 1, "0"), Charge(user, quota, 1, "new", shadow=True)
    passed = engine.reserve([known, new])
    assert passed.allowed
    assert [verdict.charge for verdict in passed.decision.would_refuse] == [new]
    assert engine.peek([new._replace(shadow=False)]).verdicts[0].remaining == 0  # Nobody else has a place, either.
