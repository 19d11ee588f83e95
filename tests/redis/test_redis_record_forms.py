"""A rolling restart over Redis: workers of two versions share a record."""

import sys
from pathlib import Path

import pytest
from redis_stores import store_at

from flask_ailimit.engine import Charge, Settlement
from flask_ailimit.testing import START_US, ManualClock

sys.path.append(str(Path(__file__).parents[1] / "engine"))

from record_forms import ASKED, QUOTAS, WRITTEN, check_old_reading, old_end, old_record, old_states

SUBJECT = b"somebody".ljust(16)
KEY = "ailimit:{c29tZWJvZHkgICAgICAgIA}"


@pytest.mark.parametrize(("algorithm", "state", "after", "remaining", "reset_us", "fits", "wait_us"), WRITTEN)
def test_scripts_go_on_with_an_old_record_and_write_one_that_is_read_by_old_workers(
    algorithm, state, after, remaining, reset_us, fits, wait_us, server
):
    charge, clock = Charge(SUBJECT, QUOTAS[algorithm], ASKED.get(algorithm, 40)), ManualClock(START_US + after)
    store = store_at(server.uri, clock)
    server.ask("SET", KEY, old_record(charge.bucket, state, old_end(algorithm, state, charge.quota)))
    seen = [store.peek([charge.costing(cost)]).verdicts[0] for cost in (charge.cost, 0)]
    assert (seen[0].allowed, seen[1].remaining) == (fits, remaining)
    store.settle([Settlement(charge.costing(0), clock(), 1 if algorithm == "concurrency" else 777, 9)])
    left = store.peek([charge.costing(0)]).verdicts[0].remaining
    check_old_reading(algorithm, old_states(server.ask("GET", KEY))[charge.bucket], clock(), charge.quota, left)
    store.close()
