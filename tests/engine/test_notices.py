"""A count that passes its soft percent is told of once in a window, by one settlement."""

import json
from base64 import urlsafe_b64decode
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit.engine import Charge, ConfigurationError, Engine, Quota, Settlement, StoreError
from flask_ailimit.engine.charge import LOCAL
from flask_ailimit.engine.clock import MICROSECONDS
from flask_ailimit.engine.decide import MOST_COUNTS
from flask_ailimit.engine.errors import AwayError
from flask_ailimit.engine.hand_over_token import read_token
from flask_ailimit.engine.notice import notice_of
from flask_ailimit.engine.quota import MAX_EXACT
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.engine.stores.share import Share, ShareStore
from flask_ailimit.testing import ALICE, BOB, COUNTING, ManualClock

TIMED = sorted(set(COUNTING) - {"concurrency"})
SECRET = b"of all engines here"


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def store(clock):
    return MemoryStore(clock)


@pytest.fixture
def settled(store, monkeypatch):
    """How many settlements each call of the store had."""
    calls, settle = [], store.settle
    monkeypatch.setattr(store, "settle", lambda settlements: calls.append(len(settlements)) or settle(settlements))
    return calls


def requests(limit=10, period=60, soft_percent=80, algorithm="fixed-window"):
    return Quota(limit, period, "requests", algorithm, soft_percent=soft_percent)


def engine_of(store):
    return Engine(store, secret=SECRET)


def spend(engine, quota, times=1, subject=ALICE):
    """So many requests; of each, how much was used when it was told of."""
    told = []
    for _ in range(times):
        reservation = engine.reserve([Charge(subject, quota)])
        reservation.settle({})
        told.append([verdict.used for verdict in reservation.passed])
    return told


@given(st.integers(1, MAX_EXACT // 60), st.integers(1, 100), st.integers(0, MAX_EXACT))
def test_what_is_left_says_exactly_whether_the_part_is_used(burst, soft_percent, left):
    quota = Quota(burst, 60, soft_percent=soft_percent)
    left %= burst + 1
    assert (left <= quota.soft_left) == ((burst - left) * 100 >= soft_percent * burst)


def test_quota_without_soft_percent_is_never_near():
    assert Quota(10, 60).soft_left == -1


def test_soft_percent_is_no_part_of_the_counts_name():
    assert requests(soft_percent=80).bucket("x") == requests(soft_percent=0).bucket("x")


@pytest.mark.parametrize("wrong", [-1, 101, 80.0, "80", True, None])
def test_soft_percent_is_a_whole_number_of_percent(wrong):
    with pytest.raises(ConfigurationError, match="soft_percent: a whole number from 1 to 100 is needed, such as 80"):
        requests(soft_percent=wrong)


def test_calls_in_flight_have_no_soft_percent():
    with pytest.raises(ConfigurationError, match="soft_percent: a limit on calls in flight has none, because"):
        Quota(4, 60, "concurrency", "concurrency", soft_percent=80)


def test_soft_percent_stays_when_the_quota_owes_otherwise_or_is_called_otherwise():
    quota = requests().told_as("plan", soft_percent=50)
    assert (quota.owing(0).soft_percent, quota.owing(0).label, quota.soft_left) == (50, "plan", 5)


@pytest.mark.parametrize("algorithm", TIMED)
@pytest.mark.parametrize("seed", range(4))
def test_each_window_is_told_of_by_its_first_settlement_above(store, clock, algorithm, seed):
    """Against a plain rule: whoever settles above is told, unless somebody was until the window's end."""
    random = Random(seed)
    quotas = [Quota(20, period, "tokens", algorithm, soft_percent=70) for period in (10, 60)]
    engine, reservations, until, told = engine_of(store), [], {}, 0
    for _ in range(3000):
        clock.advance(random.choice((0, 0.3, 1, 2, 7)))
        quota, subject = random.choice(quotas), random.choice((ALICE, BOB))
        reservation = engine.reserve([Charge(subject, quota, random.choice((1, 2, 5, 9)))])
        if reservation.allowed:
            reservations.append(reservation)
        if not reservations or random.random() < 0.4:
            continue
        ended = reservations.pop(random.randrange(len(reservations)))
        charge = ended.decision.verdicts[0].charge
        actual = random.choice((0, charge.cost - 1, charge.cost + 1, charge.cost + 4))
        ended.settle({"tokens": actual})
        (now,) = store.peek([charge.costing(0)]).verdicts
        is_told = actual and now.used >= 14 and until.get(charge.counted_in, 0) <= clock()
        assert [v.used for v in ended.passed] == [now.used] * bool(is_told)
        if ended.passed:
            period_us = charge.quota.period_us
            window_us = min(now.reset_after_us, period_us)
            if algorithm == "fixed-window":
                window_us = period_us - clock() % period_us
            until[charge.counted_in] = -(-(clock() + window_us) // MICROSECONDS) * MICROSECONDS
            told += 1
    assert told > 20


def test_requests_are_told_of_once_in_a_window_and_again_in_the_next(store, clock):
    engine = engine_of(store)
    assert spend(engine, requests(), 12) == [*[[]] * 7, [8], *[[]] * 4]
    clock.advance(60)
    assert spend(engine, requests(), 10) == [*[[]] * 7, [8], [], []]


def test_reservations_of_requests_ask_the_store_once_in_a_window(store, clock, settled):
    engine = engine_of(store)
    spend(engine, requests(), 10)
    assert settled == [1]
    clock.advance(60)
    spend(engine, requests(), 10)
    assert settled == [1, 1]


def test_each_process_asks_for_itself_and_one_is_told(store, settled):
    engines = [engine_of(store) for _ in range(4)]
    told = [spend(engine, requests(100), 25) for engine in engines]
    assert sum(map(len, (used for each in told for used in each))) == 1
    assert settled == [1]  # Only the last process came above.
    for engine in engines:
        spend(engine, requests(100))  # All are refused: who is refused settles nothing.
    assert settled == [1]


def test_of_a_long_window_a_process_asks_once_a_minute(store, clock, settled):
    engine = engine_of(store)
    day = requests(1000, 86400, 1)
    spend(engine, day, 20)
    assert settled == [1]
    for minutes in range(1, 4):
        clock.advance(60)
        assert spend(engine, day, 5) == [[]] * 5
        assert settled == [1] * (1 + minutes)


def test_count_that_another_process_reset_is_told_of_again(store, clock):
    ours, theirs = engine_of(store), engine_of(store)
    day = requests(10, 86400)
    assert spend(ours, day, 9)[7] == [8]
    theirs.reset(ALICE, day.bucket(""))
    clock.advance(60)
    assert spend(ours, day, 9)[7] == [8]


def test_count_that_this_process_reset_is_told_of_again_at_once(store):
    engine = engine_of(store)
    assert spend(engine, requests(), 9)[7] == [8]
    assert engine.reset(ALICE) == 1
    assert spend(engine, requests(), 9)[7] == [8]


def test_process_forgets_about_whom_it_asked_before_they_are_too_many(store, settled):
    engine = engine_of(store)
    for number in range(5000):
        spend(engine, requests(1, 3600, 1), subject=number.to_bytes(16, "big"))
    assert len(engine._announced._until) <= 4096
    assert len(settled) == 5000


def test_without_soft_percent_requests_are_never_settled(store, settled):
    spend(engine_of(store), requests(soft_percent=0), 10)
    assert settled == []


def test_dry_charges_and_charges_of_nothing_are_not_settled(store, settled):
    engine = engine_of(store)
    spend(engine, requests(soft_percent=0), 10)
    engine.reserve([Charge(ALICE, requests(), 0), Charge(ALICE, requests(), 0, dry=True)]).settle({})
    assert settled == []


def test_request_that_is_below_again_when_it_ends_does_not_keep_others_from_asking(store, clock, settled):
    engine, quota = engine_of(store), requests(60, 60, algorithm="token-bucket")
    spend(engine, quota, 47)
    reservation = engine.reserve([Charge(ALICE, quota)])
    clock.advance(1.5)
    reservation.settle({})
    assert (reservation.decision.verdicts[0].used, reservation.passed, settled) == (48, (), [1])
    assert spend(engine, quota, 5) == [[48], [], [], [], []]
    assert settled == [1, 1]


def test_process_asks_again_after_a_settlement_that_failed(store, monkeypatch):
    engine = engine_of(store)
    spend(engine, requests(), 7)
    reservation = engine.reserve([Charge(ALICE, requests())])

    def fails(changes):
        raise StoreError("It is away.")

    with monkeypatch.context() as patched:
        patched.setattr(store, "write", fails)
        with pytest.raises(StoreError, match="away"):
            reservation.settle({})
    assert spend(engine, requests(), 2) == [[9], []]


@pytest.mark.parametrize("floor", [10, 50, 99, 100])
def test_floor_of_a_charge_is_not_taken_for_used(store, settled, floor):
    engine, quota = engine_of(store), requests(100)
    while (reservation := engine.reserve([Charge(ALICE, quota, floor=floor)])).allowed:
        reservation.settle({})
        used = engine.peek([Charge(ALICE, quota, 0)]).verdicts[0].used
        assert reservation.decision.verdicts[0].is_near == (used >= 80)
        assert len(reservation.passed) == (used == 80)
    assert reservation.decision.verdicts[0].is_near  # For who is refused, all is used.
    assert settled == [1] * (floor < 20)
    assert [used for (used,) in filter(None, spend(engine, quota, 80))] == [80] * (floor > 20)


def test_work_that_was_handed_over_is_told_of_if_it_costs_what_was_reserved(store):
    engine, told = engine_of(store), []
    for _ in range(10):
        work = engine.take_over(engine.hand_over([engine.reserve([Charge(ALICE, requests())])], {}))
        work.settle({})
        told.append([verdict.used for verdict in work.passed])
    assert told == [*[[]] * 7, [8], [], []]


def test_reopened_reservation_is_settled_for_what_it_used_since(store, settled):
    reservation = engine_of(store).reserve([Charge(ALICE, requests(), 9)])
    reservation.settle({})
    again = reservation.reopen()
    again.settle({"requests": 0})
    assert (settled, again.passed) == ([1], ())


def test_count_with_a_higher_limit_is_not_told_of_again_in_its_window(store):
    engine = engine_of(store)
    assert spend(engine, requests(10), 9)[7] == [8]
    assert spend(engine, requests(20), 10) == [[]] * 10


def test_notice_ends_with_the_window_of_its_count(store, clock):
    clock.advance(12)
    spend(engine_of(store), requests(), 8)
    record = store.read(ALICE)
    ends = [record[name].expires_us for name in (requests().bucket(""), notice_of(requests().bucket("")))]
    assert ends == [clock() + 48 * MICROSECONDS] * 2


def test_window_that_begins_with_a_debt_is_told_of_for_itself(store, clock):
    engine, day = engine_of(store), Quota(1000, 86400, "tokens", "fixed-window", soft_percent=80)
    clock.advance(23 * 3600)
    told = []
    for cost, actual, hours in [(100, 1100, 2), (100, 600, 2), (100, 200, 2), (1, 1, 20), (100, 900, 0)]:
        reservation = engine.reserve([Charge(ALICE, day, cost)])
        reservation.settle({"tokens": actual})
        told.append([verdict.used for verdict in reservation.passed])
        clock.advance(hours * 3600)
    assert told == [[1000], [], [900], [], [900]]


@pytest.mark.parametrize("algorithm", TIMED)
def test_count_is_told_of_in_its_windows_when_the_clock_went_back(store, clock, algorithm):
    engine = engine_of(store)
    spend(engine, requests(algorithm=algorithm), 9)
    clock.advance(-86400)
    assert sum(map(len, spend(engine, requests(algorithm=algorithm)))) == 1
    assert spend(engine, requests(algorithm=algorithm), 3) == [[]] * 3


def test_notice_of_a_debt_ends_after_a_period(store, clock):
    store.settle([Settlement(Charge(ALICE, requests(), 0), clock(), 50, 0)])
    assert store.read(ALICE)[notice_of(requests().bucket(""))].expires_us == clock() + 60 * MICROSECONDS


def test_name_of_a_notice_differs_from_its_counts_and_leads_back():
    bucket = requests().bucket("")
    assert len(notice_of(bucket)) == len(bucket)
    assert notice_of(bucket) != bucket
    assert notice_of(notice_of(bucket)) == bucket


def test_notices_are_among_the_counts_that_a_subject_may_have(store):
    engine = engine_of(store)
    for number in range(MOST_COUNTS // 2):
        assert engine.reserve([Charge(ALICE, requests(), 9, str(number))]).settle({})
    assert len(store.read(ALICE)) == MOST_COUNTS
    refused = engine.reserve([Charge(ALICE, requests(), 9, "one more")])
    assert not refused.allowed
    assert refused.decision.retry_after == 60


def test_store_without_room_for_a_notice_settles_all_the_same(clock):
    engine = engine_of(MemoryStore(clock, max_counts=8))
    tokens = Quota(10, 60, "tokens", soft_percent=50)
    reservations = [engine.reserve([Charge(ALICE, tokens, 9, str(number))]) for number in range(8)]
    reservations[0].settle({"tokens": 6})
    assert reservations[0].passed == ()
    assert engine.peek([Charge(ALICE, tokens, 0, "0")]).verdicts[0].used == 6
    clock.advance(60)
    again = engine.reserve([Charge(ALICE, tokens, 1)])
    again.settle({"tokens": 6})
    assert len(again.passed) == 1


def test_share_of_a_limit_is_told_of_by_its_own_part(store):
    share = ShareStore(store, lambda: Share(0, 4))
    engine, quota = engine_of(share), requests(100).told_as("plan", soft_percent=80)
    assert spend(engine, quota, 25) == [*[[]] * 19, [20], *[[]] * 5]
    reservation = engine.reserve([Charge(BOB, quota, 20)])
    reservation.settle({})
    (verdict,) = reservation.passed
    assert (verdict.charge.quota, verdict.quota.burst, verdict.used) == (quota, 25, 20)
    assert verdict.quota.name == "plan"


def test_limit_is_told_of_although_its_share_was_told_of_while_the_store_was_away(clock, monkeypatch):
    store = MemoryStore(clock)
    store.nearby = ShareStore(MemoryStore(clock), lambda: Share(0, 2))
    engine, charge = engine_of(store), Charge(ALICE, requests(), on_store_error=LOCAL)

    def told(times):
        for _ in range(times):
            reservation = engine.reserve([charge])
            reservation.settle({})
            yield [(verdict.used, verdict.quota.burst) for verdict in reservation.passed]

    def is_away(charges, lease):
        raise AwayError("It is away.")

    with monkeypatch.context() as patched:
        patched.setattr(store, "reserve", is_away)
        assert [*told(4)] == [[], [], [], [(4, 5)]]
    assert [*told(9)] == [*[[]] * 7, [(8, 10)], []]


def test_limit_that_is_only_tried_is_not_told_of(store, settled):
    engine = engine_of(store)
    tried = engine.reserve([Charge(ALICE, requests(), 9, shadow=True)])
    tried.settle({})
    assert (tried.passed, settled) == ((), [])
    tokens = engine.reserve([Charge(BOB, Quota(10, 60, "tokens", soft_percent=80), 1, shadow=True)])
    tokens.settle({"tokens": 9})
    assert (tokens.passed, settled) == ((), [1])
    assert engine.peek([Charge(BOB, Quota(10, 60, "tokens"), 0)]).verdicts[0].used == 9


def test_count_is_told_of_as_it_stands_whatever_floor_its_charge_has(store):
    reservation = engine_of(store).reserve([Charge(ALICE, requests(), 5, floor=5)])
    reservation.settle({"requests": 8})
    assert [(verdict.used, verdict.remaining) for verdict in reservation.passed] == [(8, 2)]


@pytest.mark.parametrize(("soft_percent", "more"), [(0, ()), (80, ("plan", False, 80))])
def test_token_says_how_a_count_is_told_of_only_if_it_may_be(store, soft_percent, more):
    engine = engine_of(store)
    quota = requests().told_as("plan", in_headers=False, soft_percent=soft_percent)
    token = engine.hand_over([engine.reserve([Charge(ALICE, quota)])], {})
    ((_, [(_, [(_, allowed, *_)])]),) = json.loads(urlsafe_b64decode(token.split(".")[1]))["parts"].values()
    assert allowed == [*quota.given, *more]
    ((charge, _),) = read_token(engine._token_key, token).parts[""].taken[0].charges
    assert charge.quota == (quota if more else requests(soft_percent=0))
