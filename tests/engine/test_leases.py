import threading

import pytest
from children import exit_code_of_child

from flask_ailimit.engine import Charge, ConfigurationError, Engine, Quota, StoreError
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.testing import ManualClock

ONE_IN_FLIGHT = Quota(1, 60, "concurrency", "concurrency")
TOKENS = Quota(100, 60, "tokens")


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def engine(clock):
    engine = Engine(MemoryStore(clock))
    yield engine
    engine.close()


def slot(engine, quota=ONE_IN_FLIGHT, name="user-1"):
    return Charge(engine.subject(name), quota)


def test_lease_that_is_renewed_outlives_its_period(engine, clock):
    engine.reserve([slot(engine)])
    for _ in range(6):
        clock.advance(40)
        engine.leases.renew()
    assert not engine.reserve([slot(engine)]).allowed


def test_lease_of_a_process_that_renews_nothing_ends_after_its_period(engine, clock):
    engine.reserve([slot(engine)])
    clock.advance(60)
    assert engine.reserve([slot(engine)]).allowed


@pytest.mark.parametrize(
    "end", [lambda r: r.settle({}), lambda r: r.cancel(), lambda r: r.settle_at_least({"tokens": 3})]
)
def test_ended_reservation_gives_its_slot_back_at_once_and_is_renewed_no_more(engine, end):
    reservation = engine.reserve([slot(engine), Charge(engine.subject("user-1"), TOKENS, 10)])
    end(reservation)
    assert engine.leases._held == {}
    assert engine.reserve([slot(engine)]).allowed


def test_refused_and_dry_and_empty_charges_hold_no_lease(engine):
    engine.reserve([slot(engine)]).settle({})
    engine.reserve([slot(engine), Charge(engine.subject("user-1"), TOKENS, 101)])
    engine.reserve([Charge(engine.subject("user-1"), ONE_IN_FLIGHT, 0)])
    engine.reserve([Charge(engine.subject("user-1"), ONE_IN_FLIGHT, 1, dry=True)])
    assert engine.leases._held == {}


class CountsRenewals(MemoryStore):
    def __init__(self, *failures):
        super().__init__(ManualClock())
        self.failures = list(failures)
        self.renewed = threading.Event()

    def renew(self, leases):
        if self.failures:
            raise self.failures.pop()
        super().renew(leases)
        self.renewed.set()


def test_short_lease_is_renewed_in_time_though_a_long_one_came_first():
    store = CountsRenewals()
    engine = Engine(store)
    engine.reserve([slot(engine, Quota(1, 3600, "concurrency", "concurrency"))])
    engine.reserve([slot(engine, Quota(1, 1, "concurrency", "concurrency"), "user-2")])
    assert store.renewed.wait(10)
    engine.close()


def test_lease_that_was_just_taken_is_not_renewed_at_once():
    store = CountsRenewals()
    engine = Engine(store)
    engine.reserve([slot(engine)])
    assert not store.renewed.wait(0.2)
    engine.close()


@pytest.mark.parametrize("failure", [StoreError("away"), ConfigurationError("replaced by a link")])
def test_failing_store_is_asked_again_at_the_next_turn(failure, caplog):
    store = CountsRenewals(failure)
    engine = Engine(store)
    engine.reserve([slot(engine, Quota(1, 1, "concurrency", "concurrency"))])
    assert store.renewed.wait(10)
    assert f"Leases were not renewed: {failure}" in caplog.text
    engine.close()


def test_closed_engine_has_no_thread(engine):
    engine.reserve([slot(engine)])
    thread = engine.leases._thread
    assert thread.is_alive()
    engine.close()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_child_renews_its_own_leases_and_not_its_parents(engine):
    engine.reserve([slot(engine)])

    def in_child():
        inherited = dict(engine.leases._held)
        own = engine.reserve([slot(engine, name="user-2")])
        return inherited != {} or not own.allowed or not engine.leases._thread.is_alive()

    assert exit_code_of_child(in_child) == 0
    assert len(engine.leases._held) == 1
