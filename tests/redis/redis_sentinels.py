"""A primary, a replica, and the sentinels that make the one of the other."""

from contextlib import ExitStack, closing

from fault_proxy import FOREVER
from proxied_server import start_member
from redis_servers import start_server, wait_until

NAME = "mymaster"
SENTINELS = 3

CONFIG = f"""
sentinel monitor {NAME} 127.0.0.1 {{port}} 2
sentinel down-after-milliseconds {NAME} {{down_after_ms}}
sentinel failover-timeout {NAME} 3000
"""

# What sentinels wait for is part of the fail-over's time, so it is shortened only until they know each other.
HASTE = ("info-period", 100, "publish-period", 100)
USUAL = ("info-period", 10_000, "publish-period", 2000)


class SentinelSetup:
    """What :func:`start_sentinels` started.

    Attributes:
        uri: Where clients find all of it.
        primary: The :class:`redis_servers.Server` that was it at the start.
        replica: The one that may become it.
        port: Where clients find the one that was primary at the start.
        replica_port: Where clients find the other.
        sentinels: The sentinels, which are servers too.
        proxies: The :class:`fault_proxy.FaultProxy` of the primary and that of the replica, or none at all. Clients,
            sentinels and the replication itself go through them.
    """

    def __init__(self, primary, replica, sentinels, proxies):
        self.primary, self.replica = primary, replica
        self.sentinels = sentinels
        self.proxies = proxies
        self.port, self.replica_port = [server.port for server in proxies or (primary, replica)]
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
        self.uri = f"redis+sentinel://{hosts}/{NAME}"

    @property
    def primary_port(self):
        """Where the sentinels send clients now; None if they do not agree."""
        question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
        ports = {int(sentinel.ask(*question)[1]) for sentinel in self.sentinels if sentinel.alive}
        return ports.pop() if len(ports) == 1 else None

    def clear(self):
        """Have it pass everything on, and hold nothing. It must not have failed over."""
        assert self.primary_port == self.port, "it has failed over"
        for proxy in self.proxies:
            proxy.heal()
        self.primary.clear()
        self.wait_replicated()

    def cut_replication(self):
        """Have nothing more reach the replica, while clients and sentinels reach both. It needs the proxies.

        Returns:
            The :class:`fault_proxy.Fault` that the replica's attempts to come back meet.
        """
        fault = self.proxies[0].inject("cut_request", command="PSYNC", times=FOREVER)
        self.proxies[0].reset_connections(after="PSYNC")
        return fault

    def wait_replicated(self):
        """Wait until the replica has all that the primary has now."""
        written = self.primary.ask("INFO", "replication")["master_repl_offset"]

        def arrived():
            replica = self.replica.ask("INFO", "replication")
            return replica["master_link_status"] == "up" and replica["slave_repl_offset"] >= written

        wait_until(arrived)

    def wait_failed_over(self):
        """Wait until all sentinels send clients to the replica, and it takes writes."""
        wait_until(lambda: self.primary_port == self.replica_port)
        wait_until(lambda: self.replica.ask("INFO", "replication")["role"] == "master")

    def close(self):
        for member in (*self.sentinels, self.replica, self.primary, *self.proxies):
            member.close()


def start_sentinels(binary, down_after_ms=1000, *, proxied=False):
    """Start a primary, a replica and three sentinels, and wait until they know each other.

    Args:
        binary: Path of the program that all of them are.
        down_after_ms: After which silence a sentinel thinks that the primary is down. Two must think so.
        proxied: Whether the primary and the replica are each behind a fault proxy, for clients, sentinels and
            replication alike.

    Returns:
        A :class:`SentinelSetup`, which the caller closes.
    """
    announce = "--replica-announce-port" if proxied else None
    with ExitStack() as ending:
        primary, proxy = start_member(ending, binary, announce=announce)
        proxies = [proxy]
        port = proxy.port if proxied else primary.port
        replica, proxy = start_member(ending, binary, "--replicaof", "127.0.0.1", str(port), announce=announce)
        proxies.append(proxy)
        wait_until(lambda: replica.ask("INFO", "replication")["master_link_status"] == "up")
        config = CONFIG.format(port=port, down_after_ms=down_after_ms)
        sentinels = []
        for _ in range(SENTINELS):
            sentinel = ending.enter_context(closing(start_server(binary, "--sentinel", config=config)))
            sentinel.ask("SENTINEL DEBUG", *HASTE)
            sentinels.append(sentinel)
        for sentinel in sentinels:
            _wait_acquainted(sentinel)
        ending.pop_all()
        return SentinelSetup(primary, replica, sentinels, proxies if proxied else [])


def _wait_acquainted(sentinel):
    def acquainted():
        known = sentinel.ask("SENTINEL MASTER", NAME)
        return (known["num-slaves"], known["num-other-sentinels"]) == (1, SENTINELS - 1)

    wait_until(acquainted)
    wait_until(lambda: sentinel.ask("SENTINEL CKQUORUM", NAME) is not None)
    sentinel.ask("SENTINEL DEBUG", *USUAL)
