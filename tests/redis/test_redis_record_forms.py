"""A rolling restart over Redis: workers of two versions share a record."""

import sys
from pathlib import Path

import pytest
from redis_stores import store_at

from flask_ailimit.engine import Charge
from flask_ailimit.testing import START_US, ManualClock

sys.path.append(str(Path(__file__).parents[1] / "engine"))

from record_forms import ASKED, QUOTAS, WRITTEN, record_of, states_of

SUBJECT = b"somebody".ljust(16)
KEY = "ailimit:{c29tZWJvZHkgICAgICAgIA}"


@pytest.mark.parametrize(("algorithm", "state", "after", "remaining", "reset_us", "fits", "wait_us"), WRITTEN)
def test_scripts_go_on_with_what_was_written(algorithm, state, after, remaining, reset_us, fits, wait_us, server):
    charge, clock = Charge(SUBJECT, QUOTAS[algorithm], ASKED.get(algorithm, 40)), ManualClock(START_US + after)
    store = store_at(server.uri, clock)
    stranger, ends_us = b"another ", clock() + reset_us
    record = record_of(charge.bucket, state, ends_us) + record_of(stranger, (7, 8, 9), ends_us)[1:]
    server.ask("SET", KEY, record)
    asked, nothing = (store.peek([charge.costing(cost)]).verdicts[0] for cost in (charge.cost, 0))
    assert (asked.allowed, asked.retry_after_us, nothing.remaining) == (fits, wait_us, remaining)
    store.reserve([charge._replace(scope="another")], 9)
    states = states_of(server.ask("GET", KEY))
    assert (states[charge.bucket], states[stranger]) == (state, (7, 8, 9))
    store.close()
