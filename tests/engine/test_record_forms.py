"""A rolling restart: a new worker reads what an old one wrote, and leaves alone what is no count of its own."""

import lmdb
import pytest
from record_forms import ASKED, QUOTAS, WRITTEN, record_of, states_of

from flask_ailimit.engine import ALGORITHMS, Charge
from flask_ailimit.testing import START_US

SUBJECT = b"somebody".ljust(16)

written = pytest.mark.parametrize(("algorithm", "state", "after", "remaining", "reset_us", "fits", "wait_us"), WRITTEN)


@written
def test_state_means_what_it_meant(algorithm, state, after, remaining, reset_us, fits, wait_us):
    quota, now = QUOTAS[algorithm], START_US + after
    step = ALGORITHMS[algorithm].admit(state, now, quota, ASKED.get(algorithm, 40), 9)
    nothing = ALGORITHMS[algorithm].admit(state, now, quota, 0, 9)
    assert (step.allowed, step.retry_after_us) == (fits, wait_us)
    assert (nothing.remaining, nothing.reset_after_us) == (remaining, reset_us)
    assert ALGORITHMS[algorithm].expires(state, quota) == now + reset_us


@pytest.fixture
def rewrite(place):
    """Puts bytes in the place of a local store's record, and answers what is there."""

    def rewrite(raw=None):
        with lmdb.open(str(place), lock=False) as environment, environment.begin(write=True) as transaction:
            if raw is not None:
                transaction.put(SUBJECT, raw)
            return transaction.get(SUBJECT)

    return rewrite


@written
def test_local_store_goes_on_with_what_was_written(
    algorithm, state, after, remaining, reset_us, fits, wait_us, open_local, clock, rewrite
):
    charge = Charge(SUBJECT, QUOTAS[algorithm], ASKED.get(algorithm, 40))
    clock.set(START_US + after)
    store = open_local()
    store.reserve([charge], 8)
    store.close()
    stranger = b"a count of another version's".ljust(8)[:8]
    ends_us = clock() + reset_us
    rewrite(record_of(charge.bucket, state, ends_us) + record_of(stranger, (7, 8, 9), ends_us)[1:])
    asked, nothing = (store.peek([charge.costing(cost)]).verdicts[0] for cost in (charge.cost, 0))
    assert (asked.allowed, asked.retry_after_us, nothing.remaining) == (fits, wait_us, remaining)
    store.reserve([charge._replace(scope="another")], 9)
    store.close()
    states = states_of(rewrite())
    assert (states[charge.bucket], states[stranger]) == (state, (7, 8, 9))
