"""A slot of a cluster moves from one node to another under traffic: nothing is counted twice, and nobody is refused."""

import pytest
from redis_servers import wait_until
from redis_traffic import (
    AMPLE,
    YEAR,
    Traffic,
    key_of,
    opening_engines,
    slot_of,
    subjects_in_slot,
    subjects_of_node,
    used,
)

from flask_ailimit.engine import Charge, Quota


@pytest.fixture
def engine_over(tmp_path):
    yield from opening_engines(tmp_path)


def migrate(cluster, subject):
    """The migration of a subject's slot to another node."""
    owner = cluster.owner(key_of(subject))
    return cluster.migration(key_of(subject), next(node for node in cluster.nodes if node is not owner))


def test_counts_are_exact_though_a_slot_migrates(new_cluster, engine_over):
    """With one subject, two of the same slot, and two of which only one is on its way."""
    cluster = new_cluster()
    engine = engine_over(cluster.uri)
    (other,) = subjects_of_node(cluster, cluster.nodes[1])
    first, second = subjects_in_slot(slot_of(subjects_of_node(cluster, cluster.nodes[0])[0]), 2)
    many = Quota(1500, YEAR)
    traffic = Traffic(engine, [[first], [second], [first, second], [first, other]], many)
    traffic.wait(20)
    migration = migrate(cluster, first)
    migration.begin()
    traffic.wait(10, "answered")
    migration.move_keys(1)
    traffic.wait(10, "answered")
    migration.finish()
    wait_until(lambda: traffic.refused[first])
    traffic.stop()
    wait_until(lambda: not engine.store._afterwards._thread.is_alive())
    for subject in (first, second, other):
        assert used(engine, subject, many) == traffic.allowed[subject]
    while engine.reserve([Charge(first, many)]).allowed:
        traffic.allowed[first] += 1
    assert traffic.allowed[first] == many.limit


def test_subjects_of_other_slots_are_not_disturbed_by_one_that_migrates(new_cluster, engine_over):
    traffic, _, staying = while_a_slot_migrates(new_cluster(), engine_over)
    assert traffic.failed[staying] == 0


def test_subject_is_decided_by_redis_also_while_its_slot_migrates(new_cluster, engine_over):
    traffic, moving, _ = while_a_slot_migrates(new_cluster(), engine_over)
    assert traffic.failed[moving] == 0


def while_a_slot_migrates(cluster, engine_over):
    """The traffic of two subjects of one node, of whom one moves to another node, and the subjects."""
    moving, staying = subjects_of_node(cluster, cluster.nodes[0], 2)
    traffic = Traffic(engine_over(cluster.uri), [[moving], [moving], [moving], [staying]], AMPLE)
    traffic.wait(20)
    migration = migrate(cluster, moving)
    migration.begin()
    traffic.wait(10, "answered")
    migration.move_keys()
    traffic.wait(10, "answered")
    migration.finish()
    traffic.wait(20)
    traffic.stop()
    return traffic, moving, staying
