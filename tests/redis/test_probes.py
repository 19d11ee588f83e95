"""The probe of a cluster's breaker asks the node that it is about, by a slot that this node has now."""

from contextlib import closing

import pytest
from redis.crc import key_slot
from redis.exceptions import ConnectionError as NobodyThereError
from redis.exceptions import MovedError
from redis_servers import wait_until
from redis_stores import store_at
from redis_traffic import key_of, subjects_of_node

from flask_ailimit.engine import Charge, Quota, StoreError
from flask_ailimit.engine.stores.redis import breaker
from flask_ailimit.engine.stores.redis.cluster import Cluster
from flask_ailimit.engine.stores.redis.links import Link
from flask_ailimit.engine.stores.redis.scripts import load

QUOTA = Quota(1000, 3600)
FLEET = b"ailimit:{}:machines"
ONE, OTHER = ("10.0.0.1", 6379), ("10.0.0.2", 6379)
BY_ONE, BY_OTHER = (f"{host}:{port}" for host, port in (ONE, OTHER))
MANY = 8


class Nodes:
    """Two nodes of a cluster that share the slots as it is said here.

    Attributes:
        slots: Who has which: ``(first, last, place)``.
        dead: Those that answer nothing.
        probes: Who was asked, and for which slot, in order.
    """

    def __init__(self):
        self.slots = [(0, 8191, ONE), (8192, 16383, OTHER)]
        self.dead = set()
        self.probes = []
        self.cluster = Cluster(lambda place: Node(self, place), [ONE, OTHER], 1)
        self.link = Link(self.cluster, "cluster")
        self.changes = []
        self.link.watch(self.changes.append)

    def owner(self, slot):
        return next((place for first, last, place in self.slots if first <= slot <= last), None)

    def run(self, key):
        return self.link.run(load("delete"), [key])


class Node:
    def __init__(self, nodes, place):
        self._nodes, self._place = nodes, place

    def send(self, command, *arguments, check=None, asking=False):
        if self._place in self._nodes.dead:
            raise NobodyThereError("nobody is there")
        if command == "CLUSTER":
            return [[first, last, [place[0].encode(), place[1]]] for first, last, place in self._nodes.slots]
        slot = key_slot(arguments[2])
        if arguments[2].endswith(b":probe"):
            self._nodes.probes.append((self._place, slot))
        if (owner := self._nodes.owner(slot)) != self._place:
            raise MovedError(f"{slot} {owner[0]}:{owner[1]}")
        return 1

    def close(self):
        pass


def key_in(first, last):
    keys = (b"ailimit:{%d}" % number for number in range(100_000))
    return next(key for key in keys if first <= key_slot(key) <= last)


@pytest.fixture
def often(monkeypatch):
    """Probes that come at once, one after the other."""
    monkeypatch.setattr(breaker, "_FIRST_WAIT", 0.01)
    monkeypatch.setattr(breaker, "_LONGEST_WAIT", 0.01)


@pytest.fixture
def nodes(often):
    nodes = Nodes()
    nodes.run(b"ailimit:{}:machines")
    yield nodes
    nodes.link.close()


def open_breaker(nodes, key):
    for _ in range(3):
        with pytest.raises(StoreError):
            nodes.run(key)


@pytest.mark.parametrize("place", [BY_ONE, BY_OTHER])
def test_key_for_a_probe_is_with_the_node_that_is_probed(nodes, place):
    for _ in range(50):
        key = nodes.cluster.key_at(place, b"ailimit")
        assert key.startswith(b"ailimit:{")
        assert nodes.cluster.place_of(key) == place


def test_key_for_a_probe_follows_the_slots(nodes):
    nodes.slots = [(0, 4, ONE), (5, 16383, OTHER)]
    assert key_slot(nodes.cluster.key_at(BY_ONE, b"ailimit")) <= 4
    nodes.slots = [(0, 16383, OTHER)]
    assert nodes.cluster.key_at(BY_ONE, b"ailimit") is None


@pytest.mark.parametrize("dead", [ONE, OTHER])
@pytest.mark.parametrize("key", [FLEET, b"ailimit:{}", b"ailimit:{abc}", b"ailimit:{}x"])
def test_dead_node_stays_away_and_a_well_one_is_never(nodes, dead, key):
    """Whatever the slot of the key is: an empty hash tag is none."""
    nodes.dead.add(dead)
    if nodes.owner(key_slot(key)) != dead:
        for _ in range(5):
            nodes.run(key)
        assert not nodes.changes
        return
    open_breaker(nodes, key)
    (open_one,) = [each for each in nodes.link._breakers.values() if each.is_open]
    asked = []
    probe = open_one._probe
    open_one._probe = lambda: asked.append(1) or probe()
    wait_until(lambda: len(asked) >= MANY)
    assert nodes.changes == [False]
    assert {place for place, _ in nodes.probes} <= {dead}
    nodes.dead.clear()
    wait_until(lambda: nodes.changes == [False, True])
    assert {place for place, _ in nodes.probes} == {dead}


def test_slot_that_moved_away_tells_nothing_of_the_node_that_had_it(nodes):
    key = key_in(0, 100)
    nodes.dead.add(ONE)
    open_breaker(nodes, key)
    nodes.slots = [(0, 100, OTHER), (101, 8191, ONE), (8192, 16383, OTHER)]
    wait_until(lambda: nodes.cluster.place_of(key) == BY_OTHER)
    nodes.run(key)
    staying = key_in(101, 8191)
    for _ in range(5):
        with pytest.raises(StoreError, match="is away"):
            nodes.run(staying)
    assert nodes.changes == [False]
    nodes.dead.clear()
    wait_until(lambda: nodes.changes == [False, True])
    assert all(place == ONE and slot > 100 for place, slot in nodes.probes)


def test_node_without_slots_is_waited_for_no_more(nodes, caplog):
    """Another one has been made the primary in its place."""
    key = key_in(0, 8191)
    nodes.dead.add(ONE)
    open_breaker(nodes, key)
    nodes.slots = [(0, 16383, OTHER)]
    wait_until(lambda: nodes.changes == [False, True])
    nodes.run(key)
    assert f"{BY_ONE} is asked no more: it has no slots any more." in caplog.text
    assert not nodes.probes


def test_well_node_is_not_blamed_for_one_to_which_it_sends(nodes):
    """It says that a slot has moved, and the node that has it now is dead."""
    nodes.slots = [(0, 100, OTHER), (101, 8191, ONE), (8192, 16383, OTHER)]
    nodes.dead.add(OTHER)
    for slot in (7, 8, 9):
        with pytest.raises(StoreError):
            nodes.run(key_in(slot, slot))
        nodes.cluster._owners[slot] = ONE  # As if this process had learned nothing by it.
    assert not nodes.link._breakers[BY_ONE].is_open


def test_slots_that_nobody_has_are_no_node_s_outage(nodes):
    nodes.slots = [(101, 8191, ONE), (8192, 16383, OTHER)]
    nodes.cluster._learn()
    assert key_slot(nodes.cluster.key_at("", b"ailimit")) <= 100


def test_change_is_told_when_the_first_node_goes_and_when_the_last_is_back(nodes):
    nodes.dead |= {ONE, OTHER}
    for key in (key_in(0, 8191), key_in(8192, 16383)):
        open_breaker(nodes, key)
    wait_until(lambda: nodes.changes == [False])
    nodes.dead.discard(ONE)
    wait_until(lambda: not nodes.link._breakers[BY_ONE].is_open)
    nodes.run(key_in(0, 8191))
    assert nodes.changes == [False]
    nodes.dead.clear()
    wait_until(lambda: nodes.changes == [False, True])


# Over real nodes


def test_node_that_hangs_is_away_until_it_answers_though_a_slot_of_it_has_moved(cluster, often):
    """The slot of what was asked for first, which is well with another node by then."""
    hanging = cluster.nodes[0]
    proxy = cluster.proxies[0]
    moving, staying = subjects_of_node(cluster, hanging, 2)
    migration = cluster.migration(key_of(moving), cluster.nodes[1])
    with closing(store_at(cluster.uri, timeout=1)) as store:
        changes = []
        store.watch(changes.append)
        for subject in (moving, moving, staying):  # The first is asked for while no node is known.
            store.reserve([Charge(subject, QUOTA)], 1)
        migration.begin()
        migration.finish()
        hanging.stop_process()
        try:
            for _ in range(3):
                with pytest.raises(StoreError):
                    store.reserve([Charge(staying, QUOTA)], 2)
            assert store.reserve([Charge(moving, QUOTA)], 2).allowed
            accepted = proxy.accepted
            wait_until(lambda: proxy.accepted - accepted >= 2)  # A probe that times out asks over a new connection.
            assert changes == [False]
            with pytest.raises(StoreError, match="is away"):
                store.reserve([Charge(staying, QUOTA)], 3)
        finally:
            hanging.continue_process()
        wait_until(lambda: changes == [False, True])
        assert store.reserve([Charge(staying, QUOTA)], 4).allowed
