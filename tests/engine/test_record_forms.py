"""A rolling restart: a new worker reads what an old one wrote, and an old one meets what a new one writes."""

import random

import lmdb
import pytest
from record_forms import ASKED, QUOTAS, WRITTEN, check_old_reading, old_end, old_record, old_states

from flask_ailimit.engine import ALGORITHMS, Charge, Settlement
from flask_ailimit.testing import START_US

SUBJECT = b"somebody".ljust(16)
SECOND = 1_000_000


@pytest.mark.parametrize(("algorithm", "state", "after", "remaining", "reset_us", "fits", "wait_us"), WRITTEN)
def test_old_state_means_what_it_meant(algorithm, state, after, remaining, reset_us, fits, wait_us):
    quota, now = QUOTAS[algorithm], START_US + after
    step = ALGORITHMS[algorithm].admit(state, now, quota, ASKED.get(algorithm, 40), 9)
    assert (step.allowed, ALGORITHMS[algorithm].admit(state, now, quota, 0, 9).remaining) == (fits, remaining)
    if not is_overrun(algorithm, state):
        assert step.allowed or step.retry_after_us == wait_us
        assert ALGORITHMS[algorithm].admit(state, now, quota, 0, 9).reset_after_us == reset_us
    else:  # What was used beyond the limit is owed from now on.
        assert step.retry_after_us >= wait_us
        assert not ALGORITHMS[algorithm].admit(state, now, quota, 0, 9).allowed


def is_overrun(algorithm, state):
    return algorithm in ("fixed-window", "sliding-window-counter", "moving-window") and 190 in (
        state[1],
        sum(state[1::2]),
    )


@pytest.mark.parametrize("algorithm", sorted(QUOTAS))
@pytest.mark.parametrize("seed", range(25))
def test_new_state_is_read_by_an_old_worker_without_harm(algorithm, seed):
    draw, quota, rule = random.Random(seed), QUOTAS[algorithm], ALGORITHMS[algorithm]
    state, now, taken, debts = (), START_US, [], 0
    for lease in range(300):
        now += draw.choice([0, 1, draw.randrange(20 * SECOND), draw.randrange(90 * SECOND)])
        cost = 1 + draw.randrange(quota.burst // 2)
        step = rule.admit(state, now, quota, cost, lease)
        if step.allowed:
            state = step.state
            taken.append((now, cost, lease))
        elif taken:
            at, cost, number = taken.pop(draw.randrange(len(taken)))
            actual = draw.choice([0, cost // 2, cost, 3 * cost, 400, 10**9])
            state = rule.settle(state, now, quota, at, cost, actual, number)
        else:
            continue
        nothing = rule.admit(state, now, quota, 0, 0)
        check_old_reading(algorithm, state, now, quota, nothing.remaining)
        debts += not nothing.allowed
    assert debts or algorithm == "concurrency"


@pytest.fixture
def rewrite(place):
    """Puts bytes in the place of a local store's record, and answers what is there."""

    def rewrite(raw=None):
        with lmdb.open(str(place), lock=False) as environment, environment.begin(write=True) as transaction:
            if raw is not None:
                transaction.put(SUBJECT, raw)
            return transaction.get(SUBJECT)

    return rewrite


@pytest.mark.parametrize(("algorithm", "state", "after", "remaining", "reset_us", "fits", "wait_us"), WRITTEN)
def test_local_store_goes_on_with_an_old_record_and_writes_one_that_is_read_by_old_workers(
    algorithm, state, after, remaining, reset_us, fits, wait_us, open_local, clock, rewrite
):
    charge = Charge(SUBJECT, QUOTAS[algorithm], ASKED.get(algorithm, 40))
    clock.set(START_US + after)
    store = open_local()
    store.reserve([charge], 8)
    store.close()
    rewrite(old_record(charge.bucket, state, old_end(algorithm, state, charge.quota)))
    seen = [store.peek([charge.costing(cost)]).verdicts[0] for cost in (charge.cost, 0)]
    assert (seen[0].allowed, seen[1].remaining) == (fits, remaining)
    overrun = Settlement(charge.costing(0), clock(), 1 if algorithm == "concurrency" else 777, 9)
    store.settle([overrun])
    left = store.peek([charge.costing(0)]).verdicts[0].remaining
    store.close()
    written = old_states(rewrite())
    check_old_reading(algorithm, written[charge.bucket], clock(), charge.quota, left)
