"""The way to the servers: a script with its keys goes there, and its answer comes back, at most once.

Built on redis-py's connections, without its retries: they charge a lost reply twice, and wait for up to a minute. What
is sent again is a call whose connection broke, once, because the scripts know it again; and a script that the server
has forgotten.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, LifoQueue
from typing import Any, Protocol
from weakref import WeakSet

from redis import Redis
from redis.cluster import RedisCluster
from redis.crc import key_slot
from redis.exceptions import (
    ConnectionError,  # noqa: A004  redis-py's, as the next
    MaxConnectionsError,
    NoScriptError,
    OutOfMemoryError,
    TimeoutError,  # noqa: A004
)

from flask_ailimit.engine.errors import StoreError

from .breaker import Breaker, describe
from .scripts import Script, load


class UnansweredError(StoreError):
    """The call was sent, and nobody knows whether it was obeyed."""


class Wire(Protocol):
    """Sends one command and reads its answer.

    Attributes:
        slotted: Keys of different slots can't be used in one script.
    """

    slotted: bool

    def place_of(self, key: bytes) -> str:
        """The server that keeps a key, so far as is known."""

    def slot_of(self, key: bytes) -> int:
        """The slot of a key; one and the same if there are none."""

    def send(self, command: str, *arguments: bytes) -> Any:
        """Answer what the server does; raise what redis-py raises."""

    def info(self) -> Mapping[str, str]:
        """What the server says of itself; of a cluster, what one node says."""

    def clear(self, pattern: bytes) -> None:
        """Delete every key of a glob pattern, on all servers. For operators: it looks at every key there is."""

    def forget(self) -> None:
        """Drop every connection without a word to the server: they may be a parent process's."""

    def close(self) -> None:
        """Close every connection."""


class OneServer:
    """One server, or the primary that sentinels name, over connections that are used again, the latest first.

    Args:
        client: Whose pool makes the connections.
        most: The most connections of this process.
        timeout: Seconds to wait for a free one.
    """

    slotted = False

    def __init__(self, client: Redis, most: int, timeout: float) -> None:
        self._pool = client.connection_pool
        self._most = most
        self._timeout = timeout
        self.forget()

    def place_of(self, key: bytes) -> str:  # noqa: ARG002, D102  see Wire; there is one
        return ""

    def slot_of(self, key: bytes) -> int:  # noqa: ARG002, D102  see Wire; there is one
        return 0

    def send(self, command: str, *arguments: bytes) -> Any:  # noqa: D102  see Wire
        free = self._free
        try:
            connection = free.get(timeout=self._timeout)
        except Empty:
            raise MaxConnectionsError(f"all {self._most} connections are in use") from None
        try:
            connection = connection or self._pool.make_connection()
            connection.connect()  # Nothing if it is connected; it disconnects itself if anything goes wrong.
            connection.send_packed_command([_packed(command.encode(), *arguments)], check_health=False)
            return connection.read_response(disable_decoding=True)
        finally:
            free.put(connection)

    def info(self) -> Mapping[str, str]:  # noqa: D102  see Wire
        lines = self.send("INFO").decode("utf-8", "replace").splitlines()
        return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}

    def clear(self, pattern: bytes) -> None:  # noqa: D102  see Wire
        cursor = b"0"
        while True:
            cursor, keys = self.send("SCAN", cursor, b"MATCH", pattern, b"COUNT", b"1000")
            if keys:
                self.send("UNLINK", *keys)
            if cursor == b"0":
                return

    def forget(self) -> None:  # noqa: D102  see Wire
        self._free: LifoQueue[Any] = LifoQueue()
        for _ in range(self._most):
            self._free.put(None)

    def close(self) -> None:  # noqa: D102  see Wire
        for connection in self._free.queue:
            if connection is not None:
                connection.disconnect()


class Cluster:
    """A cluster, by redis-py's client, which knows what node has which slot. It asks them when it is first used."""

    slotted = True

    def __init__(self, connect: Callable[[], RedisCluster]) -> None:
        self._connect = connect
        self._nodes: Any = None  # A RedisCluster; half of its methods have no types.

    def place_of(self, key: bytes) -> str:  # noqa: D102  see Wire
        node = self._nodes.get_node_from_key(key) if self._nodes else None
        return node.name if node else ""

    def slot_of(self, key: bytes) -> int:  # noqa: D102  see Wire
        return key_slot(key)

    def send(self, command: str, *arguments: bytes) -> Any:  # noqa: D102  see Wire
        self._nodes = self._nodes or self._connect()
        return self._nodes.execute_command(command, *arguments)

    def info(self) -> Mapping[str, str]:  # noqa: D102  see Wire
        self._nodes = self._nodes or self._connect()
        told = self._nodes.info(target_nodes=self._nodes.get_random_node())
        return {name: str(value) for name, value in told.items()}

    def clear(self, pattern: bytes) -> None:  # noqa: D102  see Wire
        self._nodes = self._nodes or self._connect()
        for key in self._nodes.scan_iter(match=pattern, count=1000):
            self._nodes.unlink(key)

    def forget(self) -> None:  # noqa: D102  see Wire
        self._nodes = None

    def close(self) -> None:  # noqa: D102  see Wire
        if self._nodes:
            self._nodes.close()


class Link:
    """Runs scripts, and knows which servers are away.

    Args:
        wire: How commands get there.
        name: The store's name in the log.
    """

    def __init__(self, wire: Wire, name: str) -> None:
        self.wire = wire
        self.name = name
        self._listeners: list[Callable[[bool], None]] = []
        self._breakers: dict[str, Breaker] = {}
        _everywhere.add(self)

    def watch(self, listener: Callable[[bool], None]) -> None:
        """Call ``listener`` with False when a server goes away and True when it is back, from any thread."""
        self._listeners.append(listener)

    def run(self, script: Script, keys: Sequence[bytes], *arguments: bytes, even_when_full: bool = False) -> Any:
        """Answer what a script does with keys of one slot.

        Raises:
            UnansweredError: It is not known whether it ran.
            StoreError: It did not run: the server is away.
        """
        breaker = self._breaker_of(keys[0])
        breaker.require_closed()
        try:
            answer = self._run_once(script, keys, arguments, even_when_full=even_when_full)
        except Exception as error:  # redis-py raises more than its own errors while a cluster changes.
            breaker.failed(describe(error))
            raise UnansweredError(f"{self.name} didn't answer: {describe(error)}") from error
        breaker.succeeded()
        return answer

    def clear(self, pattern: bytes) -> None:
        """Delete every key of a glob pattern.

        Raises:
            StoreError: Not all are known to be deleted.
        """
        try:
            self.wire.clear(pattern)
        except Exception as error:
            raise StoreError(f"{self.name} didn't answer: {describe(error)}") from error

    def close(self) -> None:
        """Stop probing, and close the connections."""
        for breaker in self._breakers.values():
            breaker.stop()
        self.wire.close()

    def forget(self) -> None:
        """Start anew in a child process, which has neither its parent's connections nor its threads."""
        self._breakers = {}
        self.wire.forget()

    def _run_once(
        self, script: Script, keys: Sequence[bytes], arguments: Sequence[bytes], *, even_when_full: bool
    ) -> Any:
        try:
            return self._eval(script, keys, arguments)
        except TimeoutError:
            raise  # Who has waited for so long doesn't wait again.
        except ConnectionError:
            return self._eval(script, keys, arguments)
        except OutOfMemoryError:
            if not even_when_full:
                raise
            return self._eval(script.when_full, keys, arguments)

    def _eval(self, script: Script, keys: Sequence[bytes], arguments: Sequence[bytes]) -> Any:
        rest = (b"%d" % len(keys), *keys, *arguments)
        try:
            return self.wire.send("EVALSHA", script.sha, *rest)
        except NoScriptError:
            return self.wire.send("EVAL", script.text, *rest)

    def _breaker_of(self, key: bytes) -> Breaker:
        place = self.wire.place_of(key)
        breaker = self._breakers.get(place)
        if breaker is None:
            probe_key = key + b":probe"
            name = f"{self.name} {place}".rstrip()
            breaker = Breaker(name, lambda: self._eval(load("probe"), [probe_key], []), self._tell)
            breaker = self._breakers.setdefault(place, breaker)
        return breaker

    def _tell(self, available: bool) -> None:
        for listener in self._listeners:
            listener(available)


def _packed(*parts: bytes) -> bytes:
    """A command in RESP, Redis's protocol: an array of bulk strings."""
    return b"*%d\r\n" % len(parts) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


_everywhere: "WeakSet[Link]" = WeakSet()


def _after_fork() -> None:
    for link in _everywhere:
        link.forget()


os.register_at_fork(after_in_child=_after_fork)
