"""A cluster of masters that share the slots, and the migration of a slot one step at a time."""

from contextlib import ExitStack

from proxied_server import start_member
from redis.crc import key_slot
from redis_servers import PATIENCE, free_port, wait_until

SLOTS = 16_384


class ClusterSetup:
    """What :func:`start_cluster` started.

    Attributes:
        uri: Where clients find all of it.
        nodes: The masters, each a :class:`redis_servers.Server`.
        proxies: The :class:`fault_proxy.FaultProxy` of each node, in the nodes' order, or none. Every client goes
            through them, also when a node sends it to another.
    """

    def __init__(self, nodes, proxies):
        self.nodes = nodes
        self.proxies = proxies
        self._migrations = []
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        self.uri = f"redis+cluster://{hosts}"

    @property
    def ports(self):
        """Where clients find the nodes, in their order."""
        return [server.port for server in self.proxies or self.nodes]

    def owner(self, key):
        """The node that has the key's slot, as the nodes that live say."""
        slot = key_slot(key.encode())
        port = next(
            first_master[1]
            for node in self.nodes
            if node.alive
            for begin, end, first_master, *_ in node.ask("CLUSTER SLOTS")
            if begin <= slot <= end
        )
        return self.nodes[self.ports.index(port)]

    def migration(self, key, target):
        """How the key's slot gets to the target; see :class:`Migration`. Nothing moves yet."""
        migration = Migration(self.nodes, key_slot(key.encode()), self.owner(key), target)
        self._migrations.append(migration)
        return migration

    def clear(self):
        """Have it pass everything on, move no slot, and hold nothing."""
        for proxy in self.proxies:
            proxy.heal()
        for node in self.nodes:
            node.clear()
        while self._migrations:
            self._migrations.pop().finish()
        self.wait_ok()

    def wait_ok(self):
        """Wait until every node that lives finds that every slot is served."""
        wait_until(lambda: all(n.ask("CLUSTER INFO")["cluster_state"] == "ok" for n in self.nodes if n.alive))

    def close(self):
        for member in (*self.nodes, *self.proxies):
            member.close()


class Migration:
    """A slot on its way, of which the test takes every step.

    Attributes:
        slot: Its number.
        source: The node that has it.
        target: The node that is to have it.
    """

    def __init__(self, nodes, slot, source, target):
        self.slot = slot
        self.source, self.target = source, target
        self._begun = False
        self._others = [node for node in nodes if node not in (source, target)]

    def begin(self):
        """From now on the source sends clients to the target (ASK) for keys that it has not, or not any more."""
        self._begun = True
        self._set(self.target, "IMPORTING", _name(self.source))
        self._set(self.source, "MIGRATING", _name(self.target))

    def remaining(self):
        """The keys that the source still has."""
        return self.source.ask("CLUSTER", "GETKEYSINSLOT", self.slot, 1_000_000)

    def move_keys(self, count=None):
        """Move so many of the keys, or all, one by one; answers which."""
        moved = self.remaining()[:count]
        for key in moved:
            self.source.ask("MIGRATE", "127.0.0.1", self.target.port, key, 0, PATIENCE * 1000)
        return moved

    def finish(self):
        """If it has begun, move what remains and give the slot to the target; all send clients there then (MOVED)."""
        if not self._begun:
            return
        self.move_keys()
        for node in (self.target, self.source, *self._others):
            self._set(node, "NODE", _name(self.target))
        self._begun = False

    def _set(self, node, state, name):
        node.ask("CLUSTER SETSLOT", self.slot, state, name)


def start_cluster(binary, nodes=3, *options, proxied=False):
    """Start a cluster without replicas, and wait until every node finds that every slot is served.

    Args:
        binary: Path of the program.
        nodes: How many masters share the slots.
        options: More of each one's command line, such as ``"--cluster-require-full-coverage", "no"``.
        proxied: Whether each node is behind a fault proxy, for clients only.

    Returns:
        A :class:`ClusterSetup`, which the caller closes.
    """
    announce = "--cluster-announce-port" if proxied else None
    bus_ports = [free_port() for _ in range(nodes)]
    enabled = ("--cluster-enabled", "yes", "--cluster-node-timeout", "5000", "--cluster-port")
    with ExitStack() as ending:
        members = [
            start_member(ending, binary, *enabled, str(bus_port), *options, announce=announce) for bus_port in bus_ports
        ]
        servers, proxies = zip(*members, strict=True)
        cluster = ClusterSetup(servers, proxies if proxied else ())
        for number, (server, port, bus_port) in enumerate(zip(servers, cluster.ports, bus_ports, strict=True)):
            slots = SLOTS * number // nodes, SLOTS * (number + 1) // nodes - 1
            server.ask("CLUSTER ADDSLOTSRANGE", *slots)
            server.ask("CLUSTER SET-CONFIG-EPOCH", number + 1)
            if number:
                servers[0].ask("CLUSTER MEET", "127.0.0.1", port, bus_port)
        cluster.wait_ok()
        # Without full coverage a node is content before it knows all the others.
        wait_until(lambda: all(n.ask("CLUSTER INFO")["cluster_slots_assigned"] == str(SLOTS) for n in servers))
        ending.pop_all()
        return cluster


def _name(node):
    return node.ask("CLUSTER MYID")
