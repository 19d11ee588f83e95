"""Servers that die, and others that take over what they had: who is decided for, by whom, how soon."""

import time
from collections import Counter

import pytest
from redis_fleet import admit, fleet_of
from redis_servers import wait_until
from redis_traffic import AMPLE, TIMEOUT, YEAR, Traffic, opening_engines, subjects_of_node, used

from flask_ailimit.engine import Charge, Quota, StoreError
from flask_ailimit.engine.charge import LOCAL

LIMIT = 200
REQUESTS = Quota(LIMIT, YEAR)
TOKENS = Quota(1000, YEAR, "tokens")
SLOTS = Quota(1, 60, "concurrency", "concurrency")

DOWN_AFTER = 3.0
"""Seconds of silence after which sentinels give a primary up: longer than the machine is busy with something else."""

SOON = 15.0
"""Seconds from then to the first decision of the other server, on a machine that may be busy."""


@pytest.fixture
def engine_over(tmp_path):
    yield from opening_engines(tmp_path)


def test_only_the_slots_of_a_killed_node_are_decided_by_policy_until_it_is_back(new_cluster, engine_over):
    cluster = new_cluster(3, "--cluster-require-full-coverage", "no")
    engine = engine_over(cluster.uri)
    lost, *kept = subjects = [subjects_of_node(cluster, node)[0] for node in cluster.nodes]
    traffic = Traffic(engine, [[subject] for subject in subjects], threads=3)
    traffic.wait(20)
    cluster.nodes[0].kill()
    wait_until(lambda: "fail" in cluster.nodes[1].ask("CLUSTER NODES")[f"127.0.0.1:{cluster.ports[0]}"]["flags"])
    traffic.wait(20, "answered")
    traffic.stop()
    assert traffic.failed[lost]
    assert [traffic.failed[subject] for subject in kept] == [0, 0]
    assert [used(engine, subject, AMPLE) for subject in kept] == [traffic.allowed[subject] for subject in kept]
    assert engine.reserve([Charge(lost, REQUESTS, on_store_error=LOCAL)]).allowed
    with pytest.raises(StoreError):
        engine.reserve([Charge(lost, REQUESTS)])
    # One who is limited together with a lost one is not decided by halves.
    with pytest.raises(StoreError):
        engine.reserve([Charge(kept[0], REQUESTS), Charge(lost, REQUESTS)])
    assert used(engine, kept[0], AMPLE) == traffic.allowed[kept[0]]
    # What is only tried stops nobody.
    passed = engine.reserve([Charge(kept[0], TOKENS), Charge(lost, TOKENS, shadow=True)])
    assert [verdict.charge.subject for verdict in passed.decision.verdicts] == [kept[0]]
    assert used(engine, kept[0], TOKENS) == 1
    cluster.nodes[0].restart()
    cluster.wait_ok()
    wait_until(lambda: decides(engine, lost))
    assert used(engine, lost, AMPLE) <= 1


def decides(engine, subject):
    """Whether Redis decides for a subject."""
    try:
        return engine.reserve([Charge(subject, AMPLE)]).allowed
    except StoreError:
        return False


def test_what_later_slots_refuse_is_given_back_by_the_earlier(new_cluster, engine_over):
    cluster = new_cluster()
    engine = engine_over(cluster.uri)
    subjects = [subjects_of_node(cluster, node)[0] for node in cluster.nodes]
    quotas = (REQUESTS, TOKENS, SLOTS)
    for full in subjects:
        holder = engine.reserve([Charge(full, SLOTS)])
        before = [used(engine, subject, quota) for subject in subjects for quota in quotas]
        refused = engine.reserve([Charge(subject, quota) for subject in subjects for quota in quotas])
        assert not refused.allowed
        assert [verdict.charge.subject for verdict in refused.decision.verdicts if not verdict.allowed] == [full]
        assert [used(engine, subject, quota) for subject in subjects for quota in quotas] == before
        told = [verdict.charge.quota.burst - verdict.remaining for verdict in refused.decision.verdicts]
        assert told == before
        holder.settle({})
    with engine.reserve([Charge(subject, quota) for subject in subjects for quota in quotas]) as taken:
        assert taken.allowed
        assert [used(engine, subject, quota) for subject in subjects for quota in quotas] == [1] * 9
    assert [used(engine, subject, SLOTS) for subject in subjects] == [0, 0, 0]


def test_several_slots_never_admit_more_than_the_smallest_of_their_limits(new_cluster, engine_over):
    """Whoever is refused by one limit gives back what it took of the others, whatever others do meanwhile."""
    cluster = new_cluster()
    engine = engine_over(cluster.uri)
    user, model, team = (subjects_of_node(cluster, node)[0] for node in cluster.nodes)
    traffic = Traffic(engine, [[user, model], [model, team], [team, user], [team, model, user]], REQUESTS)
    wait_until(lambda: all(traffic.refused[subject] > LIMIT for subject in (user, model, team)))
    traffic.stop()
    for subject in (user, model, team):
        assert used(engine, subject, REQUESTS) == traffic.allowed[subject] <= LIMIT
    assert max(traffic.allowed.values()) == LIMIT


def test_broken_connections_of_a_restarted_server_cost_no_decision(server, engine_over):
    """Whoever finds out that one is broken may not be handed another that is."""
    engine = engine_over(server.uri)
    connections = engine.store._link.wire.pool
    for connection in [connections.take() for _ in range(20)]:
        connections.put(connection)
    server.restart()
    for _ in range(20):
        assert engine.reserve([Charge(bytes(16), AMPLE)]).allowed


def test_fail_over_admits_what_was_not_replicated_once_more_and_nobody_sees_an_error(new_sentinels, tmp_path):
    limit, replicated, lost = 100, 30, 40
    setup = new_sentinels(int(DOWN_AFTER * 1000), proxied=True)
    path = admit(requests=limit)
    with fleet_of(tmp_path, setup.uri, ["gthread"], timeout=TIMEOUT) as fleet:
        (server,) = fleet.servers
        asked = Counter(server.call(path, "hot").status for _ in range(replicated))
        setup.wait_replicated()
        setup.cut_replication()
        asked += Counter(server.call(path, "hot").status for _ in range(lost))
        assert asked == {200: replicated + lost}
        assert server.books.used("hot", "admit", path)["requests"] == replicated + lost

        entries = len(server.books.entries("taken", "probes"))
        setup.primary.kill()
        killed = time.monotonic()
        statuses = Counter()

        def taken_again():
            statuses[server.call(admit(), "probes").status] += 1
            return server.books.entries("taken", "probes")[entries:]

        (first, *_) = wait_until(taken_again)
        took = first["at"] - killed
        print(f"first decision {took:.2f} s after the kill; {sum(statuses.values())} calls meanwhile")  # noqa: T201  with -rP
        assert set(statuses) == {200}
        assert took <= DOWN_AFTER + SOON
        setup.wait_failed_over()
        wait_until(lambda: all_decide(server))
        asked += fleet.ask_all(path, "hot", 150)
        assert asked == {200: limit + lost, 429: 150 - (limit - replicated)}
        assert server.books.used("hot", "admit", path)["requests"] == limit
        assert "Traceback" not in server.log()


def all_decide(server):
    """Whether Redis decides for both workers."""
    server.call("/answer", "who decides?").rest()
    return len({line["pid"] for line in server.books.entries("taken", "who decides?")}) == 2
