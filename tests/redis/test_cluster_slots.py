"""A cluster's table of slots: whom its nodes name, who is asked for it, and what becomes of nodes that are gone."""

import pytest
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, ClusterError, ConnectionError, MovedError  # noqa: A004

from flask_ailimit.engine.stores.redis.cluster import Cluster

KEY = b"key"
SLOT = key_slot(KEY)
A, B, C = ("10.0.0.1", 7001), ("10.0.0.2", 7002), ("10.0.0.3", 7003)
CALL = ("EVALSHA", b"sha", b"1", KEY)


class Nodes:
    """Makes nodes that answer what a test says.

    Attributes:
        told: What each place answers to CLUSTER SLOTS, an error if it raises it.
        answers: What each place answers to scripts, one after the other; errors are raised.
        asked: The places that were asked, with the command and whether after ASKING.
        closed: The places whose connections were closed.
    """

    def __init__(self):
        self.told, self.answers, self.asked, self.closed = {}, {}, [], []

    def __call__(self, place):
        return Node(self, place)

    def cluster(self, *places):
        return Cluster(self, places, 1.0)


class Node:
    def __init__(self, nodes, place):
        self._nodes, self._place = nodes, place

    def send(self, command, *_, check=None, asking=False):
        self._nodes.asked.append((self._place, command, asking))
        answer = self._nodes.told.get(self._place, ConnectionError("refused"))
        if command != "CLUSTER":
            answer = self._nodes.answers[self._place].pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self):
        self._nodes.closed.append(self._place)


def slots(*ranges):
    """As CLUSTER SLOTS tells: each range of slots with its primary and replicas."""
    return [
        [first, last, *([host and host.encode(), port, b"id", []] for host, port in places)]
        for first, last, *places in ranges
    ]


@pytest.fixture
def nodes():
    return Nodes()


def test_each_slot_is_asked_for_at_its_primary(nodes):
    nodes.told[A] = slots((0, SLOT - 1, A), (SLOT, 16_383, B, C))
    nodes.answers[B] = [b"yes"]
    cluster = nodes.cluster(A)
    assert cluster.place_of(KEY) == ""
    assert cluster.send(*CALL) == b"yes"
    assert nodes.asked == [(A, "CLUSTER", False), (B, "EVALSHA", False)]
    assert cluster.place_of(KEY) == "10.0.0.2:7002"


@pytest.mark.parametrize("nameless", ["", None])
def test_node_that_does_not_know_its_name_is_the_one_that_was_asked(nodes, nameless):
    nodes.told[A] = slots((0, 16_383, (nameless, A[1])))
    nodes.answers[A] = [b"yes"]
    cluster = nodes.cluster(A)
    assert cluster.send(*CALL) == b"yes"
    assert cluster.place_of(KEY) == "10.0.0.1:7001"


def test_slot_that_has_moved_is_asked_for_where_it_is_from_then_on(nodes):
    nodes.told[A] = slots((0, 16_383, A))
    nodes.answers = {A: [MovedError(f"{SLOT} 10.0.0.2:7002")], B: [b"one", b"two"]}
    cluster = nodes.cluster(A)
    assert [cluster.send(*CALL), cluster.send(*CALL)] == [b"one", b"two"]
    assert [place for place, command, _ in nodes.asked if command == "EVALSHA"] == [A, B, B]
    assert cluster.place_of(KEY) == "10.0.0.2:7002"


def test_slot_on_its_way_is_asked_for_where_it_goes_this_once(nodes):
    nodes.told[A] = slots((0, 16_383, A))
    nodes.answers = {A: [AskError(f"{SLOT} :7002"), b"two"], ("10.0.0.1", 7002): [b"one"]}
    cluster = nodes.cluster(A)
    assert [cluster.send(*CALL), cluster.send(*CALL)] == [b"one", b"two"]
    assert [asking for _, command, asking in nodes.asked if command == "EVALSHA"] == [False, True, False]


def test_nodes_that_send_a_command_round_and_round_end_it(nodes):
    nodes.told[A] = slots((0, 16_383, A))
    nodes.answers = {A: [MovedError(f"{SLOT} 10.0.0.2:7002")] * 4, B: [MovedError(f"{SLOT} 10.0.0.1:7001")] * 4}
    with pytest.raises(ClusterError, match="TTL exhausted"):
        nodes.cluster(A).send(*CALL)


@pytest.mark.parametrize("error", [ConnectionError("reset"), ClusterDownError("down")])
def test_after_a_failure_another_node_is_asked_who_has_the_slot(nodes, error):
    nodes.told = {A: slots((0, 16_383, B, C)), C: slots((0, 16_383, C))}
    nodes.answers = {B: [b"first", error], C: [b"yes"]}
    cluster = nodes.cluster(A)
    cluster.send(*CALL)
    nodes.told[A] = ConnectionError("refused")
    with pytest.raises(type(error)):
        cluster.send(*CALL)
    assert nodes.asked[-1] == (C, "CLUSTER", False)
    assert (B, "CLUSTER", False) not in nodes.asked  # Who fails is asked last.
    assert cluster.send(*CALL) == b"yes"
    assert nodes.closed == [B]


def test_what_is_known_stands_if_nobody_tells(nodes):
    nodes.told[A] = slots((0, 16_383, A))
    nodes.answers[A] = [ConnectionError("reset"), b"yes"]
    cluster = nodes.cluster(A)
    nodes.answers[A].insert(0, b"first")
    cluster.send(*CALL)
    nodes.told.clear()
    with pytest.raises(ConnectionError, match="reset"):
        cluster.send(*CALL)
    assert cluster.send(*CALL) == b"yes"


def test_nobody_is_asked_twice_at_the_same_time(nodes):
    """Whoever fails while another one asks goes on with what is known."""
    nodes.told[A] = slots((0, 16_383, A))
    nodes.answers[A] = [b"first", ConnectionError("reset")]
    cluster = nodes.cluster(A)
    cluster.send(*CALL)
    cluster._asking_until = float("inf")
    with pytest.raises(ConnectionError, match="reset"):
        cluster.send(*CALL)
    assert [command for _, command, _ in nodes.asked].count("CLUSTER") == 1


def test_slot_that_nobody_has_is_asked_for_at_any_node(nodes):
    nodes.told[A] = slots((SLOT + 1, 16_383, A))
    nodes.answers[A] = [ClusterDownError("Hash slot not served")]
    cluster = nodes.cluster(A)
    with pytest.raises(ClusterDownError):
        cluster.send(*CALL)
    assert cluster.place_of(KEY) == ""


def test_child_process_knows_the_slots_and_has_no_connections_of_its_parent(nodes):
    nodes.told[A] = slots((0, 16_383, A))
    nodes.answers[A] = [b"parent", b"child"]
    cluster = nodes.cluster(A)
    cluster.send(*CALL)
    before = cluster._nodes[A]
    cluster.forget()
    assert cluster.send(*CALL) == b"child"
    assert cluster._nodes[A] is not before
    assert [command for _, command, _ in nodes.asked].count("CLUSTER") == 1
