"""Twenty calls at once on the last dollar: no more is spent than it, and what calls used beyond their reservations."""

import time
from threading import Thread

import pytest
from last_dollar import (
    BUDGETS,
    CALLERS,
    GONE_US,
    REFUSED,
    Log,
    call_on,
    charged_of,
    check,
    figures,
    processes_call,
    sums_of,
)

from flask_ailimit.engine import Engine
from flask_ailimit.engine.stores.local import LocalStore
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.testing import ManualClock

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

every_budget = pytest.mark.parametrize("quota", BUDGETS.values(), ids=BUDGETS.keys())


def now_us():
    return time.time_ns() // 1000


@every_budget
def test_threads_on_the_last_dollar_in_memory(tmp_path, quota):
    clock, log = ManualClock(now_us()), Log(tmp_path / "log")
    engine = Engine(MemoryStore(clock))
    threads = [
        Thread(
            target=call_on, args=(engine, quota, log, f"thread {n}"), kwargs={"dies": None if n % 5 else lambda: None}
        )
        for n in range(CALLERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sums, (charged, reserved) = sums_of(log.read()), charged_of(engine.store, quota)
    check(sums, charged)
    assert charged == sums.least, "nobody was killed in a step"
    assert reserved > 0, "some left what they had reserved"
    assert sums.overran > 0
    assert sums.counts[REFUSED] > 0
    clock.advance_us(GONE_US)
    assert charged_of(engine.store, quota) == (charged, 0)


def processes_on_a_local_store(place, quota, seed, kills):
    place.mkdir()
    log = Log(place / "log")

    def open_engine():
        return Engine(LocalStore(place / "limits", lock_timeout=60))

    killed = processes_call(open_engine, quota, log, seed, kills)
    sums, clock = sums_of(log.read()), ManualClock(now_us())
    store = LocalStore(place / "limits", clock=clock)
    charged, _ = charged_of(store, quota)
    check(sums, charged)
    clock.advance_us(GONE_US)  # What the killed had reserved counts as spent.
    assert charged_of(store, quota) == (charged, 0)
    store.close()
    return sums, charged, killed


@every_budget
def test_processes_on_the_last_dollar_of_a_local_store_though_some_are_killed(tmp_path, quota):
    sums, _, killed = processes_on_a_local_store(tmp_path / "one", quota, quota.every, kills=3)
    assert killed >= 4
    assert sums.overran > 0
    assert sums.counts[REFUSED] > 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
@every_budget
def test_processes_on_the_last_dollar_of_a_local_store_a_hundred_times(tmp_path, quota):
    rounds = [processes_on_a_local_store(tmp_path / str(number), quota, number, kills=6) for number in range(100)]
    figures(rounds)
