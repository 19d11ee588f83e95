"""For tests: a clock that a test moves, a provider that fails to order, and the tests that every store must pass.

Needs pytest. For readable failures, put ``pytest.register_assert_rewrite("flask_ailimit.testing")`` in your
``conftest.py``.
"""
# ruff: noqa: D102, PLR2004, S101  a test's name says what it tests, and tests assert literals

from collections.abc import Callable, Sequence
from itertools import count
from threading import Thread
from types import SimpleNamespace

import pytest

from .engine import ALGORITHMS, Charge, Decision, Engine, HandOverError, Quota, Settlement, Store
from .engine import clock as engine_clock
from .engine.algorithms.gate import CLOSED, FAULT, GOOD, NEUTRAL, OPEN, PAUSED, Outcome, packed, standing_of
from .engine.clock import MICROSECONDS
from .engine.decide import MOST_COUNTS
from .engine.decision import Settled
from .engine.quota import CONCURRENCY, GATE, MAX_EXACT, PROVIDER_BUCKET, TOKENS, TURNS
from .engine.stores.base import KeepsChanges
from .fake_provider import HOSTILE_HEADERS, Call, FakeProvider, Fault

__all__ = [
    "HOSTILE_HEADERS",
    "START_US",
    "Advance",
    "Call",
    "FakeProvider",
    "Fault",
    "ManualClock",
    "StoreContract",
    "limits_clock",
]

START_US = 20_000 * 86400 * MICROSECONDS
"""2024-10-04, midnight UTC: a window of every period that divides a day begins here."""

Advance = Callable[[int], None]
"""Moves a store's time by this many microseconds."""


class ManualClock:
    """A clock that stands still until it is moved. Pass it as a :data:`~flask_ailimit.engine.Clock`.

    Example:
        >>> clock = ManualClock()
        >>> start = clock()
        >>> clock.advance(1.5)
        >>> clock() - start
        1500000
    """

    def __init__(self, start_us: int = START_US) -> None:
        self.now_us = start_us

    def __call__(self) -> int:
        """Return the microseconds since the epoch."""
        return self.now_us

    def advance(self, seconds: float) -> None:
        """Move by this many seconds, rounded to microseconds. A negative number moves the clock back."""
        self.now_us += round(seconds * MICROSECONDS)

    def advance_us(self, microseconds: int) -> None:
        """Move by this many microseconds."""
        self.now_us += microseconds

    def set(self, now_us: int) -> None:
        """Move to this number of microseconds since the epoch."""
        self.now_us = now_us


@pytest.fixture
def limits_clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """A pytest fixture: the time of every limiter of this process stands still until the test moves it.

    It begins at :data:`START_US`. A store with its own clock (Redis) is not stopped. Import the fixture into
    ``conftest.py``, or into the test's file.

    Example::

        from flask_ailimit.testing import limits_clock


        def test_next_minute_is_a_new_one(client, limits_clock):
            while client.get("/").status_code == 200:
                pass
            limits_clock.advance(60)
            assert client.get("/").status_code == 200
    """
    stopped = ManualClock()
    machine_s = vars(engine_clock)["time"]
    monkeypatch.setattr(
        engine_clock, "time", SimpleNamespace(**vars(machine_s) | {"time_ns": lambda: stopped() * 1000})
    )
    return stopped


ALICE = b"alice".ljust(16, b"\0")
BOB = b"bob".ljust(16, b"\0")
MINUTE = 60 * MICROSECONDS
SECRET = b"of all engines here"

_leases = count(1)


def charge(cost: int = 1, *, subject: bytes = ALICE, limit: int = 10, algorithm: str = "token-bucket") -> Charge:
    """A charge to a limit of ``limit`` per minute; with the algorithm ``concurrency``, of ``limit`` in flight."""
    unit = CONCURRENCY if algorithm == "concurrency" else TOKENS
    return Charge(subject, Quota(limit, 60, unit, algorithm), cost)


def reserve(store: Store, *charges: Charge) -> Decision:
    """Decide with a new lease."""
    return store.reserve(charges, next(_leases))


def settle(store: Store, taken: Decision, *actual: int, lease: int = 0) -> int:
    """Settle each charge of a decision with its actual cost. Answers how many counts were unknown."""
    return _settled(store, taken, *actual, lease=lease).unknown


def _settled(store: Store, taken: Decision, *actual: int, lease: int = 0) -> Settled:
    return store.settle(
        [Settlement(v.charge, taken.at_us, a, lease) for v, a in zip(taken.verdicts, actual, strict=True)]
    )


def soft(cost: int = 1, algorithm: str = "token-bucket", *, subject: bytes = ALICE) -> Charge:
    """A charge to a limit of 10 per minute, of which is told from 80 percent on."""
    return Charge(subject, Quota(10, 60, TOKENS, algorithm, soft_percent=80), cost)


def passed(store: Store, taken: Decision, *actual: int) -> list[tuple[bytes, int, int]]:
    """Settle a decision. Of each count that passed its soft percent by it: the subject, what is used, what is left."""
    told = _settled(store, taken, *actual, lease=next(_leases)).passed
    return [(verdict.charge.subject, verdict.used, verdict.remaining) for verdict in told]


def remaining(store: Store, *charges: Charge) -> list[int]:
    """What is left of each charge's count."""
    return [verdict.remaining for verdict in store.peek([c.costing(0) for c in charges]).verdicts]


COUNTING = sorted(set(ALGORITHMS) - {GATE, TURNS})
"""The algorithms that count units. Of the other two, one opens and closes, and one is a line: they are tested apart."""

every_algorithm = pytest.mark.parametrize("algorithm", COUNTING)


class StoreContract:
    """The tests that every store must pass. Subclass it in a test file, and open your store in a fixture.

    The store's time must stand still unless ``advance`` moves it. A store with its own clock (a database server) needs
    a hook for tests that replaces this clock by a :class:`ManualClock`.

    Example::

        class TestMyStore(StoreContract):
            @pytest.fixture
            def store_and_advance(self):
                clock = ManualClock()
                store = MyStore(clock)
                yield store, clock.advance_us
                store.close()
    """

    @pytest.fixture
    def store_and_advance(self) -> tuple[Store, Advance]:
        """Override this: return an empty store, and a function that moves its time by microseconds."""
        raise NotImplementedError

    def count_records(self, store: Store) -> int:
        """Override this if your store can count the subjects that it keeps."""
        pytest.skip(f"{type(store).__name__} doesn't tell how many records it keeps")

    @pytest.fixture
    def store(self, store_and_advance: tuple[Store, Advance]) -> Store:
        return store_and_advance[0]

    @pytest.fixture
    def advance(self, store_and_advance: tuple[Store, Advance]) -> Advance:
        """Move to the beginning of a minute, where the tests' windows begin. Returns the function that moves time."""
        store, advance = store_and_advance
        advance(-store.peek([]).at_us % MINUTE)
        return advance

    # A decision

    def test_allowed_decision_takes_every_charge(self, store: Store) -> None:
        charges = [charge(3), charge(4, subject=BOB), charge(1, algorithm="concurrency")]
        assert reserve(store, *charges).allowed
        assert remaining(store, *charges) == [7, 6, 9]

    @pytest.mark.parametrize("refusing", range(4))
    def test_refused_decision_takes_nothing_from_anybody(self, store: Store, refusing: int) -> None:
        charges = [
            charge(2),
            charge(2, algorithm="fixed-window"),
            charge(2, subject=BOB),
            charge(2, subject=BOB, algorithm="moving-window"),
        ]
        reserve(store, *charges)
        before = remaining(store, *charges)
        asked = [c.costing(9 if i == refusing else 1) for i, c in enumerate(charges)]
        decision = reserve(store, *asked)
        assert [v.allowed for v in decision.verdicts] == [i != refusing for i in range(4)]
        assert [v.remaining for v in decision.verdicts] == before
        assert remaining(store, *charges) == before

    def test_decision_of_no_charges_is_allowed(self, store: Store) -> None:
        assert reserve(store).allowed

    def test_decision_says_the_stores_time(self, store: Store, advance: Advance) -> None:
        before = reserve(store, charge()).at_us
        advance(1_500_000)
        assert reserve(store, charge()).at_us == before + 1_500_000

    def test_charges_of_one_decision_that_share_a_count_see_each_other(self, store: Store, advance: Advance) -> None:
        assert [v.remaining for v in reserve(store, charge(4), charge(5)).verdicts] == [6, 1]
        advance(MINUTE)
        both = reserve(store, charge(6), charge(5))
        assert [(v.allowed, v.remaining, v.retry_after_us) for v in both.verdicts] == [(True, 10, 0), (False, 10, None)]
        assert remaining(store, charge()) == [10]

    def test_dry_charge_takes_part_and_takes_nothing(self, store: Store) -> None:
        dry = charge(8)._replace(dry=True)
        assert reserve(store, dry, charge(1, subject=BOB)).allowed
        assert remaining(store, charge(), charge(subject=BOB)) == [10, 9]
        reserve(store, charge(3))
        assert not reserve(store, dry, charge(1, subject=BOB)).allowed
        assert remaining(store, charge(), charge(subject=BOB)) == [7, 9]

    @every_algorithm
    def test_shadow_charge_that_does_not_fit_refuses_nobody_and_takes_nothing(
        self, store: Store, algorithm: str
    ) -> None:
        enforced, tried = charge(1, algorithm=algorithm), charge(1, limit=2, algorithm=algorithm, subject=BOB)
        shadow = tried._replace(shadow=True)
        decisions = [reserve(store, enforced, shadow) for _ in range(3)]
        assert [decision.allowed for decision in decisions] == [True, True, True]
        assert [bool(decision.would_refuse) for decision in decisions] == [False, False, True]
        assert [len(decision.taken) for decision in decisions] == [2, 2, 1]
        assert remaining(store, enforced, shadow) == [7, 0]
        assert not reserve(store, tried).allowed

    @every_algorithm
    def test_charge_with_a_floor_leaves_it_to_others(self, store: Store, algorithm: str) -> None:
        low, high = charge(1, algorithm=algorithm)._replace(floor=8), charge(1, algorithm=algorithm)
        decisions = [reserve(store, low) for _ in range(3)]
        assert [decision.allowed for decision in decisions] == [True, True, False]
        assert [decision.verdicts[0].remaining for decision in decisions] == [1, 0, 0]
        assert [reserve(store, high).allowed for _ in range(9)] == [True] * 8 + [False]

    @pytest.mark.parametrize(
        ("algorithm", "reset_after", "retry_after"),
        [
            ("budget", 48, 5),  # The 3 are only reserved. Nobody knows for how long.
            ("concurrency", 60, 1),
            ("fixed-window", 48, 48),
            ("moving-window", 60, 60),
            ("sliding-window-counter", 108, 48 + 20),  # After 20 s of the next window, a third of the 3 has left.
            ("token-bucket", 18, 6),
            ("window", 48, 48),
        ],
    )
    def test_verdict_says_what_is_left_and_how_long_to_wait(
        self, store: Store, advance: Advance, algorithm: str, reset_after: float, retry_after: float
    ) -> None:
        advance(12 * MICROSECONDS)
        taken = reserve(store, charge(3, algorithm=algorithm)).verdicts[0]
        assert (taken.allowed, taken.limit, taken.remaining, taken.reset_after, taken.retry_after) == (
            *(True, 10, 7, reset_after),
            0,
        )
        refused = reserve(store, charge(8, algorithm=algorithm)).verdicts[0]
        assert (refused.allowed, refused.remaining, refused.reset_after, refused.retry_after) == (
            *(False, 7, reset_after),
            retry_after,
        )
        never = reserve(store, charge(11, algorithm=algorithm)).verdicts[0]
        assert (never.allowed, never.remaining, never.retry_after) == (False, 7, None)

    @every_algorithm
    def test_limit_is_granted_exactly_and_given_anew_when_promised(
        self, store: Store, advance: Advance, algorithm: str
    ) -> None:
        one = charge(1, algorithm=algorithm)
        decisions = [reserve(store, one) for _ in range(12)]
        assert [decision.allowed for decision in decisions] == [True] * 10 + [False] * 2
        if algorithm == "budget":
            for taken in decisions[:10]:  # How long others hold what they have reserved is only a guess.
                settle(store, taken, 1, lease=next(_leases))
        wait = reserve(store, one).retry_after_us
        assert wait
        if algorithm == "concurrency":
            wait = MINUTE  # Its wait is only a guess. The slots are free when the leases end.
        advance(wait - 1)
        assert not reserve(store, one).allowed
        advance(1)
        assert reserve(store, one).allowed

    @every_algorithm
    def test_cost_of_nothing_fits_also_when_nothing_is_left(self, store: Store, algorithm: str) -> None:
        reserve(store, charge(10, algorithm=algorithm))
        assert reserve(store, charge(0, algorithm=algorithm)).allowed

    @pytest.mark.parametrize("algorithm", sorted(set(COUNTING) - {"concurrency", "sliding-window-counter"}))
    def test_largest_numbers_are_counted_exactly(self, store: Store, algorithm: str) -> None:
        limit = MAX_EXACT // 60 * 60
        assert not reserve(store, charge(MAX_EXACT, limit=limit, algorithm=algorithm)).possible
        assert remaining(store, charge(limit=limit, algorithm=algorithm)) == [limit]
        assert reserve(store, charge(limit - 1, limit=limit, algorithm=algorithm)).allowed
        assert remaining(store, charge(limit=limit, algorithm=algorithm)) == [1]
        assert not reserve(store, charge(2, limit=limit, algorithm=algorithm)).allowed

    @every_algorithm
    def test_parallel_callers_get_the_limit_and_not_one_more(self, store: Store, algorithm: str) -> None:
        allowed: list[bool] = []

        def take() -> None:
            allowed.extend(reserve(store, charge(1, limit=50, algorithm=algorithm)).allowed for _ in range(20))

        threads = [Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(allowed), sum(allowed)) == (160, 50)

    # Its settlement

    @pytest.mark.parametrize("algorithm", sorted(set(COUNTING) - {"concurrency"}))
    @pytest.mark.parametrize(("actual", "left"), [(0, 8), (3, 5), (6, 2), (8, 0), (10, 0), (MAX_EXACT, 0)])
    def test_settling_makes_the_count_what_was_really_used(
        self, store: Store, algorithm: str, actual: int, left: int
    ) -> None:
        reserve(store, charge(2, algorithm=algorithm))
        taken = reserve(store, charge(6, algorithm=algorithm))
        assert settle(store, taken, actual) == 0
        assert remaining(store, charge(algorithm=algorithm)) == [left]

    def test_what_was_used_too_much_is_debt(self, store: Store, advance: Advance) -> None:
        settle(store, reserve(store, charge(10)), 25)
        refused = reserve(store, charge(1))
        assert (refused.allowed, refused.retry_after) == (False, 96)
        advance(96 * MICROSECONDS)
        assert reserve(store, charge(1)).allowed

    @pytest.mark.parametrize(
        ("algorithm", "wait"),
        [
            ("budget", 60),
            ("fixed-window", 180),
            ("moving-window", 180),
            ("sliding-window-counter", 210),
            ("token-bucket", 150),
            ("window", 60),
        ],
    )
    def test_count_in_debt_refuses_at_any_cost_until_it_is_paid(
        self, store: Store, advance: Advance, algorithm: str, wait: int
    ) -> None:
        advance(0)
        settle(store, reserve(store, charge(10, algorithm=algorithm)), 35)
        nothing = charge(0, algorithm=algorithm)
        for refused in (store.peek([nothing]), reserve(store, nothing)):
            assert (refused.allowed, refused.retry_after, refused.verdicts[0].remaining) == (False, wait, 0)
        advance(wait * MICROSECONDS - 1)
        assert not reserve(store, nothing).allowed
        advance(1)
        assert reserve(store, nothing).allowed

    @pytest.mark.parametrize("algorithm", sorted(set(COUNTING) - {"concurrency"}))
    @pytest.mark.parametrize("periods", [0, 1, 4])
    def test_no_more_is_owed_than_the_quotas_periods(
        self, store: Store, advance: Advance, algorithm: str, periods: int
    ) -> None:
        advance(0)
        taken = charge(10, algorithm=algorithm)
        taken = taken._replace(quota=taken.quota.owing(periods))
        settle(store, reserve(store, taken), MAX_EXACT)
        fades = 1 if algorithm == "sliding-window-counter" else 0
        owed = 0 if algorithm in ("budget", "window") else periods  # What these lend, no later window pays.
        assert store.peek([taken]).verdicts[0].reset_after == 60 * (1 + owed + fades)

    @pytest.mark.parametrize("algorithm", sorted(set(COUNTING) - {"concurrency"}))
    def test_forgiven_count_owes_nothing_and_others_stand(self, store: Store, algorithm: str) -> None:
        engine = Engine(store, secret=SECRET)
        owing, other, slot = (
            charge(10, algorithm=algorithm),
            charge(4, subject=BOB),
            charge(10, algorithm="concurrency"),
        )
        settle(store, reserve(store, owing, other, slot), 35, 4, 1)
        is_lifted = algorithm != "budget"  # What is spent of one is spent.
        assert engine.forgive([owing, other, slot, owing]) == is_lifted
        assert remaining(store, owing, other) == [10 * is_lifted, 6]
        assert engine.forgive([owing]) == 0

    def test_settling_a_count_that_is_gone_is_told_and_gives_no_credit(self, store: Store) -> None:
        taken = reserve(store, charge(4), charge(4, subject=BOB))
        store.reset(ALICE)
        assert settle(store, taken, 0, 0) == 1
        assert remaining(store, charge(), charge(subject=BOB)) == [10, 10]

    @pytest.mark.parametrize("algorithm", ["budget", "fixed-window", "moving-window", "token-bucket", "window"])
    def test_settling_late_gives_no_credit(self, store: Store, advance: Advance, algorithm: str) -> None:
        taken = reserve(store, charge(6, algorithm=algorithm))
        advance(MINUTE)
        reserve(store, charge(5, algorithm=algorithm))
        settle(store, taken, 0)
        assert remaining(store, charge(algorithm=algorithm)) == [5]

    def test_several_reservations_are_settled_in_one_step(self, store: Store) -> None:
        first, second = reserve(store, charge(5)), reserve(store, charge(5), charge(5, subject=BOB))
        store.settle([Settlement(v.charge, taken.at_us, 1, 0) for taken in (first, second) for v in taken.verdicts])
        assert remaining(store, charge(), charge(subject=BOB)) == [8, 9]

    # The soft percent

    @pytest.mark.parametrize("algorithm", sorted(set(COUNTING) - {"concurrency"}))
    def test_settlement_that_passes_the_soft_percent_is_told_once_in_a_window(
        self, store: Store, advance: Advance, algorithm: str
    ) -> None:
        advance(0)
        first, second = reserve(store, soft(4, algorithm)), reserve(store, soft(4, algorithm))
        assert passed(store, first, 3) == []
        assert passed(store, second, 5) == [(ALICE, 8, 2)]
        assert passed(store, reserve(store, soft(1, algorithm)), 1) == []
        advance(2 * MINUTE)
        assert passed(store, reserve(store, soft(9, algorithm)), 7) == []
        assert passed(store, reserve(store, soft(1, algorithm)), 1) == [(ALICE, 8, 2)]

    @pytest.mark.parametrize("algorithm", sorted(set(COUNTING) - {"concurrency"}))
    def test_count_that_was_told_of_falls_below_and_passes_again_in_silence(self, store: Store, algorithm: str) -> None:
        first = reserve(store, soft(9, algorithm))
        assert passed(store, reserve(store, soft(1, algorithm)), 1) == [(ALICE, 10, 0)]
        assert passed(store, first, 1) == []
        assert passed(store, reserve(store, soft(8, algorithm)), 8) == []

    def test_each_count_and_each_subject_is_told_of_for_itself(self, store: Store) -> None:
        charges = [soft(8), soft(8, "fixed-window"), soft(7, subject=BOB), soft(9, subject=BOB)._replace(scope="x")]
        told = passed(store, reserve(store, *charges), 9, 8, 7, 9)
        assert sorted(told) == [(ALICE, 8, 2), (ALICE, 9, 1), (BOB, 9, 1)]
        assert passed(store, reserve(store, soft(1, subject=BOB)), 1) == [(BOB, 8, 2)]

    def test_nothing_is_told_of_a_refund_to_nothing_or_without_a_soft_percent(self, store: Store) -> None:
        cancelled = reserve(store, soft(1))
        reserve(store, soft(8))
        assert passed(store, cancelled, 0) == []
        assert passed(store, reserve(store, charge(9, subject=BOB)), 10) == []
        assert passed(store, reserve(store, soft(1)), 1) == [(ALICE, 9, 1)]

    @pytest.mark.parametrize("algorithm", sorted(set(COUNTING) - {"concurrency"}))
    def test_settlement_that_corrects_nothing_is_answered_if_its_count_is_below(
        self, store: Store, algorithm: str
    ) -> None:
        first, second = reserve(store, soft(7, algorithm)), reserve(store, soft(1, algorithm))
        assert _settled(store, first, 6, lease=next(_leases)).below == ()
        settled = _settled(store, second, 1, lease=next(_leases))
        assert (settled.passed, settled.below) == ((), (soft(1, algorithm),))
        third = reserve(store, soft(1, algorithm))
        settled = _settled(store, third, 1, lease=next(_leases))
        assert ([verdict.used for verdict in settled.passed], settled.below) == ([8], ())
        assert _settled(store, third, 1, lease=next(_leases)) == Settled(0)

    @pytest.mark.parametrize("by", ["bucket", "subject", "forgiving"])
    def test_count_that_was_forgotten_is_told_of_again_and_its_notice_is_no_count(self, store: Store, by: str) -> None:
        engine = Engine(store, secret=SECRET)
        assert len(passed(store, reserve(store, soft(8)), 12)) == 1
        if by == "forgiving":
            assert engine.forgive([soft()]) == 1
        else:
            assert store.reset(ALICE, soft().bucket if by == "bucket" else None) in (1, None)
        assert len(passed(store, reserve(store, soft(8)), 8)) == 1

    def test_reservations_that_cost_what_was_reserved_are_told_of_by_the_first_that_ends(self, store: Store) -> None:
        engines = [Engine(store, secret=SECRET) for _ in range(3)]
        reservations = [engines[number % 3].reserve([soft(1)]) for number in range(10)]
        for reservation in reservations:
            reservation.settle({})
        assert [[verdict.used for verdict in each.passed] for each in reservations] == [*[[]] * 7, [10], [], []]

    def test_work_that_was_handed_over_is_told_of_by_who_ends_it(self, store: Store) -> None:
        engine = Engine(store, secret=SECRET)
        quota = soft().quota.told_as("plan", soft_percent=80)
        taken = engine.take_over(engine.hand_over([engine.reserve([soft(2)._replace(quota=quota)])], {}))
        assert taken.settle({TOKENS: 8})
        assert [(v.quota.name, v.used, v.quota.soft_percent) for v in taken.passed] == [("plan", 8, 80)]

    def test_parallel_settlements_are_told_of_once(self, store: Store) -> None:
        quota = Quota(100, 60, TOKENS, soft_percent=80)
        taken = [reserve(store, Charge(ALICE, quota, 1)) for _ in range(100)]
        told: list[object] = []

        def end(some: Sequence[Decision]) -> None:
            for decision in some:
                told.extend(passed(store, decision, 1))

        threads = [Thread(target=end, args=(taken[number::8],)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert told == [(ALICE, 100, 0)]

    # Leases

    def test_slot_is_held_until_it_is_settled(self, store: Store) -> None:
        slot = charge(1, limit=1, algorithm="concurrency")
        taken = store.reserve([slot], 77)
        assert not reserve(store, slot).allowed
        settle(store, taken, 1, lease=78)
        assert not reserve(store, slot).allowed
        settle(store, taken, 1, lease=77)
        assert reserve(store, slot).allowed

    def test_slot_of_nobody_comes_back_when_its_lease_ends(self, store: Store, advance: Advance) -> None:
        slot = charge(1, limit=1, algorithm="concurrency")
        reserve(store, slot)
        advance(MINUTE - 400_000)
        assert reserve(store, slot).retry_after_us == 400_000
        advance(400_000)
        assert reserve(store, slot).allowed

    def test_renewed_lease_runs_for_a_whole_period_more(self, store: Store, advance: Advance) -> None:
        slot = charge(1, limit=2, algorithm="concurrency")
        store.reserve([slot], 1)
        store.reserve([slot], 2)
        advance(MINUTE // 2)
        store.renew([(slot, 2)])
        advance(MINUTE // 2)
        assert remaining(store, slot) == [1]
        advance(MINUTE // 2)
        assert remaining(store, slot) == [2]

    def test_lease_that_is_gone_stays_gone(self, store: Store, advance: Advance) -> None:
        slot = charge(1, limit=1, algorithm="concurrency")
        store.reserve([slot], 1)
        advance(MINUTE)
        store.renew([(slot, 1), (charge(1), 1), (charge(1, subject=BOB), 1)])
        assert remaining(store, slot, charge(1), charge(1, subject=BOB)) == [1, 10, 10]

    def test_reopened_work_holds_its_slot_beyond_the_limit_until_it_ends(self, store: Store) -> None:
        engine = Engine(store, secret=SECRET)
        slot, tokens = charge(1, limit=1, algorithm="concurrency"), charge(4)
        first = engine.reserve([slot, tokens])
        first.settle({TOKENS: 3})
        second = engine.reserve([slot])
        again = first.reopen()
        second.settle({})
        assert not engine.reserve([slot]).allowed
        assert again.settle({TOKENS: 5})
        assert not again.cancel()
        assert engine.reserve([slot]).allowed
        assert remaining(store, tokens) == [2]
        engine.leases.close()

    def test_slot_that_is_taken_again_is_taken_once_and_for_a_whole_period(
        self, store: Store, advance: Advance
    ) -> None:
        slot = charge(1, limit=2, algorithm="concurrency")
        store.reserve([slot], 5)
        for _ in range(3):
            advance(MINUTE // 2)
            store.settle([Settlement(slot.costing(0), 0, 1, 5)])
            assert remaining(store, slot) == [1]
        store.settle([Settlement(slot.costing(0), 0, 0, 5)])
        assert remaining(store, slot) == [2]

    # Calls to providers

    def test_gate_that_faults_opened_lets_one_probe_through(self, store: Store, advance: Advance) -> None:
        call = Charge(ALICE, Quota(1, 60, GATE, GATE))
        settle(store, reserve(store, *[call] * 10), *[packed(Outcome(FAULT, 503))] * 10)
        assert reserve(store, call).retry_after_us == MICROSECONDS
        assert standing_of(*remaining(store, call))[:2] == (OPEN, 503)
        advance(MICROSECONDS)
        probe = store.reserve([call], 5)
        assert probe.allowed
        assert not store.reserve([call], 6).allowed
        advance(MINUTE // 2)
        store.renew([(call, 5)])
        advance(MINUTE // 2)
        assert not store.reserve([call], 7).allowed
        settle(store, probe, packed(Outcome(NEUTRAL, 429, 1500)), lease=5)
        assert reserve(store, call).retry_after_us == 1_500_000
        assert standing_of(*remaining(store, call))[:2] == (PAUSED, 429)
        advance(1_500_000)
        settle(store, store.reserve([call], 8), packed(Outcome(GOOD, 200)), lease=8)
        assert reserve(store, call, call).allowed
        assert standing_of(*remaining(store, call))[:2] == (CLOSED, 0)

    def test_turns_are_taken_in_order_and_a_place_lasts_as_long_as_it_is_renewed(
        self, store: Store, advance: Advance
    ) -> None:
        line = Charge(ALICE, Quota(3, 60, TURNS, TURNS), 0)
        for ticket in (3, 2, 4, 6):  # The last finds no place.
            store.settle([Settlement(line, 0, 1, ticket)])
        assert [reserve(store, line.costing(ticket)).retry_after_us for ticket in (3, 4)] == [2_000_000, 1_000_000]
        assert not reserve(store, line.costing(6)).possible
        assert not reserve(store, line.costing(2), charge(11)).allowed
        assert reserve(store, line.costing(2)).allowed
        assert remaining(store, line) == [1]
        advance(MINUTE // 2)
        store.renew([(line, 3)])
        advance(MINUTE // 2)
        assert reserve(store, line.costing(3)).allowed
        assert remaining(store, line) == [3]

    def test_bucket_that_a_provider_tells_of_has_no_more_left_than_it_says(self, store: Store) -> None:
        taken = reserve(store, charge(4, algorithm=PROVIDER_BUCKET))
        told = Settlement(charge(0, algorithm=PROVIDER_BUCKET), 0, 7, 0)
        for _ in range(2):
            store.settle([told])
            assert remaining(store, told.charge) == [3]
        store.settle([told._replace(actual=5)])
        assert remaining(store, told.charge) == [3]
        settle(store, taken, 1, lease=3)
        assert remaining(store, told.charge) == [6]

    # Handing over

    def test_work_is_handed_over_and_ended_once(self, store: Store) -> None:
        giver, taker, twin = (Engine(store, secret=SECRET) for _ in range(3))
        slot, tokens = charge(1, limit=1, algorithm="concurrency"), charge(6)
        token = giver.hand_over([giver.reserve([slot, tokens])], {"job": 7})
        taken, delivered_twice = taker.take_over(token), twin.take_over(token)
        assert taken.note == {"job": 7}
        assert not giver.reserve([slot]).allowed
        assert taken.settle({TOKENS: 2})
        assert not delivered_twice.cancel()
        assert not taker.take_over(token).settle({TOKENS: 9})
        assert remaining(store, tokens) == [8]
        assert giver.reserve([slot]).allowed
        for engine in (giver, taker, twin):
            engine.leases.close()

    def test_slot_whose_lease_ran_out_in_the_queue_is_taken_again(self, store: Store, advance: Advance) -> None:
        engine = Engine(store, secret=SECRET)
        slot = charge(1, limit=1, algorithm="concurrency")
        token = engine.hand_over([engine.reserve([slot])], {})
        advance(2 * MINUTE)
        assert store.peek([slot]).allowed
        taken = engine.take_over(token)
        assert not engine.reserve([slot]).allowed
        assert taken.cancel()
        assert engine.reserve([slot]).allowed
        engine.leases.close()

    def test_token_is_too_old_after_a_day(self, store: Store, advance: Advance) -> None:
        engine = Engine(store, secret=SECRET)
        token = engine.hand_over([engine.reserve([charge(6)])], {})
        advance(86400 * MICROSECONDS - 1)
        late = engine.take_over(token)
        advance(1)
        with pytest.raises(HandOverError, match="more than a day old"):
            engine.take_over(token)
        assert not late.settle({TOKENS: 10})
        assert remaining(store, charge()) == [10]

    # Looking and forgetting

    @every_algorithm
    def test_peek_answers_as_reserve_would_and_takes_nothing(self, store: Store, algorithm: str) -> None:
        reserve(store, charge(4, algorithm=algorithm))
        for cost in (6, 7, 11):
            asked = charge(cost, algorithm=algorithm)
            seen = store.peek([asked])
            assert store.peek([asked]) == seen
            answer = reserve(store, asked) if cost != 6 else None
            assert seen.allowed == (cost == 6)
            assert seen.retry_after_us == (answer.retry_after_us if answer else 0)
        assert remaining(store, charge(algorithm=algorithm)) == [6]

    @pytest.mark.parametrize(
        ("forget", "left"),
        [
            ((ALICE, charge().bucket), [10, 9, 9]),
            ((ALICE,), [10, 10, 9]),
            ((), [10, 10, 10]),
            ((b"nobody".ljust(16, b"\0"),), [9, 9, 9]),
        ],
    )
    def test_reset_forgets_one_count_or_a_subject_or_all(
        self, store: Store, forget: Sequence[bytes], left: list[int]
    ) -> None:
        charges = [charge(), charge(algorithm="fixed-window"), charge(subject=BOB)]
        reserve(store, *charges)
        store.reset(*forget)
        assert remaining(store, *charges) == left

    def test_reset_tells_how_many_counts_of_a_subject_it_forgot_or_that_it_cannot(
        self, store: Store, advance: Advance
    ) -> None:
        charges = [charge(), charge(algorithm="fixed-window"), charge(algorithm="moving-window"), charge(subject=BOB)]
        reserve(store, *charges)
        told = [store.reset(ALICE, charges[0].bucket), store.reset(ALICE, charges[0].bucket), store.reset(ALICE)]
        assert told in ([1, 0, 2], [None] * 3)
        assert store.reset(ALICE) in (0, None)
        advance(10 * MINUTE)
        assert store.reset(BOB) in (0, None)

    @every_algorithm
    def test_count_is_kept_while_it_matters_and_then_forgotten(
        self, store: Store, advance: Advance, algorithm: str
    ) -> None:
        taken = reserve(store, charge(9, algorithm=algorithm))
        self._traffic_of_others(store, 0)
        advance(taken.verdicts[0].reset_after_us - 1)
        self._traffic_of_others(store, 500)
        assert remaining(store, charge(algorithm=algorithm))[0] < 10
        advance(2 * MINUTE)
        self._traffic_of_others(store, 1000)
        assert remaining(store, charge(algorithm=algorithm)) == [10]
        assert self.count_records(store) <= 500

    def _traffic_of_others(self, store: Store, first: int) -> None:
        for number in range(first, first + 250):
            reserve(store, charge(subject=number.to_bytes(16, "big")))
            reserve(store, charge(subject=BOB, limit=10**6))

    # What a client can make up

    def test_subject_has_so_many_counts_at_once_and_another_one_waits_until_one_ends(
        self, store: Store, advance: Advance
    ) -> None:
        assert reserve(store, self._scoped("first", 10)).allowed
        advance(MINUTE // 2)
        self._fill(store, MOST_COUNTS - 1, 10)
        taken = remaining(store, charge(subject=BOB))
        decision = reserve(store, charge(subject=BOB), self._scoped("one more"))
        assert [(v.allowed, v.remaining, v.retry_after_us) for v in decision.verdicts] == [
            (True, 10, 0),
            (False, 0, MINUTE // 2),
        ]
        assert store.peek([self._scoped("one more")]).retry_after_us == MINUTE // 2
        assert remaining(store, charge(subject=BOB)) == taken
        advance(MINUTE // 2 - 1)
        assert not reserve(store, self._scoped("one more")).allowed
        advance(1)
        assert reserve(store, self._scoped("one more")).allowed

    def test_subject_with_all_its_counts_goes_on_with_those(self, store: Store) -> None:
        self._fill(store, MOST_COUNTS)
        assert [v.remaining for v in reserve(store, self._scoped("0", 3), self._scoped("7", 9)).verdicts] == [6, 0]
        assert not reserve(store, self._scoped("7")).allowed
        assert reserve(store, charge(subject=BOB)).allowed

    def test_request_over_more_counts_than_a_subject_may_have_never_fits(self, store: Store) -> None:
        charges = [self._scoped(str(number)) for number in range(MOST_COUNTS + 1)]
        decision = reserve(store, *charges)
        assert not decision.allowed
        assert decision.retry_after_us is None
        assert reserve(store, *charges[1:]).allowed

    def test_refused_counts_take_no_place(self, store: Store) -> None:
        self._fill(store, MOST_COUNTS - 1)
        for number in range(MOST_COUNTS, MOST_COUNTS + 20):
            assert not reserve(store, self._scoped(str(number), 11)).allowed
        assert reserve(store, self._scoped("last")).allowed

    def _scoped(self, scope: str, cost: int = 1) -> Charge:
        return charge(cost)._replace(scope=scope)

    def _fill(self, store: Store, counts: int, cost: int = 1) -> None:
        """Let Alice use this many counts."""
        for first in range(0, counts, 64):
            scopes = range(first, min(first + 64, counts))
            assert reserve(store, *[self._scoped(str(number), cost) for number in scopes]).allowed

    def test_secret_is_the_same_each_time_it_is_asked_for(self, store: Store) -> None:
        assert store.secret() == store.secret()

    def test_closing_twice_is_fine(self, store: Store) -> None:
        reserve(store, charge())
        store.close()
        store.close()

    # Changes of plans, if the store keeps them

    @pytest.fixture
    def trail(self, store: Store) -> KeepsChanges:
        """The store, as one that keeps changes of plans."""
        if not isinstance(store, KeepsChanges):
            pytest.skip(f"{type(store).__name__} keeps no changes of plans")
        return store

    def test_changes_are_numbered_in_the_order_in_which_they_came(self, trail: KeepsChanges) -> None:
        assert trail.changes_from(1) == []
        assert [trail.add_change(text, last) for last, text in enumerate(["one", "zwölf", "one"])] == [True] * 3
        assert trail.changes_from(1) == [(1, "one"), (2, "zwölf"), (3, "one")]
        assert trail.changes_from(3) == [(3, "one")]
        assert trail.changes_from(4) == []

    def test_change_by_who_does_not_know_the_last_one_is_not_made(self, trail: KeepsChanges) -> None:
        assert trail.add_change("one", 0)
        assert [trail.add_change("two", last) for last in (0, 2)] == [False, False]
        assert trail.changes_from(1) == [(1, "one")]

    def test_erased_changes_leave_the_others_with_their_numbers(self, trail: KeepsChanges) -> None:
        for last in range(4):
            trail.add_change(str(last), last)
        assert not trail.add_change("erasing", 3, [1])
        assert trail.add_change("erasing", 4, [1, 4, 9])
        assert trail.add_change("next", 5)
        assert trail.changes_from(1) == [(2, "1"), (3, "2"), (5, "erasing"), (6, "next")]
        assert trail.changes_from(4) == [(5, "erasing"), (6, "next")]

    def test_many_changes_are_read_at_once(self, trail: KeepsChanges) -> None:
        for last in range(1010):
            trail.add_change(f'{{"number":{last}}}', last)
        assert [number for number, _ in trail.changes_from(1)] == [*range(1, 1011)]
        assert len(trail.changes_from(11)) == 1000
        assert trail.changes_from(1010) == [(1010, '{"number":1009}')]

    def test_changes_outlive_every_reset_and_are_no_counts(
        self, store: Store, trail: KeepsChanges, advance: Advance
    ) -> None:
        trail.add_change("one", 0)
        reserve(store, charge(1))
        store.reset(ALICE)
        store.reset()
        advance(10**6 * MINUTE)
        reserve(store, charge(1))
        assert trail.changes_from(1) == [(1, "one")]

    def test_changes_of_threads_at_once_lose_none(self, trail: KeepsChanges) -> None:
        def append(name: str) -> None:
            for number in range(5):
                while not trail.add_change(f"{name}{number}", len(trail.changes_from(1))):
                    pass

        threads = [Thread(target=append, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(text for _, text in trail.changes_from(1)) == [
            f"{name}{number}" for name in "abc" for number in range(5)
        ]
