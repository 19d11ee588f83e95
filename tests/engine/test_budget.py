"""A budget tells what is spent from what is reserved; and beside it is credit, in grants that end."""

from dataclasses import replace

import pytest
from payer import Payer

from flask_ailimit.engine import Charge, ConfigurationError, Quota, StoreError
from flask_ailimit.engine.algorithms import budget
from flask_ailimit.engine.grant import Grant
from flask_ailimit.engine.quota import LATEST_SECOND
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.engine.stores.share import Share, ShareStore
from flask_ailimit.http.responses import refusal_body, refusal_status
from flask_ailimit.testing import START_US, ManualClock

NOW = START_US // 10**6
MONTH = Quota(100, 1, "nano_usd", "budget", every="month")
BALANCE = Quota(100, 1, "nano_usd", "budget", every="ever")
CREDIT_ONLY = Quota(0, 1, "nano_usd", "budget", every="month")
SLOT = 300
WEEK = 7 * 86_400


def grant(id_, amount, ends=LATEST_SECOND, begins=0):
    return Grant(id_, amount, begins, ends)


def with_credit(quota, *grants):
    return Payer(replace(quota, credit=grants))


def left_of(payer, *grants):
    """What is left of each of some grants, for a payer who owes nothing."""
    budget_of = payer.quota
    left = []
    for each in grants:
        payer.quota = replace(budget_of, credit=(each,))
        left.append(payer.spending.credit)
    payer.quota = budget_of
    return left


# Spent and reserved


def test_what_is_reserved_is_not_spent_until_it_is_settled():
    payer = Payer(MONTH)
    first, second = payer.reserve(30), payer.reserve(20)
    assert payer.spending[:2] == (0, 50)
    payer.end(first, 10)
    assert payer.spending[:2] == (10, 20)
    second.settle({})
    assert payer.spending[:2] == (30, 0)


def test_charge_that_only_asks_is_told_what_those_before_it_in_its_decision_reserve():
    store = MemoryStore(ManualClock())
    taken = Charge(bytes(16), MONTH, 30)
    asking = taken._replace(cost=0, dry=True)
    first, second = store.reserve([taken, asking], 1).verdicts
    assert first[2:] == second[2:]
    assert second.spending.reserved == 30


def test_what_is_reserved_near_the_end_is_an_ordinary_wait_and_what_is_spent_is_not():
    payer = Payer(MONTH)
    payer.use(70)
    others = payer.reserve(30)
    refused = payer.reserve(20).decision
    assert (refused.retry_after, refused.verdicts[0].is_spent, refused.possible) == (5, False, True)
    payer.end(others, 30)
    refused = payer.reserve(20).decision
    verdict = refused.verdicts[0]
    assert (verdict.is_spent, refused.possible) == (True, True)
    assert refused.retry_after_us == verdict.spending.ends_us - payer.clock()


def test_what_is_larger_than_everything_is_neither_spent_nor_to_be_waited_for():
    payer = with_credit(MONTH, grant(1, 50))
    payer.use(130)
    refused = payer.reserve(151).decision
    assert (refused.verdicts[0].is_spent, refused.retry_after, refused.possible) == (False, None, False)
    assert payer.reserve(150).decision.verdicts[0].is_spent


@pytest.mark.parametrize("is_first", [True, False])
def test_refusal_is_about_what_can_never_fit_also_beside_a_balance_that_is_spent(is_first):
    payer = Payer(BALANCE)
    payer.use(95)
    charges = [Charge(payer.subject, BALANCE, 10), Charge(payer.subject, Quota(5, 60, "tokens"), 10)]
    refused = payer.engine.peek(charges if is_first else charges[::-1])
    assert [verdict.quota.unit for verdict in refused.refused] == ["tokens", BALANCE.unit]
    assert (refused.possible, refusal_status(refused)) == (False, 413)
    assert "insufficient_quota" not in str(refusal_body(refused, 413, "req_1"))


@pytest.mark.parametrize("quota", [MONTH, BALANCE], ids=["month", "balance"])
def test_budget_is_spent_for_who_must_leave_a_part_to_others(quota):
    payer = Payer(quota)
    payer.use(45)

    def refused(cost, floor):
        return payer.engine.peek([Charge(payer.subject, quota, cost, floor=floor)])

    assert refused(5, 50).allowed
    assert refused(6, 50).verdicts[0].is_spent
    assert refused(6, 50).possible
    assert refused(56, 10).verdicts[0].is_spent
    assert not refused(101, 50).possible
    others = payer.reserve(20)
    assert (refused(5, 50).verdicts[0].is_spent, refused(5, 50).retry_after) == (False, 5)
    payer.end(others, 0)
    assert refused(5, 50).allowed


def test_budget_is_spent_though_a_part_is_left_that_is_too_small():
    payer = Payer(MONTH)
    payer.use(95)
    assert payer.ask(6).is_spent
    assert not payer.ask(5).is_spent
    assert payer.reserve(5).allowed


def test_worker_that_dies_leaves_what_it_reserved_charged_and_that_counts_as_spent_after_five_to_ten_minutes():
    for seconds_into_slot in (0, 1, 299):
        payer = Payer(MONTH)
        payer.clock.advance(seconds_into_slot)
        payer.reserve(80)  # Nobody settles it.
        assert payer.spending[:2] == (0, 80)
        payer.clock.advance(2 * SLOT - seconds_into_slot - 0.000001)
        assert payer.spending[:2] == (0, 80)
        assert (payer.ask(30).is_spent, payer.ask(30).retry_after) == (False, 5)
        payer.clock.advance(0.000001)
        assert payer.spending[:2] == (80, 0)
        assert payer.ask(30).is_spent
        assert payer.left == 20


def test_call_that_takes_longer_than_ten_minutes_gets_its_refund_all_the_same():
    payer = with_credit(MONTH, grant(1, 50))
    long = payer.reserve(120)
    payer.clock.advance(4 * SLOT)
    assert payer.spending[:4] == (100, 0, 30, 0)
    payer.use(10)
    payer.end(long, 60)
    assert payer.spending[:4] == (60, 0, 40, 0)


def test_what_is_reserved_is_known_as_such_also_after_the_clock_went_back():
    payer = Payer(BALANCE)
    payer.clock.advance(SLOT + 0.5)
    dead, slow = payer.reserve(10), payer.reserve(20)
    payer.clock.advance(-1)
    back = payer.reserve(30)
    assert payer.spending[:2] == (0, 60)
    payer.clock.advance(1)
    payer.end(slow, 20)
    payer.end(back, 30)
    assert dead.allowed
    assert payer.spending[:2] == (50, 10)
    payer.clock.advance(-1_000_000)
    assert payer.reserve(1).allowed
    payer.clock.advance(2 * SLOT)
    assert payer.spending[:2] == (61, 0)


# Credit


def test_budget_is_used_first_and_then_the_credit_that_ends_soonest():
    late, soon, sooner = grant(1, 50), grant(2, 30, NOW + WEEK), grant(3, 10, NOW + WEEK)
    payer = with_credit(MONTH, late, sooner, soon)
    payer.use(95)
    assert left_of(payer, soon, sooner, late) == [30, 10, 50]
    payer.use(25)
    assert left_of(payer, soon, sooner, late) == [10, 10, 50]
    payer.use(25)
    assert left_of(payer, soon, sooner, late) == [0, 0, 45]
    assert payer.left == 45


def test_refund_returns_to_the_grants_it_came_from_and_then_to_the_budget():
    soon, late = grant(1, 30, NOW + WEEK), grant(2, 50)
    payer = with_credit(MONTH, soon, late)
    payer.use(60)
    reservation = payer.reserve(100)  # 40 of the budget, 30 and 30.
    assert payer.spending[:4] == (60, 40, 20, 60)
    assert left_of(payer, soon, late) == [0, 20]
    payer.end(reservation, 55)
    assert left_of(payer, soon, late) == [15, 50]
    again = payer.reserve(65)
    payer.end(again, 10)
    assert left_of(payer, soon, late) == [5, 50]
    payer.quota = replace(MONTH, credit=(late,))
    assert payer.spending[:4] == (100, 0, 50, 0)


def test_refund_to_a_grant_that_has_ended_is_lost():
    soon, late = grant(1, 30, NOW + 60), grant(2, 50)
    payer = with_credit(CREDIT_ONLY, soon, late)
    reservation = payer.reserve(40)
    payer.clock.advance(60)
    payer.end(reservation, 5)
    assert payer.spending[2:4] == (50, 0)


def test_grant_counts_from_its_beginning_to_its_end_and_its_beginning_is_waited_for():
    payer = with_credit(CREDIT_ONLY, grant(1, 30, NOW + 200, begins=NOW + 100))
    assert (payer.left, payer.ask(10).retry_after) == (0, 100)
    payer.clock.advance(100)
    payer.use(10)
    assert payer.left == 20
    payer.clock.advance(99.999999)
    assert payer.left == 20
    payer.clock.advance(0.000001)
    assert payer.left == 0


def test_credit_outlives_the_windows_of_the_budget():
    payer = with_credit(MONTH, grant(1, 50))
    payer.use(130)
    payer.clock.set(payer.spending.ends_us)
    assert payer.spending[:4] == (0, 0, 20, 0)
    assert payer.left == 120


def test_grant_whose_end_is_moved_is_not_burnt_again():
    payer = with_credit(CREDIT_ONLY, grant(1, 50, NOW + 100))
    payer.use(50)
    payer.quota = replace(CREDIT_ONLY, credit=(grant(1, 50, NOW + WEEK),))
    assert not payer.reserve(1).allowed
    payer.clock.advance(101)
    assert (payer.left, payer.ask(1).is_spent) == (0, True)


def test_grant_that_is_raised_adds_what_it_was_raised_by():
    payer = with_credit(CREDIT_ONLY, grant(1, 50))
    payer.use(50)
    for amount, left in ((80, 30), (20, 0), (60, 10)):
        payer.quota = replace(CREDIT_ONLY, credit=(grant(1, amount),))
        assert payer.left == left


def test_balance_goes_below_zero_only_by_what_was_used_beyond_a_reservation_and_the_next_grant_pays_it():
    payer = with_credit(CREDIT_ONLY, grant(1, 50))
    reservation = payer.reserve(50)
    assert not payer.reserve(1).allowed
    payer.end(reservation, 70)
    assert payer.spending.credit == -20
    assert not payer.reserve(0).allowed
    assert payer.ask(1).is_spent
    payer.quota = replace(CREDIT_ONLY, credit=(grant(1, 50), grant(2, 15)))
    assert payer.spending.credit == -5
    payer.quota = replace(CREDIT_ONLY, credit=(grant(1, 50), grant(2, 15), grant(3, 15)))
    assert (payer.spending.credit, payer.left) == (10, 10)
    payer.use(10)
    assert payer.spending.credit == 0


def test_grant_that_paid_has_paid_though_every_call_was_refused_until_its_end():
    payer = with_credit(CREDIT_ONLY, grant(1, 50))
    payer.use(70, reserved=50)
    payer.quota = replace(CREDIT_ONLY, credit=(grant(2, 15, NOW + 60),))
    assert not payer.reserve(1).allowed
    payer.clock.advance(60)
    payer.quota = replace(CREDIT_ONLY, credit=(grant(3, 10),))
    assert payer.spending.credit == 5


def test_next_month_pays_no_debt_of_the_credit():
    payer = with_credit(MONTH, grant(1, 50))
    payer.use(170, reserved=150)
    payer.clock.set(payer.spending.ends_us)
    assert (payer.left, payer.spending.credit) == (100, -20)


def test_without_credit_nothing_is_owed_in_the_next_month():
    payer = Payer(MONTH)
    payer.use(170, reserved=100)
    assert payer.spending[:3] == (170, 0, 0)
    payer.clock.set(payer.spending.ends_us)
    assert payer.spending[:3] == (0, 0, 0)


def test_limit_of_0_with_credit_allows_what_the_credit_does():
    payer = with_credit(CREDIT_ONLY, grant(1, 50))
    payer.use(30)
    assert (payer.left, payer.ask(21).is_spent, payer.ask(51).is_spent) == (20, True, False)
    payer.use(20)
    assert payer.ask(1).is_spent
    assert Payer(CREDIT_ONLY).ask(1).is_spent


def test_calls_in_flight_that_use_credit_have_an_end():
    """Each is an entry in the payer's record. Those above it wait for others."""
    payer = with_credit(CREDIT_ONLY, grant(1, 10**6))
    taken = [payer.reserve(1) for _ in range(budget.MOST_ENTRIES)]
    allowed = [reservation for reservation in taken if reservation.allowed]
    assert len(allowed) > budget.MOST_ENTRIES - 5
    refused = payer.reserve(1).decision
    assert (refused.allowed, refused.retry_after, refused.verdicts[0].is_spent) == (False, 5, False)
    payer.end(allowed[0], 1)
    assert payer.reserve(1).allowed


# Balances


def test_balance_never_ends():
    payer = Payer(BALANCE)
    payer.use(60)
    payer.clock.advance(30 * 366 * 86_400)
    assert payer.left == 40
    refused = payer.reserve(41).decision.verdicts[0]
    assert (refused.is_spent, refused.retry_after) == (True, None)
    payer.quota = replace(BALANCE, limit=150, burst=None)
    assert payer.left == 90


def test_balance_below_zero_is_paid_by_what_is_added_and_by_what_comes_back():
    payer = Payer(BALANCE)
    slow = payer.reserve(50)
    payer.use(70, reserved=50)
    assert (payer.left, payer.spending.credit) == (0, -20)
    assert not payer.reserve(0).allowed
    payer.quota = replace(BALANCE, limit=115, burst=None)
    assert (payer.left, payer.spending.credit) == (0, -5)
    payer.end(slow, 30)
    assert (payer.left, payer.spending.credit) == (15, 0)


# Elsewhere


def test_credit_is_no_part_of_a_machines_share_while_the_store_is_away():
    store = ShareStore(MemoryStore(), lambda: Share(0, 4))
    quota = replace(MONTH, credit=(grant(1, 10**6),))
    charges = [
        Charge(bytes(16), each, cost) for each in (quota, replace(quota, limit=0, burst=None)) for cost in (26, 101)
    ]
    for charge in charges:
        with pytest.raises(StoreError, match="share of this machine"):
            store.reserve([charge], 1)
    assert [store.reserve([charges[0]._replace(cost=5)], lease).allowed for lease in range(6)] == [True] * 5 + [False]


def test_budgets_that_differ_in_credit_alone_have_other_hashes():
    hashes = {hash(replace(MONTH, credit=(grant(id_, 50),))) for id_ in range(1, 101)}
    assert len(hashes) > 90


@pytest.mark.parametrize("algorithm", ["fixed-window", "window"])
def test_credit_beside_another_algorithm_is_refused(algorithm):
    with pytest.raises(ConfigurationError, match="credit: only a 'budget' has it"):
        Quota(10, 60, "tokens", algorithm, credit=(grant(1, 5),))


def test_payer_has_so_many_grants_at_once():
    with pytest.raises(ConfigurationError, match="credit: at most 64 grants"):
        replace(MONTH, credit=tuple(grant(id_, 5) for id_ in range(1, 66)))
