"""The retries that all workers have together: on a virtual clock, and in several processes on one local store."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit.engine import Charge, Engine, Quota, StoreError, open_store
from flask_ailimit.testing import SECRET, ManualClock
from flask_ailimit.upstream.retry_budget import RetryBudget

CALLS = Quota(10**6, 60)


class Upstream:
    """What makes calls: an engine over one store, whose calls to it are counted."""

    def __init__(self, clock):
        self.engine = Engine(open_store("memory://", name="a", clock=clock, options={}), secret=SECRET)
        self.account = self.engine.subject("account")
        self.settled = 0
        self.reserved = 0
        store = self.engine.store
        self._reserve, self._settle = store.reserve, store.settle
        store.reserve, store.settle = self.reserve, self.settle

    def budget(self):
        return RetryBudget(self.engine, self.account)

    def reserve(self, *arguments):
        self.reserved += 1
        return self._reserve(*arguments)

    def settle(self, *arguments):
        self.settled += 1
        return self._settle(*arguments)

    def first_attempt(self, budget):
        """A call: one store call to reserve, and one to settle it with what was earned."""
        reservation = self.engine.reserve([Charge(self.account, CALLS, 2)])
        settlements = [*reservation.settlements(lambda _: 1), *budget.earned(reservation)]
        reservation.begin_to_end()
        reservation.store.settle(settlements)
        reservation.released()


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def upstream(clock):
    return Upstream(clock)


def retries(budget, most=1000):
    return next((i for i in range(most) if not budget.may_retry()), most)


def test_quiet_app_has_a_store_of_fifty_and_ten_a_minute(upstream, clock):
    budget = upstream.budget()
    assert retries(budget) == 50
    for _ in range(3):
        clock.advance(60)
        assert retries(budget) == 10
    clock.advance(3600)
    assert retries(budget) == 50


def test_ten_first_attempts_earn_a_retry(upstream):
    budget = upstream.budget()
    retries(budget)
    for _ in range(99):
        upstream.first_attempt(budget)
    assert retries(budget) == 9
    upstream.first_attempt(budget)
    assert retries(budget) == 1


def test_full_budget_earns_nothing(upstream):
    budget = upstream.budget()
    for _ in range(100):
        upstream.first_attempt(budget)
    assert retries(budget) == 50


def test_good_calls_make_no_store_call_for_the_budget(upstream):
    budget = upstream.budget()
    for _ in range(100):
        upstream.first_attempt(budget)
    assert (upstream.reserved, upstream.settled) == (100, 100)
    budget.may_retry()
    assert (upstream.reserved, upstream.settled) == (101, 100)


def test_budgets_of_an_account_share_one_count_and_other_accounts_have_their_own(upstream):
    first, second = upstream.budget(), upstream.budget()
    assert [first.may_retry() and second.may_retry() for _ in range(25)] == [True] * 25
    assert not first.may_retry()
    other = RetryBudget(upstream.engine, upstream.engine.subject("another"))
    assert other.may_retry()


def test_what_is_earned_while_others_retry_is_theirs_too(upstream):
    """The attempt began before the budget was used up, and is settled afterwards."""
    budget = upstream.budget()
    retries(budget, 30)
    reservation = upstream.engine.reserve([Charge(upstream.account, CALLS, 2)])
    assert retries(budget) == 20
    for _ in range(9):
        assert not budget.earned(reservation)
    upstream.engine.store.settle([*budget.earned(reservation)])
    assert retries(budget) == 1


def test_without_a_store_there_are_no_retries(upstream):
    def away(*arguments):
        raise StoreError("away")

    budget = upstream.budget()
    upstream.engine.store.reserve = away
    assert not budget.may_retry()


@given(st.lists(st.sampled_from(["first", "fails", "rest"]), max_size=200), st.integers(1, 4))
def test_retries_are_never_more_than_the_store_the_floor_and_a_tenth_of_the_traffic(events, workers):
    clock = ManualClock()
    upstream = Upstream(clock)
    budgets = [upstream.budget() for _ in range(workers)]
    firsts = retried = elapsed = 0
    retries(budgets[0], 48)
    retried = 48
    for place, event in enumerate(events):
        budget = budgets[place % workers]
        if event == "rest":
            clock.advance(1)
            elapsed += 1
        else:
            firsts += 1
            upstream.first_attempt(budget)
            if event == "fails":
                retried += budget.may_retry()
    assert retried <= 50 + 10 * elapsed / 60 + firsts / 10


WORKER = """
import sys
from flask_ailimit.engine import Charge, Engine, Quota, open_store
from flask_ailimit.testing import ManualClock
from flask_ailimit.upstream.retry_budget import RetryBudget

engine = Engine(open_store(sys.argv[1], name="a", clock=ManualClock(), options={}))
account = engine.subject("account")
budget = RetryBudget(engine, account)
print("ready", flush=True)
sys.stdin.readline()
print(sum(budget.may_retry() for _ in range(40)), flush=True)
sys.stdin.readline()
for _ in range(50):
    reservation = engine.reserve([Charge(account, Quota(10**6, 60), 1)])
    earned = budget.earned(reservation)
    reservation.settle({})
    if earned:
        engine.store.settle(earned)
print("earned", flush=True)
sys.stdin.readline()
print(sum(budget.may_retry() for _ in range(40)), flush=True)
engine.close()
"""


def test_workers_share_one_budget(tmp_path):
    """Four processes on one local store, whose clock stands still."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, f"local://{tmp_path}/limits"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": ":".join(filter(None, sys.path))},
        )
        for _ in range(4)
    ]

    def all_say():
        return [worker.stdout.readline().strip() for worker in workers]

    def go():
        for worker in workers:
            worker.stdin.write("\n")
            worker.stdin.flush()

    assert all_say() == ["ready"] * 4
    go()
    assert sum(map(int, all_say())) == 50
    go()
    assert all_say() == ["earned"] * 4
    go()
    assert sum(map(int, all_say())) == 20
    for worker in workers:
        worker.communicate()
        assert worker.returncode == 0
