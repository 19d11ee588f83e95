"""The simulation that says whether leases would pay: it is the limiter where nothing is lent, its judge is awake."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_ailimit.engine import Charge, Engine, Quota, Settlement
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.testing import START_US, ManualClock

BENCH = Path(__file__).parents[2] / "bench" / "lease_mode"
sys.path.append(str(BENCH))

from arrivals import SECOND, Arrival, Request, assigned, in_bursts, overlaid, read_trace  # noqa: E402  after the line above
from borrower import Policy, Worker  # noqa: E402
from judge import judged  # noqa: E402
from lender import Lender  # noqa: E402
from replaying import Agenda, companions, fairness, first_calls, replay  # noqa: E402

EXACT = Policy("exact", flush_us=0)
BULK = Policy("bulk", horizon_us=20 * SECOND, reach=0.25)
CHUNKS = Policy("chunks", share=0.1, guard=2)
RATES = Policy("rates", horizon_us=20 * SECOND, reach=0.25, rates=0.9, memory_us=SECOND // 10)

few = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
by_algorithm = pytest.mark.parametrize("algorithm", ["token-bucket", "fixed-window"])

steps = st.lists(
    st.tuples(
        st.sampled_from([0, 1000, SECOND, 7 * SECOND, 40 * SECOND]),  # Since the one before.
        st.integers(0, 2),  # Subject.
        st.integers(0, 3),  # Worker.
        st.integers(1, 40),  # Reserved.
        st.integers(0, 40),  # Used, at most what is reserved.
        st.sampled_from([1, SECOND, 20 * SECOND, 70 * SECOND]),  # For so long.
    ),
    min_size=1,
    max_size=40,
)


def requests_of(drawn, *, settled=True):
    """The requests of ``steps``. Where nothing is settled they are over at once, as requests are."""
    requests, now_us = [], START_US
    for pause, subject, worker, reserve, used, takes in drawn:
        now_us += pause
        actual, ends_us = (min(used, reserve), now_us + takes) if settled else (reserve, now_us)
        requests.append(Request(now_us, ends_us, subject, worker, reserve, actual))
    return requests


def by_the_engine(requests, quota):
    """What the engine itself says, over a store in memory."""
    clock = ManualClock()
    engine, agenda, admitted = Engine(MemoryStore(clock)), Agenda(), []
    for request in requests:
        agenda.run(request.at_us)
        clock.set(request.at_us)
        charge = Charge(engine.subject(str(request.subject)), quota, request.reserve)
        allowed = engine.reserve([charge]).decision.allowed
        admitted.append(allowed)

        def settle(now_us, charge=charge, request=request):
            clock.set(now_us)
            engine.store.settle([Settlement(charge, request.at_us, request.actual, 0)])

        if allowed and request.actual != request.reserve:
            agenda.write(request.ends_us, settle)
    engine.close()
    return admitted


@by_algorithm
@given(drawn=steps)
@few
def test_nothing_lent_is_the_limiter_of_today(algorithm, drawn):
    requests, quota = requests_of(drawn), Quota(100, 60, "tokens", algorithm)
    outcome = replay(requests, quota, EXACT)
    assert outcome.admitted == by_the_engine(requests, quota)
    corrected = sum(a and r.actual != r.reserve for a, r in zip(outcome.admitted, requests, strict=True))
    assert outcome.trips == len(requests) + corrected


@by_algorithm
@given(drawn=steps)
@few
def test_judge_finds_nothing_against_the_limiter_of_today(algorithm, drawn):
    requests, quota = requests_of(drawn), Quota(100, 60, "tokens", algorithm)
    assert judged(requests, by_the_engine(requests, quota), quota).granted_beyond == 0


@by_algorithm
@given(drawn=steps)
@few
def test_judge_knows_the_room_to_the_unit_where_nothing_is_settled(algorithm, drawn):
    requests, quota = requests_of(drawn, settled=False), Quota(100, 60, "tokens", algorithm)
    findings = judged(requests, by_the_engine(requests, quota), quota)
    assert (findings.granted_beyond, findings.room_missed) == (0, {})


@pytest.mark.parametrize("policy", [BULK, CHUNKS, RATES], ids=lambda policy: policy.name)
@by_algorithm
@given(drawn=steps)
@few
def test_nothing_is_granted_beyond_the_limit(algorithm, policy, drawn):
    requests, quota = requests_of(drawn), Quota(100, 60, "tokens", algorithm)
    assert judged(requests, replay(requests, quota, policy).admitted, quota).granted_beyond == 0


@pytest.mark.parametrize(("algorithm", "chunks"), [("fixed-window", 3), ("token-bucket", 3 + 4)])
@given(drawn=steps)
@few
def test_no_more_is_refused_too_early_than_the_bound_says(algorithm, chunks, drawn):
    """Of four workers the three others hold a chunk each; a bucket may have lost the leak of what all four spent."""
    requests, quota = requests_of(drawn, settled=False), Quota(100, 60, "tokens", algorithm)
    missed = judged(requests, replay(requests, quota, CHUNKS).admitted, quota).room_missed
    chunk = 10
    assert all(room < requests[number].reserve + chunks * chunk for number, room in missed.items())


def hoard(worker, at_s, *, units=1):
    """A request that borrows for others to come."""
    return Request(START_US + at_s * SECOND, START_US + at_s * SECOND, 0, worker, units, units)


def test_judge_catches_a_lease_that_leaks_while_nobody_spends_it():
    """All borrow from a full bucket; time fills it again; then all spend, and the bucket is spent as well."""
    greedy = Policy("leaking", share=0.2, lease_us=90 * SECOND, leaking=True)
    requests = [hoard(worker, 0) for worker in range(4)]
    requests += [hoard(worker, 29, units=20) for worker in range(4)]
    requests += [hoard(9, 29) for _ in range(40)]
    quota = Quota(100, 60, "tokens")
    caught = judged(requests, replay(requests, quota, greedy).admitted, quota)
    assert caught.granted_beyond > 0
    held = judged(requests, replay(requests, quota, replace(greedy, leaking=False)).admitted, quota)
    assert held.granted_beyond == 0


@pytest.mark.parametrize(("margin", "beyond"), [(0, True), (0.02, False)])
def test_slow_clock_spends_a_window_s_lease_in_the_next_one_unless_a_margin_is_kept(margin, beyond):
    policy = Policy("slow", share=0.5, lease_us=90 * SECOND, slow=0.01, margin=margin)
    window = Quota(100, 60, "tokens", "fixed-window")
    edge = START_US + 60 * SECOND
    requests = [
        hoard(0, 31),
        replace_time(hoard(1, 0, units=100), edge),
        replace_time(hoard(0, 0, units=50), edge + SECOND // 10),
    ]
    assert (judged(requests, replay(requests, window, policy).admitted, window).granted_beyond > 0) == beyond


def replace_time(request, at_us):
    return request._replace(at_us=at_us, ends_us=at_us)


def test_overrun_leaves_less_than_was_lent_to_others():
    """Why an estimate must not be too low: what is lent can't be called back when somebody uses more than reserved."""
    policy = Policy("chunks", share=0.4)
    requests = [hoard(1, 0), Request(START_US, START_US + SECOND, 0, 2, 19, 80), hoard(1, 2, units=40)]
    findings = judged(requests, replay(requests, Quota(100, 60, "tokens"), policy).admitted, Quota(100, 60, "tokens"))
    assert findings.granted_beyond == 1


def test_worker_that_dies_strands_what_it_held_until_its_lease_ends():
    """Afterwards all of it counts as spent, because it may have been, and time forgives it like any charge."""
    quota = Quota(3600, 3600, "tokens")
    lender = Lender(quota, 30 * SECOND)
    dead = Worker(0, lender, Policy("half", share=0.5), lambda at_us, do: None)
    assert dead.ask(0, hoard(0, 0), START_US)
    assert not lender.charge(0, START_US + 29 * SECOND, 1801)
    assert lender.charge(0, START_US + 29 * SECOND, 1800)
    assert not lender.charge(0, START_US + 30 * SECOND, 2)
    assert lender.charge(0, START_US + 60 * SECOND, 31)
    assert not dead.ask(1, hoard(0, 60, units=1800), START_US + 60 * SECOND)


def test_lease_saves_trips_and_gives_up_nothing_while_there_is_room():
    requests = [hoard(number % 2, number) for number in range(200)]
    quota = Quota(6000, 60, "tokens")
    exact, bulk = replay(requests, quota, EXACT), replay(requests, quota, BULK)
    assert all(exact.admitted)
    assert all(bulk.admitted)
    assert exact.trips == 200
    assert bulk.trips < 70


def test_jains_index_is_one_for_equals_and_a_part_for_one_alone():
    requests = [hoard(worker, 0) for worker in range(4)]
    assert fairness(requests, [True] * 4) == 1
    assert fairness(requests, [True, False, False, False]) == 0.25
    assert fairness(requests, [False] * 4) == 1


def test_trace_of_a_file_is_read_in_the_order_of_time(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:50.9951690,396,109\n"
        "2023-11-16 18:15:46.6805900,374,44\n"
    )
    assert read_trace(path) == [Arrival(0, 374, 44), Arrival(4_314_579, 396, 109)]


def test_missing_trace_is_told_with_where_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="AzurePublicDataset"):
        read_trace(tmp_path / "none.csv")


def test_overlaid_trace_has_each_row_once():
    trace = [Arrival(at, at, 1) for at in range(SECOND - 1, 100 * SECOND, SECOND)]
    denser = overlaid(trace, 10, 10)
    assert sorted(row.prompt for row in denser) == [row.prompt for row in trace]
    assert max(row.at_us for row in denser) < 10 * SECOND


def test_bursts_keep_the_order_and_the_count():
    trace = [Arrival(at, at, 1) for at in range(0, 600 * SECOND, SECOND)]
    rows = in_bursts(trace, 300, 20)
    assert [row.prompt for row in rows] == [row.prompt for row in trace]
    assert max(row.at_us % (300 * SECOND) for row in rows) < 20 * SECOND


def test_same_seed_gives_the_same_users_and_the_first_has_most():
    rows = [Arrival(at, 1, 1) for at in range(2000)]
    options = {"max_output": 10, "subjects": 5, "workers": 3, "routing": "sticky", "seed": 7}
    requests = assigned(rows, **options)
    assert requests == assigned(rows, **options)
    counts = [sum(request.subject == subject for request in requests) for subject in range(5)]
    assert counts == sorted(counts, reverse=True)
    assert all(request.worker == request.subject % 3 for request in requests)


def test_first_calls_and_companions_are_counted_by_worker():
    requests = [hoard(0, 0), hoard(0, 0), hoard(1, 0), hoard(0, 40)]
    assert first_calls(requests, 30 * SECOND) == 3
    assert companions(requests, 1000) == 0.25
