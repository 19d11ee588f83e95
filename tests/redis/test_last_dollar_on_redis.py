"""Twenty processes at once on the last dollar in Redis, some of which are killed."""

import sys
from pathlib import Path

import pytest
from redis_stores import store_at

sys.path.append(str(Path(__file__).parents[1] / "engine"))

from last_dollar import BUDGETS, GONE_US, REFUSED, Log, charged_of, check, figures, processes_call, sums_of

from flask_ailimit.engine import Engine
from flask_ailimit.testing import ManualClock

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

every_budget = pytest.mark.parametrize("quota", BUDGETS.values(), ids=BUDGETS.keys())


def processes_on_redis(server, path, quota, seed, kills):
    server.clear()
    log = Log(path)
    killed = processes_call(lambda: Engine(store_at(server.uri), secret=b"of all who spend"), quota, log, seed, kills)
    seconds, microseconds = server.ask("TIME")
    sums, clock = sums_of(log.read()), ManualClock(int(seconds) * 10**6 + int(microseconds))
    store = store_at(server.uri, clock)
    charged, _ = charged_of(store, quota)
    check(sums, charged)
    clock.advance_us(GONE_US)  # What the killed had reserved counts as spent.
    assert charged_of(store, quota) == (charged, 0)
    store.close()
    return sums, charged, killed


@every_budget
def test_processes_on_the_last_dollar_though_some_are_killed(server, tmp_path, quota):
    sums, _, killed = processes_on_redis(server, tmp_path / "log", quota, quota.every, kills=3)
    assert killed >= 4
    assert sums.overran > 0
    assert sums.counts[REFUSED] > 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
@every_budget
def test_processes_on_the_last_dollar_a_hundred_times(server, tmp_path, quota):
    rounds = [processes_on_redis(server, tmp_path / str(number), quota, number, kills=6) for number in range(100)]
    figures(rounds)
