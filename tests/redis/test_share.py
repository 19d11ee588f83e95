"""What a machine may decide alone while the store that all machines share is away: its share, and no more."""

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from flask_ailimit.engine import Charge, Quota, Settlement, StoreError
from flask_ailimit.engine.quota import CONCURRENCY, MAX_EXACT
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.engine.stores.share import Share, ShareStore
from flask_ailimit.headers import DIALECTS, limit_headers
from flask_ailimit.http.responses import refusal_body, refusal_headers, refusal_message
from flask_ailimit.testing import COUNTING, ManualClock

SUBJECT = b"0123456789abcdef"
MORE = settings(max_examples=60, deadline=None)

machines = st.integers(1, 40)
quotas = st.one_of(
    st.builds(Quota, st.integers(1, 2000), st.sampled_from([1, 60, 3600, 86400])),
    st.builds(Quota, st.integers(1, 2000), st.sampled_from([1, 60]), burst=st.integers(1, 4000)),
    st.builds(
        Quota,
        st.integers(1, 2000),
        st.sampled_from([1, 60, 3600]),
        algorithm=st.sampled_from(sorted(set(COUNTING) - {CONCURRENCY, "token-bucket"})),
    ),
    st.builds(Quota, st.integers(1, 200), st.just(60), st.just(CONCURRENCY), st.just(CONCURRENCY)),
)


def shares(of):
    return [Share(rank, of) for rank in range(of)]


def share_store(share, clock=None):
    """A store that grants a share, which a test may change: a list of one."""
    return ShareStore(MemoryStore(clock or ManualClock()), lambda: share[0])


def granted(store, quota, cost, lease=1, most=10_000):
    """How many units a store hands out in charges of ``cost`` before it refuses or can't decide."""
    units = 0
    for number in range(most):
        try:
            decision = store.reserve([Charge(SUBJECT, quota, cost)], lease + number)
        except StoreError:
            return units
        if not decision.allowed:
            return units
        units += cost
    raise AssertionError(f"more than {most * cost} units were granted")


@given(whole=st.integers(0, MAX_EXACT), of=machines)
@example(whole=1, of=40)
@example(whole=MAX_EXACT, of=39)
@MORE
def test_parts_sum_up_to_the_whole_and_differ_by_one_at_most(whole, of):
    parts = [share.part(whole) for share in shares(of)]
    assert sum(parts) == whole
    assert min(parts) >= 0
    assert max(parts) - min(parts) <= 1


@given(quota=quotas, of=machines)
@example(quota=Quota(100, 60, burst=2), of=3)
@example(quota=Quota(2, 60, burst=100), of=3)
@example(quota=Quota(1, 60, CONCURRENCY, CONCURRENCY), of=2)
@settings(max_examples=100, deadline=None)
def test_the_quotas_of_all_machines_never_sum_up_to_more_than_the_one_that_they_share(quota, of):
    """Each is what a store counted by; one whose share is nothing can't decide, and grants nothing."""
    limits, bursts = 0, 0
    for share in shares(of):
        try:
            decision = share_store([share]).peek([Charge(SUBJECT, quota, 0)])
        except StoreError:
            continue
        limits += decision.verdicts[0].quota.limit
        bursts += decision.verdicts[0].quota.burst
    assert limits <= quota.limit
    assert bursts <= quota.burst


@given(quota=quotas, of=machines)
@settings(max_examples=100, deadline=None)
def test_nothing_is_lost_where_every_machine_has_a_share(quota, of):
    assume(quota.limit >= of and quota.burst >= of)
    decided = [share_store([share]).peek([Charge(SUBJECT, quota, 0)]).verdicts[0].quota for share in shares(of)]
    assert sum(each.limit for each in decided) == quota.limit
    assert sum(each.burst for each in decided) == quota.burst
    assert {(each.period, each.unit, each.algorithm) for each in decided} == {
        (quota.period, quota.unit, quota.algorithm)
    }


@given(quota=quotas, of=st.integers(1, 12), cost=st.integers(1, 7))
@example(quota=Quota(100, 60, burst=2), of=3, cost=1)
@MORE
def test_all_machines_together_hand_out_the_limit_and_never_a_multiple_of_it(quota, of, cost):
    cost = 1 if quota.unit == CONCURRENCY else cost
    stores = [share_store([share]) for share in shares(of)]
    units = sum(granted(store, quota, cost) for store in stores)
    assert units <= quota.burst
    if cost == 1 and quota.limit >= of and quota.burst >= of:
        assert units == quota.burst


@pytest.mark.parametrize("of", [2, 3, 7])
@pytest.mark.parametrize("algorithm", sorted(set(COUNTING) - {CONCURRENCY}))
def test_over_many_periods_all_machines_together_grant_what_one_store_would(algorithm, of):
    quota = Quota(21, 60, algorithm=algorithm)

    def in_five_periods(stores, clock):
        units = 0
        for _ in range(300):
            units += sum(granted(store, quota, 1) for store in stores)
            clock.advance_us(1_000_000)
        return units

    clock = ManualClock()
    together = in_five_periods([share_store([share], clock) for share in shares(of)], clock)
    clock = ManualClock()
    alone = in_five_periods([MemoryStore(clock)], clock)
    # Each count rounds on its own, and so may lose a unit where a period begins.
    assert together <= alone
    assert together >= alone - of * (5 if algorithm == "sliding-window-counter" else 1)


@pytest.mark.parametrize(
    ("quota", "of", "rank", "cost"),
    [
        (Quota(10, 60), 4, 0, 3),
        (Quota(10, 60, burst=100), 4, 0, 26),
        (Quota(10, 60, algorithm="moving-window"), 4, 1, 4),
        (Quota(3, 60, CONCURRENCY, CONCURRENCY), 4, 0, 1),
        (Quota(1, 60), 2, 0, 1),
    ],
    ids=str,
)
def test_charge_larger_than_the_share_can_t_be_decided_and_takes_nothing(quota, of, rank, cost):
    share = [Share(rank, of)]
    store = share_store(share)
    other = Charge(b"another subject.", Quota(1000, 60), 10)
    with pytest.raises(StoreError, match=f"one of {of}, of {quota.text} is too small for {cost}") as raised:
        store.reserve([other, Charge(SUBJECT, quota, cost)], 1)
    assert raised.value.transient  # Another try may meet the store that is back.
    with pytest.raises(StoreError):
        store.peek([Charge(SUBJECT, quota, cost)])
    assert store.peek([other]).verdicts[0].used == 0
    share[0] = Share(0, 1)
    assert store.reserve([Charge(SUBJECT, quota, cost)], 1).allowed


@given(quota=quotas, of=machines, rank=st.integers(0, 39), more=st.integers(1, 1000))
@MORE
def test_charge_larger_than_the_limit_is_refused_for_ever_whatever_the_share_is(quota, of, rank, more):
    store = share_store([Share(rank % of, of)])
    charge = Charge(SUBJECT, quota, quota.burst + more)
    for decision in (store.peek([charge]), store.reserve([charge], 1)):
        (verdict,) = decision.verdicts
        assert not decision.allowed
        assert not decision.possible
        assert verdict.charge is charge
        assert verdict.limit == quota.limit


@given(data=st.data(), of=machines, algorithm=st.sampled_from(sorted(set(COUNTING) - {CONCURRENCY})))
@MORE
def test_every_part_of_the_life_of_a_charge_counts_in_the_same_place(data, of, algorithm):
    """What is reserved, settled and peeked at by way of a share is one count: that of a quota of the share's size."""
    quota = Quota(data.draw(st.integers(20 * of, 2000)), 3600, "tokens", algorithm)
    share = Share(data.draw(st.integers(0, of - 1)), of)
    part = share.part(quota.limit)
    clock = ManualClock()
    shared, plain = share_store([share], clock), MemoryStore(clock)
    small = Quota(part, 3600, "tokens", algorithm)
    for lease in range(4):
        cost, actual = data.draw(st.integers(0, part)), data.draw(st.integers(0, 2 * part))
        ours, theirs = Charge(SUBJECT, quota, cost), Charge(SUBJECT, small, cost)
        answers = shared.reserve([ours], lease), plain.reserve([theirs], lease)
        if answers[1].allowed:
            settled = [
                store.settle([Settlement(charge, answer.at_us, actual, lease)])
                for store, charge, answer in zip((shared, plain), (ours, theirs), answers, strict=True)
            ]
            assert settled[0] == settled[1]
        answers += shared.peek([ours]), plain.peek([theirs])
        for one, other in (answers[:2], answers[2:]):
            seen = [
                (v.allowed, v.limit, v.used, v.remaining, v.reset_after_us, v.retry_after_us)
                for decision in (one, other)
                for v in decision.verdicts
            ]
            assert seen[0] == seen[1]
            assert one.verdicts[0].charge is ours
        clock.advance_us(data.draw(st.sampled_from([0, 1, 60_000_000, 3_600_000_000])))


def test_leases_of_a_share_are_renewed_and_given_back():
    clock = ManualClock()
    store = share_store([Share(1, 3)], clock)
    charge = Charge(SUBJECT, Quota(8, 60, CONCURRENCY, CONCURRENCY))
    for lease in (1, 2, 3):
        assert store.reserve([charge], lease).allowed
    assert store.peek([charge]).verdicts[0].limit == 3
    assert not store.reserve([charge], 4).allowed
    clock.advance_us(40_000_000)
    store.renew([(charge, 1)])
    clock.advance_us(40_000_000)
    assert store.peek([charge]).verdicts[0].used == 1
    decision = store.reserve([charge], 5)
    store.settle([Settlement(charge, decision.at_us, 0, 1), Settlement(charge, decision.at_us, 0, 5)])
    assert store.peek([charge]).verdicts[0].used == 0


def test_slot_that_was_taken_under_another_share_comes_back_with_its_lease():
    """The number of machines is learned anew while requests are under way."""
    clock = ManualClock()
    share = [Share(0, 1)]
    store = share_store(share, clock)
    charge = Charge(SUBJECT, Quota(2, 60, CONCURRENCY, CONCURRENCY))
    decision = store.reserve([charge], 1)
    share[0] = Share(0, 2)
    store.settle([Settlement(charge, decision.at_us, 0, 1)])
    share[0] = Share(0, 1)
    clock.advance_us(60_000_000)
    assert store.peek([charge]).verdicts[0].used == 0


def test_what_no_longer_has_a_share_keeps_nothing_else_from_being_renewed_and_settled():
    clock = ManualClock()
    share = [Share(0, 1)]
    store = share_store(share, clock)
    small = Charge(SUBJECT, Quota(1, 60, CONCURRENCY, CONCURRENCY))
    decision = store.reserve([small], 1)
    share[0] = Share(0, 2)
    large = Charge(SUBJECT, Quota(10, 60, CONCURRENCY, CONCURRENCY))
    store.reserve([large], 2)
    clock.advance_us(40_000_000)
    store.renew([(small, 1), (large, 2)])
    clock.advance_us(40_000_000)
    assert store.peek([large]).verdicts[0].used == 1
    store.settle([Settlement(small, decision.at_us, 0, 1), Settlement(large, decision.at_us, 0, 2)])
    assert store.peek([large]).verdicts[0].used == 0


def test_resetting_one_count_forgets_no_other_of_its_subject():
    store = share_store([Share(0, 2)])
    charge, other = Charge(SUBJECT, Quota(10, 60), 4), Charge(SUBJECT, Quota(10, 60), 4, "another scope")
    store.reserve([charge, other], 1)
    store.reset(SUBJECT, charge.bucket)
    assert store.peek([charge]).verdicts[0].used == 0
    assert store.peek([other]).verdicts[0].used == 4


@pytest.fixture(params=["allowed", "refused"])
def decision(request):
    """Of a machine that has 5 of 15 requests and 33 of 100 tokens, of which 20 are used."""
    store = share_store([Share(0, 3)])
    charges = [Charge(SUBJECT, Quota(15, 60)), Charge(SUBJECT, Quota(100, 60, "tokens"), 20)]
    if request.param == "refused":
        store.reserve(charges, 1)
    return store.reserve(charges, 2)


def test_verdicts_and_headers_say_the_share_s_numbers(decision):
    for verdict, (limit, cost) in zip(decision.verdicts, [(5, 1), (33, 20)], strict=True):
        assert verdict.share is not None
        assert verdict.limit == limit
        assert verdict.remaining == limit - cost
        assert verdict.used == cost
        assert verdict.charge.quota.limit in (15, 100)
    headers = dict(limit_headers(decision, DIALECTS))
    assert headers["X-RateLimit-Limit"] == "33"
    assert headers["X-RateLimit-Remaining"] == "13"
    assert headers["x-ratelimit-limit-requests"] == "5"
    assert headers["x-ratelimit-remaining-requests"] == "4"
    assert headers["x-ratelimit-limit-tokens"] == "33"
    assert headers["x-ratelimit-remaining-tokens"] == "13"
    assert "100" not in headers["RateLimit-Policy"] + headers["RateLimit"]


def test_decision_that_is_given_back_stays_within_the_share(decision):
    back = decision.without([verdict.charge for verdict in decision.verdicts])
    for verdict in back.verdicts:
        assert verdict.remaining <= verdict.limit
        assert verdict.share is not None


@pytest.mark.parametrize("decision", ["refused"], indirect=True)
def test_refusal_says_the_share_s_numbers_and_a_wait_that_is_true(decision):
    assert "limit 33 tokens per 60 s, used 20, requested 20" in refusal_message(decision)
    assert refusal_body(decision, 429, "req_1", "hybrid")["error"]["limit"]["limit"] == 33
    # 7 tokens are missing, and 33 come back in 60 s.
    assert dict(refusal_headers(decision, "req_1"))["Retry-After"] == "13"
