"""The servers, as the store sees them: one command there, one answer back.

Built on redis-py's connections, without its retries and its pool, which cost as much as a decision.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from redis.exceptions import (
    ConnectionError,  # noqa: A004  redis-py's, as the next
    ResponseError,
    TimeoutError,  # noqa: A004
)

from .pool import Check, Pool, nothing


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

    def key_at(self, place: str, prefix: bytes) -> bytes | None:
        """A key with this prefix that the server at a place keeps, as others say now. None: it keeps none any more."""

    def send(self, command: str, *arguments: bytes, check: Check = nothing) -> Any:
        """Answer what the server does; raise what redis-py raises.

        ``check`` raises if it isn't worth sending any more; it is asked again after a wait for a free connection.
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
    """One server, or the primary that sentinels name.

    Args:
        make: Makes one of redis-py's connections to it, which is not connected yet.
        most: The most connections of this process.
    """

    slotted = False

    def __init__(self, make: Callable[[], Any], most: int) -> None:
        self.pool = Pool(make, most)

    def place_of(self, key: bytes) -> str:  # noqa: ARG002, D102  see Wire; there is one
        return ""

    def slot_of(self, key: bytes) -> int:  # noqa: ARG002, D102  see Wire; there is one
        return 0

    def key_at(self, place: str, prefix: bytes) -> bytes:  # noqa: ARG002, D102  see Wire; there is one
        return prefix + b":{}:probe"

    def send(self, command: str, *arguments: bytes, check: Check = nothing, asking: bool = False) -> Any:
        """See :class:`Wire`. With ``asking``, a cluster's node is to answer for a slot that is on its way to it."""
        connection = self.pool.take(check)
        try:
            if asking:
                _exchange(connection, b"ASKING")
            answer = _exchange(connection, command.encode(), *arguments)
        except ResponseError:
            self.pool.put(connection)  # All that was sent was answered.
            raise
        except BaseException as error:
            self.pool.drop(connection)
            if isinstance(error, ConnectionError):
                self.pool.clear()  # After a restart all that were there are broken.
            raise
        self.pool.put(connection)
        return answer

    def info(self) -> Mapping[str, str]:  # noqa: D102  see Wire
        lines = self.send("INFO").decode("utf-8", "replace").splitlines()
        return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}

    def clear(self, pattern: bytes) -> None:  # noqa: D102  see Wire
        for keys in self.find(pattern):
            self.send("UNLINK", *keys)

    def find(self, pattern: bytes) -> Iterator[list[bytes]]:
        """The keys of a glob pattern, some at a time."""
        cursor = b"0"
        while True:
            cursor, keys = self.send("SCAN", cursor, b"MATCH", pattern, b"COUNT", b"1000")
            if keys:
                yield keys
            if cursor == b"0":
                return

    def forget(self) -> None:  # noqa: D102  see Wire
        self.pool.forget()

    def close(self) -> None:  # noqa: D102  see Wire
        self.pool.clear()


def _exchange(connection: Any, *command: bytes) -> Any:
    connection.send_packed_command((_packed(*command),), check_health=False)
    return _answer(connection)


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
