"""An app whose Redis fails in every way that there is: what its clients get meanwhile, and how it comes back.

Latencies are recorded as properties of the tests: pytest --junitxml shows them.
"""

import json
import threading
import time
from base64 import urlsafe_b64encode
from contextlib import closing
from statistics import median
from threading import Barrier

import outage_faults
import pytest
import redis
from fault_proxy import FaultProxy
from flask import Flask, Response
from outage_apps import COST, LIMIT, POLICIES, TOKEN_LIMIT, USED, App, require_consistent
from redis_servers import PATIENCE, wait_until
from redis_stores import store_at

from flask_ailimit import AILimiter, Caller, Payer
from flask_ailimit.engine import Charge, Quota
from flask_ailimit.engine.quota import CONCURRENCY
from flask_ailimit.engine.stores.redis import breaker, pool
from flask_ailimit.engine.stores.redis.scripts import load
from flask_ailimit.signals import store_changed
from flask_ailimit.testing import ManualClock, every_algorithm

HEALTHY = 2
PATIENT = 3
HASTY = 0.8
"""Where a test waits for a time-out. A machine that is busy keeps nobody from answering for so long."""

SOON = 0.7
"""Seconds from a time-out to the answer: less than a second time-out takes."""

# What the server does, and what lies between; by the seconds of time-out.
OF_THE_SERVER = {
    "killed": PATIENT,
    "hung": HASTY,
    "replica": PATIENT,
    "replica_without_master": PATIENT,
    "full": PATIENT,
    "not_saving": PATIENT,
    "busy": PATIENT,
    "loading": PATIENT,
    "locked": PATIENT,
    "forbidden": PATIENT,
    "crowded": PATIENT,
}
OF_THE_NETWORK = {
    "refused": PATIENT,
    "reset": PATIENT,
    "garbled": PATIENT,
    "cut_short": PATIENT,
    "swallowed": HASTY,
    "slow": HASTY,
}


def waiting(seconds):
    """Options of an app that waits for so long, for an answer and to be connected."""
    return {"timeout": seconds, "connect_timeout": min(seconds, 2)}


on_one_server = pytest.mark.parametrize("redis_binary", ["valkey"], indirect=True)


@pytest.fixture
def opened(new_server):
    """Starts a server, a proxy before it, and an app that uses it through the proxy."""
    apps, proxies = [], []

    def open_one(*server_options, **app_options):
        server = new_server(*server_options)
        proxies.append(FaultProxy(server.port))
        apps.append(App(proxies[-1].uri, **app_options))
        return server, proxies[-1], apps[-1]

    yield open_one
    for each in (*apps, *proxies):
        each.close()


@pytest.mark.parametrize("name", OF_THE_SERVER)
def test_in_an_outage_of_the_server_requests_follow_their_policies(name, opened, record_property, caplog):
    options = outage_faults.SLOW_TO_LOAD if name == "loading" else ()
    through_an_outage(
        name, OF_THE_SERVER[name], *opened(*options, options=waiting(OF_THE_SERVER[name])), record_property
    )
    assert not [record for record in caplog.records if record.exc_info]


@on_one_server
@pytest.mark.parametrize("name", OF_THE_NETWORK)
def test_in_an_outage_of_the_network_requests_follow_their_policies(name, opened, record_property, caplog):
    through_an_outage(name, OF_THE_NETWORK[name], *opened(options=waiting(OF_THE_NETWORK[name])), record_property)
    assert not [record for record in caplog.records if record.exc_info]


def through_an_outage(name, timeout, server, proxy, app, record_property):
    kept = name != "killed"
    fault = getattr(outage_faults, name)
    for policy in POLICIES:
        assert app.posts(f"/{policy}", HEALTHY) == [200] * HEALTHY
    usual = median(app.post("/local", f"key-{i}")[1] for i in range(9))

    with fault(server, proxy):
        first = [app.post(f"/{policy}") for policy in POLICIES]
        wait_until(lambda: app.changes == [False] or app.post("/deny")[0].status_code != 503)
        local = [app.post("/local") for _ in range(LIMIT + 3)]
        others = {policy: [app.post(f"/{policy}") for _ in range(LIMIT + 3)] for policy in ("allow", "deny")}
        changes = list(app.changes)
    assert changes == [False]
    wait_until(lambda: app.changes == [False, True])

    # First the time-out, then nothing: whoever asks does not wait.
    waited = [seconds for _, seconds in first]
    later = [seconds for _, seconds in (*local, *others["allow"], *others["deny"])]
    record_property("first", [round(1000 * seconds, 1) for seconds in waited])
    record_property("later", round(1000 * median(later), 1))
    record_property("usual", round(1000 * usual, 1))
    assert median(waited) < (HASTY if timeout == HASTY else 0) + SOON
    assert median(later) < max(3 * usual, 0.2)

    # The policies: this machine's share, which is all of it; everything; nothing.
    assert [answer.status_code for answer, _ in first] == [200, 200, 503]
    assert [answer.status_code for answer, _ in local] == [200] * (LIMIT - 1) + [429] * 4
    assert [answer.status_code for answer, _ in others["allow"]] == [200] * (LIMIT + 3)
    assert [answer.status_code for answer, _ in others["deny"]] == [503] * (LIMIT + 3)
    for answer, _ in [first[0], *local]:
        require_consistent(answer)
        assert int(answer.headers["x-ratelimit-limit-requests"]) == LIMIT
    for answer, _ in [first[1], *others["allow"]]:
        assert not [name for name, _ in answer.headers if "ratelimit" in name.lower()]
    for answer, _ in [first[2], *others["deny"]]:
        assert answer.headers["Retry-After"]
        assert answer.get_json()["status"] == 503
    assert set(app.answers) == {200, 429, 503}

    # Back: counts go on where they were, and what nobody heard of is undone.
    for policy in POLICIES:
        assert app.post(f"/{policy}")[0].status_code == 200
        expected = {
            "requests-per-hour": 1 + HEALTHY * kept,
            "tokens-per-hour": USED * (1 + HEALTHY * kept),
            "concurrency": 0,
        }
        wait_until(lambda policy=policy, expected=expected: app.used(policy) == expected)
    assert app.changes == [False, True]


@on_one_server
@pytest.mark.parametrize("name", ["killed", "hung", "swallowed"])
def test_many_at_once_when_it_happens_are_admitted_up_to_the_limit(name, opened, record_property):
    server, proxy, app = opened(options=waiting(HASTY), limit=20)
    assert app.posts("/deny", 1) == [200]
    with getattr(outage_faults, name)(server, proxy):
        statuses = app.at_once("/deny", 8) + app.at_once("/local", 30) + app.posts("/local", 21)
        assert statuses.count(503) == 8
        # No more than four are in flight at a time, so some of those at once are refused for that.
        assert statuses.count(200) <= 20
        assert statuses[-1] == 429
        assert set(statuses) == {200, 429, 503}
        wait_until(lambda: app.changes == [False])
    wait_until(lambda: app.changes == [False, True])
    assert app.posts("/local", 1) == [200]


@pytest.mark.parametrize("name", ["replica", "full", "not_saving", "forbidden"])
def test_server_that_answers_and_can_t_decide_is_not_taken_for_back(name, opened):
    server, proxy, app = opened()
    assert app.posts("/deny", 1) == [200]
    with getattr(outage_faults, name)(server, proxy):
        wait_until(lambda: app.post("/deny")[0].status_code == 503 and app.changes == [False])
        asked = proxy.commands["EVALSHA"]
        wait_until(lambda: proxy.commands["EVALSHA"] >= asked + 2)  # Two probes.
        assert app.posts("/deny", 2) == [503] * 2
        assert app.changes == [False]
    wait_until(lambda: app.changes == [False, True])


@on_one_server
def test_slower_than_usual_but_within_the_time_out_is_no_outage(opened):
    _, proxy, app = opened()
    proxy.delay = 0.05
    assert app.posts("/local", LIMIT + 1) == [200] * LIMIT + [429]
    assert app.posts("/deny", 1) == [200]
    assert not app.changes
    assert app.used("local") == {"requests-per-hour": LIMIT, "tokens-per-hour": LIMIT * USED, "concurrency": 0}


@on_one_server
def test_one_late_answer_now_and_then_is_no_outage(opened):
    """Such requests follow their policy one by one; the breaker opens for three in a row only."""
    _, proxy, app = opened(options=waiting(HASTY))
    for _ in range(4):
        assert app.posts("/deny", 1) == [200]
        proxy.inject("delay_reply", command=_decides, seconds=2 * HASTY)
        assert app.posts("/deny", 1, "bob") == [503]
    assert not app.changes
    assert app.used("deny")["requests-per-hour"] == 4
    wait_until(lambda: app.used("deny", "bob") == {"requests-per-hour": 0, "tokens-per-hour": 0, "concurrency": 0})


# Restarts, and what is forgotten


def test_restart_between_two_requests_is_noticed_by_nobody(opened):
    """The connections are broken and the scripts forgotten, and so are the counts."""
    server, _, app = opened()
    assert app.posts("/deny", LIMIT + 1) == [200] * LIMIT + [429]
    server.restart()
    assert app.posts("/deny", LIMIT + 1) == [200] * LIMIT + [429]
    assert not app.changes


def test_restart_under_many_pooled_connections_is_noticed_by_nobody(opened):
    """All that lie in the pool are broken; who takes one must not fail twice."""
    server, _, app = opened(limit=1000)
    connections = app.limiter.engine.store._link.wire.pool
    for connection in [connections.take() for _ in range(40)]:
        connections.put(connection)
    server.restart()
    statuses = [status for _ in range(4) for status in app.at_once("/deny", 4)]
    assert statuses == [200] * 16
    assert not app.changes


def test_flushed_in_the_middle_of_a_request_gives_nothing_back_and_counts_the_rest(opened):
    """What was reserved is gone. A refund of it is nothing, and what was used beyond it is charged."""
    server, _, app = opened()
    app.inside = lambda: server.ask("FLUSHALL")
    for app.usage, left in ((10, 0), (COST + 70, 70)):
        assert app.posts("/deny", 1) == [200]
        assert app.used("deny") == {"requests-per-hour": 0, "tokens-per-hour": left, "concurrency": 0}
    assert not app.changes


@pytest.mark.parametrize("command", [("FLUSHALL",), ("SCRIPT", "FLUSH"), ("FLUSHDB", "ASYNC")], ids=" ".join)
def test_flushed_again_and_again_under_load_it_stays_in_order(command, opened):
    server, _, app = opened(limit=30)
    flushes, statuses = 0, []
    for _ in range(12):
        statuses += app.at_once("/local", 4)
        server.ask(*command)
        flushes += "SCRIPT" not in command
    assert set(statuses) <= {200, 429}
    assert not app.changes
    assert statuses.count(200) <= 30 * (flushes + 1)
    if not flushes:
        assert statuses.count(200) == 30
    used = app.used("local")
    assert all(0 <= number <= 30 * COST for number in used.values())
    assert used["concurrency"] == 0


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
def test_counts_that_are_evicted_start_anew_and_are_never_negative(policy, opened):
    server, _, app = opened("--maxmemory-policy", policy)

    def evict():
        server.ask("CONFIG", "SET", "maxmemory", "1mb")
        for i in range(200):
            try:
                server.ask("SET", f"filler{i}", "x" * 3000, "EX", 1000)
            except redis.OutOfMemoryError:
                break
        server.ask("CONFIG", "SET", "maxmemory", "0")

    app.inside, app.usage = evict, 10
    statuses = app.posts("/deny", 2 * LIMIT)
    assert set(statuses) <= {200, 429}
    assert statuses[0] == 200
    used = app.used("deny")
    assert 0 <= used["requests-per-hour"] <= LIMIT
    assert used["tokens-per-hour"] in [10 * n for n in range(LIMIT + 1)]
    assert used["concurrency"] == 0


# The server's clock


HOUR = 3_600_000_000
SUBJECT = b"0123456789abcdef"


def granted(store, quota, lease):
    """How many more are admitted now."""
    count = 0
    while store.reserve([Charge(SUBJECT, quota)], lease + count).allowed:
        count += 1
    return count


@on_one_server
@every_algorithm
@pytest.mark.parametrize("jump", [HOUR, -HOUR, 24 * HOUR, -24 * HOUR], ids=["1h", "-1h", "1d", "-1d"])
def test_server_whose_clock_jumps_grants_one_limit_more_at_most_and_freezes_nobody(algorithm, jump, server):
    quota = Quota(10, 60, *([CONCURRENCY] * 2 if algorithm == CONCURRENCY else ["requests", algorithm]))
    clock = ManualClock()
    with closing(store_at(server.uri, clock)) as store:
        assert granted(store, quota, 0) == 10
        clock.advance_us(jump)
        assert granted(store, quota, 100) <= 10
        # The key lives no longer than it must, however far away its counts seemed to end.
        clock.advance_us(2 * 60_000_000)
        assert granted(store, quota, 200) == 10
        assert server.ask("PTTL", b"ailimit:{%b}" % urlsafe_b64encode(SUBJECT).rstrip(b"=")) <= 2 * 60_000


# Full, and still settling


def test_when_memory_is_full_what_was_reserved_is_settled_all_the_same(opened):
    """Redis 7 and Valkey let a script write that asks for it; the slots must come free, and the tokens be right."""
    server, _, app = opened(limit=100)
    app.inside = lambda: outage_faults.fill_up(server)
    assert app.posts("/deny", 1) == [200]
    app.inside = lambda: None
    used = {"requests-per-hour": 1, "tokens-per-hour": USED, "concurrency": 0}
    with pytest.raises(redis.OutOfMemoryError):
        server.ask("SET", "further", "1")
    assert not app.changes
    assert app.used("deny") == used
    # A new request follows its policy.
    assert app.posts("/deny", 6) == [503] * 6
    wait_until(lambda: app.changes == [False])
    server.ask("CONFIG", "SET", "maxmemory", "0")
    wait_until(lambda: app.changes == [False, True])
    assert app.used("deny") == used


def test_all_of_many_requests_are_settled_when_memory_fills_up_under_them(opened):
    server, _, app = opened(limit=100)
    app.inside = Barrier(4, action=lambda: outage_faults.fill_up(server)).wait
    assert app.at_once("/deny", 4) == [200] * 4
    assert app.used("deny") == {"requests-per-hour": 4, "tokens-per-hour": 4 * USED, "concurrency": 0}
    assert not app.changes


def test_leases_are_renewed_when_memory_is_full(opened):
    server, _, app = opened()

    renewed = []

    def ends_us(charges):
        """When the lease ends, by the clock of Redis."""
        decision = app.limiter.engine.peek(charges)
        return decision.at_us + decision.verdicts[0].reset_after_us

    def renew():
        outage_faults.fill_up(server)
        (charges,) = app.limiter.engine.leases._held.values()
        before = ends_us(charges)
        time.sleep(0.05)
        app.limiter.engine.leases.renew()
        renewed.append(ends_us(charges) >= before + 50_000)

    app.inside = renew
    assert app.posts("/deny", 1) == [200]
    assert renewed == [True]
    assert not app.changes


# Away in the middle of a request


@pytest.mark.parametrize("name", ["killed", "hung", "replica"])
def test_away_between_decision_and_settlement_the_answer_does_not_suffer(name, opened):
    server, proxy, app = opened(options=waiting(HASTY))
    outage = getattr(outage_faults, name)(server, proxy)
    app.inside = outage.__enter__
    answer, seconds = app.post("/deny")
    assert answer.status_code == 200
    assert answer.get_json() == {"asked": "Hello"}
    require_consistent(answer)
    assert seconds < HASTY + 10  # The machine may be busy.
    outage.__exit__(None, None, None)
    kept = name != "killed"
    used = {"requests-per-hour": 1 * kept, "tokens-per-hour": USED * kept, "concurrency": 0}
    wait_until(lambda: app.used("deny") == used)


@on_one_server
@pytest.mark.slow
@pytest.mark.parametrize("name", ["replica", "forbidden"])
def test_settlement_that_was_answered_with_an_error_is_brought_however_late(name, opened):
    """It did not run, so it can be brought after the server has forgotten what it did."""
    server, proxy, app = opened()
    outage = getattr(outage_faults, name)(server, proxy)
    app.inside = outage.__enter__
    assert app.posts("/deny", 1) == [200]
    app.inside = lambda: None
    time.sleep(11)  # Markers live for ten.
    outage.__exit__(None, None, None)
    wait_until(lambda: app.used("deny") == {"requests-per-hour": 1, "tokens-per-hour": USED, "concurrency": 0})


def test_away_in_the_middle_of_a_stream_every_chunk_arrives_and_is_settled_later(opened):
    server, proxy, app = opened(options=waiting(HASTY))
    outage = outage_faults.hung(server, proxy)
    limiter = app.limiter
    events = [f"data: {json.dumps({'choices': [{'delta': {'content': str(i)}}]})}\n\n" for i in range(5)]
    usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
    events += [f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n", "data: [DONE]\n\n"]

    @app.app.post("/stream")
    @limiter.limit_tokens("10000 per hour", algorithm="moving-window", estimate=lambda _: COST)
    @limiter.limit_concurrency(2, lease=5)
    def stream():
        def produce():
            for number, event in enumerate(events):
                if number == 2:
                    outage.__enter__()
                yield event

        return Response(produce(), mimetype="text/event-stream")

    answer, _ = app.post("/stream")
    assert answer.status_code == 200
    assert answer.get_data(as_text=True) == "".join(events)
    outage.__exit__(None, None, None)
    wait_until(lambda: app.used("stream") == {"tokens-per-hour": 30, "concurrency": 0})


@on_one_server
def test_away_between_two_phases_of_a_request_both_are_settled_where_they_were_taken(opened):
    """The first part was decided by Redis and the second one nearby: neither ending may keep the other from coming."""
    server, proxy, app = opened(options=waiting(HASTY))
    outage = outage_faults.killed(server, proxy)
    limiter = app.limiter

    left = []

    @app.app.post("/agent")
    @limiter.limit_concurrency(2, lease=5)
    def agent():
        if not left:
            outage.__enter__()
        with limiter.limit_tokens("10000 per hour", estimate=lambda _: COST, algorithm="moving-window", scope="tool"):
            left.append(limiter.decision.verdicts[-1].remaining)
            limiter.record_usage(input_tokens=USED)
        return {"done": True}

    assert app.posts("/agent", 2) == [200] * 2
    assert left == [TOKEN_LIMIT - COST, TOKEN_LIMIT - USED - COST]
    outage.__exit__(None, None, None)


@on_one_server
def test_away_between_two_phases_a_refusal_gives_back_what_the_first_one_took(opened):
    server, proxy, app = opened(options=waiting(HASTY))
    outage = outage_faults.hung(server, proxy)
    limiter = app.limiter

    @app.app.post("/agent")
    @limiter.limit_concurrency(2, lease=5)
    @limiter.limit_tokens("10000 per hour", algorithm="moving-window", estimate=lambda _: COST)
    def agent():
        outage.__enter__()
        with limiter.limit("5 per hour", on_store_error="deny"):
            return {"done": True}

    answer, _ = app.post("/agent")
    assert answer.status_code == 503
    outage.__exit__(None, None, None)
    wait_until(lambda: app.used("agent")["concurrency"] == 0)
    wait_until(lambda: app.used("agent")["tokens-per-hour"] == 0)


# Policies together


MIXED = [
    ("deny", "allow", "local", 503),
    ("local", "allow", "deny", 503),
    ("allow", "allow", "local", 200),
    ("allow", "local", "allow", 200),
    ("local", "allow", "allow", 200),
]


@on_one_server
@pytest.mark.parametrize(("requests", "tokens", "slots", "status"), MIXED)
def test_each_limit_of_a_request_follows_its_own_policy(requests, tokens, slots, status, opened):
    server, _, app = opened()
    limiter = app.limiter

    @app.app.post("/mixed")
    @limiter.limit("5 per hour", on_store_error=requests)
    @limiter.limit_tokens("3000 per hour", estimate=lambda _: 500, on_store_error=tokens, algorithm="moving-window")
    @limiter.limit_concurrency(2, lease=5, on_store_error=slots)
    def mixed():
        limiter.record_usage(input_tokens=500)
        return {}

    server.kill()
    answers = [app.post("/mixed")[0] for _ in range(8)]
    statuses = [answer.status_code for answer in answers]
    if status == 503:
        assert statuses == [503] * 8
        return
    fitting = {"requests": 5 if requests == "local" else 8, "tokens": 6 if tokens == "local" else 8}
    assert statuses == [200] * min(fitting.values()) + [429] * (8 - min(fitting.values()))
    units = {"requests": requests, "tokens": tokens}
    for answer in answers:
        assert {unit for unit in units if f"x-ratelimit-limit-{unit}" in answer.headers} == {
            unit for unit, policy in units.items() if policy == "local"
        }


@on_one_server
def test_charge_larger_than_the_share_is_unavailable_and_says_when_to_come_back(new_server):
    server = new_server()
    server.kill()
    with closing(App(server.uri, options={"machines": 40})) as app:
        answer, _ = app.post("/local")  # 8 requests for 40 machines.
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert app.posts("/allow", 1) == [200]


@on_one_server
def test_the_limiter_s_own_policy_holds_where_a_limit_has_none(opened):
    server, _, app = opened(on_store_error="allow")

    @app.app.post("/plain")
    @app.limiter.limit("1 per hour")
    def plain():
        return {}

    server.kill()
    assert app.posts("/plain", 4) == [200] * 4


# Flask-Limiter's own policies come first


@on_one_server
def test_flask_limiter_s_fallback_comes_first_and_the_store_comes_back(opened):
    server, _, app = opened(in_memory_fallback=["2 per hour"], on_store_error="deny")
    assert app.posts("/allow", 3) == [200] * 3
    server.kill()
    assert app.posts("/allow", 4) == [200, 200, 429, 429]
    server.restart()
    wait_until(lambda: app.post("/allow", "bob")[0].headers.get("x-ratelimit-limit-requests") == str(LIMIT))
    assert app.posts("/allow", LIMIT + 1, "carol") == [200] * LIMIT + [429]
    assert set(app.answers) == {200, 429}


@on_one_server
def test_flask_limiter_s_fallback_to_the_limits_themselves_counts_them_in_memory(opened):
    server, _, app = opened(in_memory_fallback_enabled=True, on_store_error="deny")
    server.kill()
    assert app.posts("/allow", LIMIT + 2) == [200] * LIMIT + [429] * 2


@on_one_server
def test_payer_of_a_plan_has_one_count_in_flask_limiter_s_fallback_from_the_first_request_on(new_server):
    server = new_server()
    plans = {"plans": {"free": {"requests": f"{LIMIT} per day"}}}
    limiter = AILimiter(plans=plans, storage_uri=server.uri, secret="s" * 32, in_memory_fallback_enabled=True)
    limiter.identify(lambda: Caller(user=Payer("7", "free")))
    app = Flask("by_plan", static_folder=None)
    limiter.init_app(app)
    app.get("/")(limiter.limit_by_plan()(lambda: ""))
    server.kill()
    assert [app.test_client().get("/").status_code for _ in range(LIMIT + 2)] == [200] * LIMIT + [429] * 2
    with app.app_context():
        limiter.app_state.engine.close()  # The other one is that of the fallback.


@on_one_server
def test_swallowed_errors_come_first(opened):
    server, _, app = opened(swallow_errors=True, on_store_error="deny")
    assert app.posts("/local", 1) == [200]
    server.kill()
    assert app.posts("/local", LIMIT + 5) == [200] * (LIMIT + 5)
    server.restart()
    wait_until(lambda: app.changes == [False, True])
    assert app.posts("/local", LIMIT + 1) == [200] * LIMIT + [429]


# Odds and ends


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@on_one_server
def test_receiver_of_the_signal_that_raises_hurts_no_request_and_no_recovery(opened):
    server, _, app = opened()

    def page_somebody(_, available):
        raise RuntimeError("the pager is away, too")

    store_changed.connect(page_somebody, app.app)
    server.kill()
    assert app.posts("/local", 5) == [200] * 5
    server.restart()
    wait_until(lambda: app.posts("/deny", 1) == [200])
    store_changed.disconnect(page_somebody, app.app)


@on_one_server
def test_where_no_thread_can_start_requests_are_served_all_the_same(new_server):
    """Nothing in the background then: no leases are renewed, no machines known, and every request asks the server."""
    server = new_server()
    with closing(App(server.uri)) as app:
        before = threading.stack_size()
        threading.stack_size(1 << 46)  # As if the system had no thread to give.
        try:
            assert app.posts("/deny", 2) == [200] * 2
            server.kill()
            assert app.posts("/local", 5) == [200] * 5
            server.restart()
            assert app.posts("/deny", LIMIT) == [200] * LIMIT
        finally:
            threading.stack_size(before)
        server.kill()
        assert app.posts("/deny", 5) == [503] * 5
        server.restart()
        wait_until(lambda: app.posts("/deny", 1, "bob") == [200])


def test_another_subject_s_broken_record_is_that_subject_s_trouble_alone(opened):
    """Somebody wrote something else under a key. Whom it belongs to starts afresh; it is no outage for anybody."""
    server, _, app = opened()
    for garbage in (("HSET", app.key_of("mallory"), "what", "is this"), ("SET", app.key_of("mallory"), b"\x01cut")):
        server.ask("DEL", app.key_of("mallory"))
        server.ask(*garbage)
        assert app.posts("/deny", LIMIT + 1, "mallory") == [200] * LIMIT + [429]
    assert app.posts("/deny", 1, "alice") == [200]
    assert not app.changes


@pytest.mark.parametrize("number", [8, 9, 30])
def test_subject_may_have_more_counts_than_a_record_has_room_for_at_first(number, server, caplog):
    charges = [Charge(SUBJECT, Quota(100, 3600), scope=f"{i}") for i in range(number)]
    with closing(store_at(server.uri)) as store:
        for lease, charge in enumerate(charges):
            store.reserve([charge], lease)
        for lease, charge in enumerate(charges):
            (verdict,) = store.reserve([charge], number + lease).verdicts
            assert verdict.remaining == charge.quota.limit - 2
    assert not caplog.records


def test_password_is_in_no_log_no_answer_and_no_text(new_server, caplog):
    server = new_server(password="hunter2-and-more")
    with closing(App(server.uri)) as app:
        assert app.posts("/local", 1) == [200]
        server.ask("CONFIG", "SET", "requirepass", "another-password")
        server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        answers = [app.post(f"/{policy}")[0] for policy in POLICIES * 2]
        assert [answer.status_code for answer in answers] == [200, 200, 503] * 2
        wait_until(lambda: "is away" in caplog.text)
        said = caplog.text + "".join(answer.get_data(as_text=True) + str(answer.headers) for answer in answers)
        store = app.limiter.engine.store
        said += repr(store) + repr(app.limiter.engine) + repr(store._link.name) + repr(vars(store))
        assert "hunter2" not in said
        assert "another-password" not in said


@on_one_server
def test_no_free_connection_is_waited_for_and_no_outage(opened, record_property, monkeypatch):
    usual = pool.PATIENCE
    monkeypatch.setattr(pool, "PATIENCE", 0.3)
    _, _, app = opened(options={"max_connections": 2})
    assert app.posts("/deny", 1) == [200]
    connections = app.limiter.engine.store._link.wire.pool
    taken = [connections.take(), connections.take()]
    refused = [app.post("/deny") for _ in range(3)]
    record_property("seconds", [round(seconds, 3) for _, seconds in refused])
    assert [answer.status_code for answer, _ in refused] == [503] * 3
    assert median(seconds for _, seconds in refused) < usual
    assert not app.changes
    monkeypatch.setattr(pool, "PATIENCE", PATIENCE)
    threading.Timer(0.1, lambda: [connections.put(connection) for connection in taken]).start()
    assert app.posts("/deny", 1) == [200]


@on_one_server
def test_who_waits_for_a_connection_to_a_server_that_hangs_does_not_ask_it_again(opened, monkeypatch):
    """After three time-outs everybody who waits is told at once; none of them wait for a time-out of their own."""
    monkeypatch.setattr(breaker, "_FIRST_WAIT", 2.0)  # So that few of the connections are a probe's.
    server, proxy, app = opened(options={**waiting(0.5), "max_connections": 1})
    with outage_faults.hung(server, proxy):
        accepted = proxy.accepted
        assert app.at_once("/deny", 12) == [503] * 12
        assert proxy.accepted - accepted <= 6  # Three, and the probes meanwhile.
    wait_until(lambda: app.changes == [False, True])


def test_name_that_means_no_address_follows_the_policies(record_property):
    with closing(App("redis://redis.invalid:6379")) as app:
        first = [app.post(f"/{policy}") for policy in POLICIES]
        assert [answer.status_code for answer, _ in first] == [200, 200, 503]
        record_property("first", [round(1000 * seconds, 1) for _, seconds in first])
        wait_until(lambda: app.changes == [False])
        assert app.posts("/local", LIMIT) == [200] * (LIMIT - 1) + [429]


def _decides(words):
    return load("reserve").sha in words
