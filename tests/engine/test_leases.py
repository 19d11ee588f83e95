import threading
from contextlib import suppress

import pytest
from children import exit_code_of_child
from interruptions import Interruption, comes_true

from flask_ailimit.engine import Charge, ConfigurationError, Engine, Quota, StoreError, leases, native
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
    held = engine.reserve([slot(engine)])
    for _ in range(6):
        clock.advance(40)
        engine.leases.renew()
    assert not engine.reserve([slot(engine)]).allowed
    held.cancel()


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
    long = engine.reserve([slot(engine, Quota(1, 3600, "concurrency", "concurrency"))])
    short = engine.reserve([slot(engine, Quota(1, 1, "concurrency", "concurrency"), "user-2")])
    assert store.renewed.wait(60)
    assert (long.allowed, short.allowed) == (True, True)
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
    held = engine.reserve([slot(engine, Quota(1, 1, "concurrency", "concurrency"))])
    assert store.renewed.wait(60)
    assert held.allowed
    assert f"Leases were not renewed: {failure}" in caplog.text
    engine.close()


def test_closed_engine_has_no_thread(engine):
    engine.reserve([slot(engine)])
    assert comes_true(engine.leases._thread.is_alive)
    engine.close()
    assert comes_true(lambda: not engine.leases._thread.is_alive())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_child_renews_its_own_leases_and_not_its_parents(engine):
    held = engine.reserve([slot(engine)])

    def in_child():
        inherited = dict(engine.leases._held)
        own = engine.reserve([slot(engine, name="user-2")])
        return inherited != {} or not own.allowed or not comes_true(engine.leases._thread.is_alive)

    assert exit_code_of_child(in_child) == 0
    assert len(engine.leases._held) == 1
    assert held.allowed


# What is raised in the middle


class Interrupted(MemoryStore):
    """Is interrupted, as by a time-out of the app, after it has done what it was asked."""

    def __init__(self):
        super().__init__(ManualClock())
        self.interrupted = None

    def reserve(self, charges, lease):
        decision = super().reserve(charges, lease)
        self.interrupt("reserve")
        return decision

    def settle(self, settlements):
        self.interrupt("settle")
        return super().settle(settlements)

    def interrupt(self, where):
        if self.interrupted == where:
            self.interrupted = None
            raise Interruption


@pytest.fixture
def interrupted(monkeypatch):
    monkeypatch.setattr(leases, "_LOOK_EVERY", 0.01)
    engine = Engine(Interrupted())
    yield engine
    engine.close()


def test_slot_whose_answer_nobody_heard_is_given_back(interrupted):
    interrupted.store.interrupted = "reserve"
    with pytest.raises(Interruption):
        interrupted.reserve([slot(interrupted)])
    assert comes_true(lambda: interrupted.reserve([slot(interrupted)]).allowed)


@pytest.mark.parametrize("end", [lambda r: r.cancel(), lambda r: r.settle({})])
def test_slot_whose_end_was_interrupted_is_given_back(interrupted, end):
    interrupted.store.interrupted = "settle"
    with pytest.raises(Interruption):
        end(interrupted.reserve([slot(interrupted)]))
    assert comes_true(lambda: interrupted.reserve([slot(interrupted)]).allowed)


def test_slot_of_a_reservation_that_was_dropped_is_held_to_the_end_of_its_lease_and_no_longer(engine, clock):
    engine.reserve([slot(engine)])
    engine.leases.give_back()
    assert not engine.reserve([slot(engine)]).allowed
    assert engine.leases._held == {}
    clock.advance(60)
    assert engine.reserve([slot(engine)]).allowed


def test_slot_that_cannot_be_given_back_is_tried_again(interrupted, monkeypatch, caplog):
    def fail(_):
        raise StoreError("away")

    interrupted.store.interrupted = "reserve"
    with monkeypatch.context() as away:
        away.setattr(interrupted.store, "settle", fail)
        with pytest.raises(Interruption):
            interrupted.reserve([slot(interrupted)])
        interrupted.leases.give_back()
        assert "not given back: away" in caplog.text
    assert comes_true(lambda: interrupted.reserve([slot(interrupted)]).allowed)


@pytest.mark.parametrize("failure", [RuntimeError("can't start new thread"), Interruption()])
@pytest.mark.parametrize("greenlets", [True, False])
def test_thread_that_was_not_started_is_started_by_the_next_who_needs_it(monkeypatch, failure, greenlets):
    def refuse(*_):
        raise failure

    store = CountsRenewals()
    engine = Engine(store)
    second = Quota(2, 1, "concurrency", "concurrency")
    monkeypatch.setattr(native, "has_greenlets", lambda: greenlets)
    with monkeypatch.context() as refused:
        refused.setattr(threading.Thread, "start", refuse)
        original = native._original
        refused.setattr(native, "_original", lambda name: refuse if name == "start_new_thread" else original(name))
        with suppress(Interruption):
            engine.reserve([slot(engine, second)])
    held = engine.reserve([slot(engine, second)])
    assert store.renewed.wait(60)
    assert held.allowed
    engine.close()


def test_thread_ends_when_nothing_is_held_and_another_one_renews_what_is_held_then(clock):
    engine = Engine(MemoryStore(clock))
    engine.reserve([slot(engine)]).cancel()
    assert comes_true(engine.leases._thread.is_alive)
    assert comes_true(lambda: not engine.leases._thread.is_alive())
    held = engine.reserve([slot(engine)])
    assert comes_true(engine.leases._thread.is_alive)
    held.cancel()
    engine.close()
