import threading

import pytest

from flask_ailimit.engine import Charge, Engine, Quota, StoreError
from flask_ailimit.engine.reservation import end_together
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.testing import ManualClock

REQUESTS = Quota(10, 60)
SLOT = Quota(1, 60, "concurrency", "concurrency")
INPUT = Quota(1000, 60, "input_tokens")
OUTPUT = Quota(1000, 60, "output_tokens")


@pytest.fixture
def engine():
    engine = Engine(MemoryStore(ManualClock()))
    yield engine
    engine.close()


@pytest.fixture
def charges(engine):
    user = engine.subject("user-1")
    return [Charge(user, REQUESTS), Charge(user, INPUT, 100), Charge(user, OUTPUT, 400)]


def used(engine, charges):
    return [verdict.used for verdict in engine.peek([Charge(c.subject, c.quota, 0) for c in charges]).verdicts]


@pytest.mark.parametrize(
    ("end", "left"),
    [
        (lambda r: r.settle({}), [1, 100, 400]),
        (lambda r: r.settle({"input_tokens": 120, "output_tokens": 30}), [1, 120, 30]),
        (lambda r: r.settle({"output_tokens": 0}), [1, 100, 0]),
        (lambda r: r.settle({"requests": 0, "cost": 7}), [0, 100, 400]),
        (lambda r: r.settle_at_least({"input_tokens": 120, "output_tokens": 30}), [1, 120, 400]),
        (lambda r: r.settle_at_least({}), [1, 100, 400]),
        (lambda r: r.cancel(), [0, 0, 0]),
        (lambda r: r.end(lambda charge: charge.cost // 2), [0, 50, 200]),
    ],
)
def test_reservation_ends_with_what_was_used(engine, charges, end, left):
    reservation = engine.reserve(charges)
    assert end(reservation) is True
    assert used(engine, charges) == left


@pytest.mark.parametrize("first", [lambda r: r.settle({"input_tokens": 50}), lambda r: r.cancel(), lambda r: r.close()])
@pytest.mark.parametrize("second", [lambda r: r.settle({"input_tokens": 7}), lambda r: r.cancel(), lambda r: r.close()])
def test_only_the_first_ending_counts(engine, charges, first, second):
    reservation = engine.reserve(charges)
    assert first(reservation)
    before = used(engine, charges)
    assert second(reservation) is False
    assert used(engine, charges) == before


def test_of_many_threads_that_end_it_one_does(engine, charges):
    reservation, ended = engine.reserve(charges), []
    threads = [threading.Thread(target=lambda: ended.append(reservation.cancel())) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ended) == [False] * 15 + [True]
    assert used(engine, charges) == [0, 0, 0]


def test_refused_reservation_holds_nothing_and_its_endings_do_nothing(engine, charges):
    refused = engine.reserve([*charges, Charge(charges[0].subject, Quota(5, 60, "tokens"), 6)])
    assert not refused.allowed
    assert [refused.settle({"input_tokens": 900}), refused.cancel(), refused.close()] == [False] * 3
    assert used(engine, charges) == [0, 0, 0]


@pytest.mark.parametrize("number", [-1, 1.0, True, None, "5", float("nan"), float("inf"), 2**53])
@pytest.mark.parametrize("end", ["settle", "settle_at_least"])
def test_number_that_is_no_count_is_refused_and_leaves_it_open(engine, charges, number, end):
    reservation = engine.reserve(charges)
    with pytest.raises(ValueError, match="a whole number from 0 to 9007199254740991 is needed"):
        getattr(reservation, end)({"input_tokens": number})
    assert reservation.cancel()
    assert used(engine, charges) == [0, 0, 0]


def test_block_that_ends_well_is_settled_as_reserved(engine, charges):
    with engine.reserve(charges) as reservation:
        assert reservation.allowed
    assert used(engine, charges) == [1, 100, 400]
    assert reservation.cancel() is False


def test_block_that_raises_gives_everything_back(engine, charges):
    def fail():
        with engine.reserve(charges):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert used(engine, charges) == [0, 0, 0]


def test_block_that_settled_itself_is_left_alone(engine, charges):
    with engine.reserve(charges) as reservation:
        reservation.settle({"output_tokens": 1})
    assert used(engine, charges) == [1, 100, 1]


def test_several_reservations_end_together_in_one_store_call(engine, charges, monkeypatch):
    settled = []
    settle = engine.store.settle
    monkeypatch.setattr(
        engine.store, "settle", lambda settlements: settled.append(len(settlements)) or settle(settlements)
    )
    reservations = [engine.reserve([charge]) for charge in charges]
    reservations[0].close()
    assert end_together(reservations, lambda _: 0).was_open
    assert settled == [2]
    assert used(engine, charges) == [1, 0, 0]
    assert not end_together(reservations, lambda _: 0).was_open


def test_dry_charge_is_not_settled(engine, charges):
    user = charges[0].subject
    engine.reserve([Charge(user, INPUT, 300)])
    engine.reserve([Charge(user, INPUT, 200, dry=True), charges[2]]).settle({"input_tokens": 900, "output_tokens": 1})
    assert used(engine, charges) == [0, 300, 1]


def test_reopened_reservation_costs_nothing_until_it_is_settled_and_then_all_of_it(engine, charges):
    first = engine.reserve(charges)
    first.settle({"input_tokens": 50, "output_tokens": 30})
    again = first.reopen()
    assert (again.allowed, used(engine, charges)) == (True, [1, 50, 30])
    again.settle({"input_tokens": 7, "output_tokens": 8})
    assert used(engine, charges) == [1, 57, 38]
    again.reopen().settle({})
    assert used(engine, charges) == [1, 57, 38]


def test_open_reservation_can_t_be_reopened_and_a_refused_one_stays_refused(engine, charges):
    with pytest.raises(ValueError, match="still open"):
        engine.reserve(charges).reopen()
    refused = engine.reserve([charges[0].costing(11)])
    assert refused.reopen() is refused


def test_reopening_asks_the_store_only_for_slots(engine, charges, monkeypatch):
    asked = []
    settle = engine.store.settle
    reservations = [engine.reserve(charges), engine.reserve([Charge(charges[0].subject, SLOT), charges[1]])]
    for reservation in reservations:
        reservation.settle({})
    monkeypatch.setattr(
        engine.store, "settle", lambda settlements: asked.append(len(settlements)) or settle(settlements)
    )
    again = [reservation.reopen() for reservation in reservations]
    assert asked == [1]
    assert list(engine.leases._held) == [again[1]._lease]
    assert again[1]._lease != reservations[1]._lease
    again[1].cancel()
    assert engine.leases._held == {}


def test_store_that_fails_lets_reopened_work_go_on(engine, charges, monkeypatch, caplog):
    reservation = engine.reserve([Charge(charges[0].subject, SLOT)])
    reservation.settle({})

    def fail(_):
        raise StoreError("away")

    with monkeypatch.context() as patch:
        patch.setattr(engine.store, "settle", fail)
        again = reservation.reopen()
    assert "Work goes on without its slots: away" in caplog.text
    assert again.settle({})


def test_usage_of_slots_is_what_was_held(engine, charges):
    """No number that an app gives under their unit takes slots."""
    nothing = Charge(charges[0].subject, SLOT, 0)
    engine.reserve([nothing]).settle({"concurrency": 1})
    assert engine.peek([nothing]).verdicts[0].remaining == 1
