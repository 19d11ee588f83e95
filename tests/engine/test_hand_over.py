"""Work that outlives its answer is ended by another process: once, by whom it was meant for, and not too late."""

import string
import threading
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from children import exit_code_of_child

from flask_ailimit.engine import Charge, Engine, HandOverError, Quota, StoreError
from flask_ailimit.engine.calendars import Calendar
from flask_ailimit.engine.grant import Grant
from flask_ailimit.engine.quota import LATEST_SECOND, MOST_GRANTS
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.engine.stores.share import Share, ShareStore

SECRET = b"shared by all of an app"
TOKENS = Quota(100, 60, "tokens")
SLOT = Quota(1, 60, "concurrency", "concurrency")


class AwayStore(MemoryStore):
    """Fails on demand."""

    away = False

    def transaction(self):
        if self.away:
            raise StoreError("away")
        return super().transaction()


@pytest.fixture
def store(clock):
    return AwayStore(clock)


@pytest.fixture
def engine(store):
    engine = Engine(store, secret=SECRET)
    yield engine
    engine.close()


def reserve(engine, cost=40, **options):
    user = engine.subject("alice@example.com")
    return engine.reserve([Charge(user, SLOT, **options), Charge(user, TOKENS, cost, "POST /jobs", **options)])


def used(engine):
    user = engine.subject("alice@example.com")
    (verdict,) = engine.peek([Charge(user, TOKENS, 0, "POST /jobs")]).verdicts
    return verdict.used


def test_token_is_printable_and_names_nobody(engine):
    token = engine.hand_over([reserve(engine)], {"job": "Überraschung 🙈", "number": -(2**70)})
    assert set(token) <= set(string.ascii_letters + string.digits + "-_.=")
    assert engine.take_over(token).note == {"job": "Überraschung 🙈", "number": -(2**70)}
    assert b"alice" not in token.encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token[:-1],
        lambda token: token[1:],
        lambda token: "",
        lambda token: token + "=",
        lambda token: token + "\n",
        lambda token: token.rpartition(".")[0],
        lambda token: token.replace("v2.", "v3.", 1),
        lambda token: token.swapcase(),
        lambda token: "é" + token,
        lambda token: token.encode(),
        lambda token: None,
    ],
)
def test_token_that_was_changed_is_refused(engine, change):
    token = engine.hand_over([reserve(engine)], {})
    with pytest.raises(HandOverError, match="no token of this app's"):
        engine.take_over(change(token))
    assert used(engine) == 40


def test_token_with_any_other_letter_is_refused(engine):
    token = engine.hand_over([reserve(engine)], {"job": 1})
    for place, letter in enumerate(token):
        forged = token[:place] + ("A" if letter != "A" else "B") + token[place + 1 :]
        with pytest.raises(HandOverError):
            engine.take_over(forged)


def test_token_of_another_secret_is_refused(engine, clock):
    token = Engine(MemoryStore(clock), secret=b"another app's secret").hand_over([reserve(engine)], {})
    with pytest.raises(HandOverError):
        engine.take_over(token)


@pytest.mark.parametrize(
    "note", [{"job": 1.5}, {"job": None}, {1: "job"}, {"job": True}, {"job": ["a"]}, {"job": "x" * 4096}]
)
def test_note_that_is_none_is_refused_and_nothing_is_given_up(engine, note):
    reservation = reserve(engine)
    with pytest.raises(ValueError, match="note: "):
        engine.hand_over([reservation], note)
    assert reservation.settle({"tokens": 1})


def test_giver_neither_renews_nor_ends_what_it_handed_over(engine):
    reservation = reserve(engine)
    engine.hand_over([reservation], {})
    assert engine.leases._held == {}
    assert not reservation.cancel()
    assert used(engine) == 40


def test_taker_renews_from_when_it_took_over(engine, clock):
    token = engine.hand_over([reserve(engine)], {})
    taken = engine.take_over(token)
    for _ in range(5):
        clock.advance(40)
        engine.leases.renew()
    for _ in range(5):
        clock.advance(40)
        taken.renew()
    assert not reserve(engine).allowed
    taken.cancel()
    assert engine.leases._held == {}
    assert reserve(engine).allowed


@pytest.mark.parametrize(
    ("end", "left"),
    [
        (lambda work: work.settle({"tokens": 7}), 7),
        (lambda work: work.settle({}), 40),
        (lambda work: work.settle({"tokens": 90}), 90),
        (lambda work: work.settle_at_least({"tokens": 7}), 40),
        (lambda work: work.settle_at_least({"tokens": 70}), 70),
        (lambda work: work.cancel(), 0),
    ],
)
def test_taker_ends_it_as_the_giver_would_have(engine, end, left):
    work = engine.take_over(engine.hand_over([reserve(engine)], {}))
    assert end(work) is True
    assert used(engine) == left
    assert end(work) is False
    assert used(engine) == left


def test_of_many_takers_and_threads_one_ends_it(engine, store):
    token = engine.hand_over([reserve(engine, 30)], {})
    works = [Engine(store, secret=SECRET).take_over(token) for _ in range(8)]
    ended = []
    threads = [threading.Thread(target=lambda w=w: ended.append(w.settle({"tokens": 10}))) for w in works for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ended) == [False] * 15 + [True]
    assert used(engine) == 10


def test_other_process_ends_it_once_over_a_local_store(open_local):
    engine = Engine(open_local(), secret=SECRET)
    token = engine.hand_over([reserve(engine)], {"job": 3})

    def in_child():
        work = engine.take_over(token)
        return work.note != {"job": 3} or not work.settle({"tokens": 7})

    assert exit_code_of_child(in_child) == 0
    assert exit_code_of_child(in_child) == 1
    assert used(engine) == 7


def test_store_that_fails_leaves_it_open(engine, store):
    work = engine.take_over(engine.hand_over([reserve(engine)], {}))
    store.away = True
    with pytest.raises(StoreError):
        work.settle({"tokens": 7})
    store.away = False
    assert work.settle({"tokens": 7})
    assert used(engine) == 7


def test_settlement_that_fails_gives_its_claim_back(engine, store, monkeypatch):
    work = engine.take_over(engine.hand_over([reserve(engine)], {}))
    settle, failing = store.settle, [StoreError("full")]

    def fail_once(settlements):
        if failing:
            raise failing.pop()
        return settle(settlements)

    monkeypatch.setattr(store, "settle", fail_once)
    with pytest.raises(StoreError, match="full"):
        work.settle({"tokens": 7})
    assert work.settle({"tokens": 7})
    assert used(engine) == 7


def test_several_reservations_go_in_one_token_and_ended_ones_are_left_out(engine):
    user = engine.subject("alice@example.com")
    first, second, ended = (engine.reserve([Charge(user, TOKENS, 20, "POST /jobs")]) for _ in range(3))
    ended.settle({"tokens": 5})
    work = engine.take_over(engine.hand_over([first, second, ended], {}))
    assert work.cancel()
    assert used(engine) == 5


def test_work_without_limits_is_handed_over_and_ended_once_too(engine, clock):
    token = engine.hand_over([engine.reserve([])], {"job": 1})
    first, second = engine.take_over(token), engine.take_over(token)
    assert first.settle({"tokens": 5})
    assert not second.settle({"tokens": 5})
    clock.advance(86400)
    with pytest.raises(HandOverError):
        engine.take_over(token)


BERLIN = Calendar("Europe/Berlin", "sunday", 17)
NOON = round(datetime(2026, 5, 16, 12, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()) * 10**6
CREDIT = (Grant(2, 30, 0, NOON // 10**6 + 7 * 86_400), Grant(1, 50, 0, LATEST_SECOND))


@pytest.mark.parametrize(
    "quota",
    [
        Quota(100, 1, "tokens", "window", every="month", calendar=BERLIN),
        Quota(100, 1, "tokens", "window", every="week", calendar=BERLIN, soft_percent=80, label="weekly"),
        Quota(100, 5 * 3600, "tokens", "window", every="session"),
        Quota(100, 3600, "tokens", "window"),
        Quota(100, 1, "nano_usd", "budget", every="month", calendar=BERLIN, credit=CREDIT),
        Quota(0, 1, "nano_eur", "budget", every="ever", credit=CREDIT),
        Quota(0, 1, "nano_eur", "budget", every="day", credit=CREDIT, credit_windows=((18_000, "session"),)),
    ],
    ids=lambda quota: f"{quota.algorithm} {quota.every}",
)
def test_windows_and_budgets_are_handed_over_as_they_are(engine, clock, quota):
    clock.set(NOON)
    charge = Charge(engine.subject("alice"), quota, 70)
    (part,) = engine.take_over(engine.hand_over([engine.reserve([charge])], {}))._parts
    assert part.taken[0].charges == [(charge, NOON)]


def test_budget_is_settled_by_the_taker_in_the_window_and_the_grants_that_it_was_taken_from(engine, clock):
    quota = Quota(100, 1, "nano_usd", "budget", every="month", calendar=BERLIN, credit=CREDIT)
    charge = Charge(engine.subject("alice"), quota, 150)

    def stands():
        return engine.peek([charge.costing(0)]).verdicts[0].spending[:4]

    clock.set(NOON)
    token = engine.hand_over([engine.reserve([charge])], {})
    assert stands() == (0, 100, 30, 50)
    assert engine.take_over(token).settle({"nano_usd": 110})
    assert stands() == (100, 0, 70, 0)
    token = engine.hand_over([engine.reserve([charge.costing(60)])], {})
    clock.advance(12 * 3600)  # It is the 17th: another month.
    assert engine.take_over(token).settle({"nano_usd": 85})
    assert stands() == (25, 0, 10, 0)


def test_refund_of_work_that_was_handed_over_goes_to_its_window_and_to_no_later_one(engine, clock):
    for seconds, used in ((11 * 3600, 10), (12 * 3600, 5)):
        clock.set(NOON)
        engine.store.clear()
        quota = Quota(100, 1, "tokens", "window", every="month", calendar=BERLIN)
        charge = Charge(engine.subject("alice"), quota, 70)
        token = engine.hand_over([engine.reserve([charge])], {})
        clock.advance(seconds)
        engine.reserve([charge.costing(5)])
        assert engine.take_over(token).settle({"tokens": 5})
        assert engine.peek([charge.costing(0)]).verdicts[0].used == used


def test_token_of_a_payer_with_many_grants_is_of_a_length_that_queues_take(engine):
    grants = tuple(Grant(id_, 10**15, 10**9, LATEST_SECOND) for id_ in range(1, MOST_GRANTS + 1))
    quota = Quota(100, 1, "nano_usd", "budget", every="ever", credit=grants)
    token = engine.hand_over([engine.reserve([Charge(engine.subject("alice"), quota, 5)])], {})
    assert len(token) < 5000


# While the store is away


@pytest.fixture
def outage(clock, store):
    """Engines of one machine whose store is away, and one of another machine."""

    def machine(here):
        near = AwayStore(clock)
        near.nearby = ShareStore(here, lambda: Share(0, 4))
        near.away = True
        return Engine(near, secret=SECRET)

    here = MemoryStore(clock)
    here.secret = lambda: b"of this machine"
    elsewhere = MemoryStore(clock)
    elsewhere.secret = lambda: b"of another one"
    return machine(here), machine(here), machine(elsewhere)


def test_what_was_taken_nearby_is_ended_on_that_machine_once(outage):
    giver, taker, _ = outage
    user = giver.subject("alice@example.com")
    charges = [Charge(user, Quota(4, 60, "concurrency", "concurrency"), on_store_error="local")]
    charges += [Charge(user, TOKENS, 20, on_store_error="local")]
    token = giver.hand_over([giver.reserve(charges)], {})
    assert giver.peek([charges[1]]).verdicts[0].remaining == 5
    work, twin = taker.take_over(token), taker.take_over(token)
    assert work.settle({"tokens": 5})
    assert not twin.settle({"tokens": 5})
    assert [v.remaining for v in giver.peek([charges[0].costing(0), charges[1].costing(0)]).verdicts] == [1, 20]


def test_what_was_taken_nearby_is_out_of_reach_of_other_machines(outage):
    giver, _, elsewhere = outage
    charge = Charge(giver.subject("alice@example.com"), TOKENS, 20, on_store_error="local")
    token = giver.hand_over([giver.reserve([charge])], {"job": 1})
    work = elsewhere.take_over(token)
    assert (work.note, work.cancel()) == ({"job": 1}, False)
    assert elsewhere.peek([charge.costing(0)]).verdicts[0].remaining == 25
    assert giver.peek([charge.costing(0)]).verdicts[0].remaining == 5


def test_take_over_that_fails_in_its_second_part_lets_go_of_the_first(clock, store):
    """One part was taken in the store, and one nearby while that was away."""
    near = AwayStore(clock)
    near.secret = lambda: b"of this machine"
    store.nearby = ShareStore(near, lambda: Share(0, 1))
    engine = Engine(store, secret=SECRET)
    taken = reserve(engine, on_store_error="local")
    store.away = True
    charge = Charge(engine.subject("alice@example.com"), SLOT, scope="nearby", on_store_error="local")
    token = engine.hand_over([taken, engine.reserve([charge])], {})
    store.away, near.away = False, True
    with pytest.raises(StoreError):
        engine.take_over(token)
    assert engine.leases._held == {}
    near.away = False
    assert engine.take_over(token).settle({"tokens": 7})
    assert used(engine) == 7


def test_reopened_work_holds_its_part_of_a_share(outage):
    engine, *_ = outage
    slot = Charge(engine.subject("user-1"), Quota(4, 60, "concurrency", "concurrency"), on_store_error="local")
    first = engine.reserve([slot])
    first.settle({})
    again = first.reopen()
    assert not engine.reserve([slot]).allowed
    assert again.settle({})
    assert engine.reserve([slot]).allowed
