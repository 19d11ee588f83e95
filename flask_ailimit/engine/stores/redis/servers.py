"""The servers, as the store sees them: one command there, one answer back.

Built on redis-py's connections, without its retries and its pool, which cost as much as a decision.
"""

from collections.abc import Callable, Mapping
from queue import Empty
from threading import Lock
from typing import Any, Protocol

from redis import Redis
from redis.cluster import RedisCluster
from redis.crc import key_slot
from redis.exceptions import (
    MaxConnectionsError,
    RedisClusterException,
    ResponseError,
    TimeoutError,  # noqa: A004  redis-py's
)

from flask_ailimit.engine.errors import StoreError

from .stack import Stack

_REDIRECTIONS = 4
"""How often a cluster may send a command elsewhere. redis-py's 16 mean half a second of sleep while a slot migrates."""

_PATIENCE = 10.0
"""Seconds to wait for a free connection. Not long while the server is away: the breaker is looked at after the wait."""

Check = Callable[[], None]
"""Raises if something is no longer worth doing."""


def nothing() -> None:
    """Find no reason to raise."""


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

    def send(self, command: str, *arguments: bytes, check: Check = nothing, fresh: bool = False) -> Any:
        """Answer what the server does; raise what redis-py raises.

        ``check`` raises if it isn't worth sending any more, after a wait for a free connection. With ``fresh`` the
        connection is made anew: after a restart all that were there are broken.
        """

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
    """

    slotted = False

    def __init__(self, client: Redis, most: int) -> None:
        self._pool = client.connection_pool
        self._most = most
        self.forget()

    def place_of(self, key: bytes) -> str:  # noqa: ARG002, D102  see Wire; there is one
        return ""

    def slot_of(self, key: bytes) -> int:  # noqa: ARG002, D102  see Wire; there is one
        return 0

    def send(self, command: str, *arguments: bytes, check: Check = nothing, fresh: bool = False) -> Any:  # noqa: D102  see Wire
        free = self._free
        try:
            connection = free.get(timeout=_PATIENCE)
        except Empty:
            raise MaxConnectionsError(f"all {self._most} connections were in use for {_PATIENCE} s") from None
        try:
            check()
            connection = connection or self._pool.make_connection()
            if fresh:
                connection.disconnect()
            connection.connect()  # Nothing if it is connected.
            connection.send_packed_command((_packed(command.encode(), *arguments),), check_health=False)
            return _answer(connection)
        except (ResponseError, StoreError):
            raise  # All that was sent was answered.
        except BaseException:
            if connection is not None:
                connection.disconnect()  # Else whoever has it next would read this answer for its own.
            raise
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
        self._free = Stack()
        for _ in range(self._most):
            self._free.put(None)

    def close(self) -> None:  # noqa: D102  see Wire
        for connection in [*self._free.queue]:
            if connection is not None:
                connection.disconnect()


class Cluster:
    """A cluster, by redis-py's client, which knows what node has which slot. It asks them when it is first used."""

    slotted = True

    def __init__(self, connect: Callable[[], RedisCluster]) -> None:
        self._connect = connect
        self._nodes: Any = None  # A RedisCluster; half of its methods have no types.
        self._connecting = Lock()

    def place_of(self, key: bytes) -> str:  # noqa: D102  see Wire
        try:
            return str(self._nodes.get_node_from_key(key).name) if self._nodes else ""
        except RedisClusterException:  # No node has the key's slot.
            return ""

    def slot_of(self, key: bytes) -> int:  # noqa: D102  see Wire
        return key_slot(key)

    def send(  # noqa: D102  see Wire
        self,
        command: str,
        *arguments: bytes,
        check: Check = nothing,  # noqa: ARG002  redis-py has connections for everybody, and finds out itself
        fresh: bool = False,  # noqa: ARG002
    ) -> Any:
        return self._connected().execute_command(command, *arguments)

    def info(self) -> Mapping[str, str]:  # noqa: D102  see Wire
        nodes = self._connected()
        told = nodes.info(target_nodes=nodes.get_random_node())
        return {name: str(value) for name, value in told.items()}

    def clear(self, pattern: bytes) -> None:  # noqa: D102  see Wire
        nodes = self._connected()
        for key in nodes.scan_iter(match=pattern, count=1000):
            nodes.unlink(key)

    def forget(self) -> None:  # noqa: D102  see Wire
        self._nodes = None
        self._connecting = Lock()

    def close(self) -> None:  # noqa: D102  see Wire
        if self._nodes:
            self._nodes.close()

    def _connected(self) -> Any:
        if self._nodes is None:
            with self._connecting:
                if self._nodes is None:
                    nodes = self._connect()
                    nodes.RedisClusterRequestTTL = _REDIRECTIONS
                    self._nodes = nodes
        return self._nodes


def _answer(connection: Any) -> Any:
    """The server's answer. After a time-out one more look: it may have been here before this thread was."""
    try:
        return connection.read_response(disable_decoding=True, disconnect_on_error=False)
    except TimeoutError:
        if not connection.can_read(0):
            raise
        return connection.read_response(disable_decoding=True, disconnect_on_error=False)


def _packed(*parts: bytes) -> bytes:
    """A command in RESP, Redis's protocol: an array of bulk strings."""
    pieces = [b"*%d\r\n" % len(parts)]
    for part in parts:
        pieces += (b"$%d\r\n" % len(part), part, b"\r\n")
    return b"".join(pieces)
