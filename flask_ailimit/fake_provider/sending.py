"""Sends an answer over a connection, as a fault orders it."""

from collections.abc import Callable
from typing import NamedTuple

from .call import Call
from .connection import Connection
from .fault import Fault
from .http_text import LAST_CHUNK, chunk_of, head_of
from .words import Piece

Pairs = list[tuple[str, str]]

Settle = Callable[[int], object]
"""Is told how many tokens of the answer have been made. Only the first call counts."""


class Reply(NamedTuple):
    """An answer before it is sent.

    Attributes:
        pieces: Of a stream its events, else the one body.
        settle: Called when the answer ends, before its last piece is sent: who has all of it finds it settled.
    """

    status: int
    headers: Pairs
    pieces: list[Piece]
    is_stream: bool = False
    settle: Settle = lambda _: None


def send(connection: Connection, call: Call, reply: Reply, fault: Fault) -> bool:
    """Send it. Answers whether the connection can serve another request.

    ``call`` is filled in before the client can see what it says.

    Raises:
        OSError: The client has left.
    """
    sent = 0
    try:
        if fault.delay and connection.client_leaves(within=fault.delay):
            return False
        call.status = reply.status
        connection.send(head_of(reply.status, _headers(reply, fault)))
        for piece in _kept(reply, fault):
            if fault.pause and connection.client_leaves(within=fault.pause):
                return False
            sent += piece.tokens
            is_last = piece is reply.pieces[-1]
            if is_last:
                reply.settle(sent)
            # What was sent to who has left is lost, though the system takes it.
            if connection.client_leaves(within=0):
                return False
            call.delivered = True if is_last and fault.cut_after is None else None
            connection.send(chunk_of(piece.data) if reply.is_stream else piece.data)
        if fault.cut_after is not None:
            reply.settle(sent)
            call.delivered = False
            return _cut(connection, reply, fault)
        if reply.is_stream:
            connection.send(LAST_CHUNK)
    except OSError:
        call.delivered = False
        raise
    finally:
        reply.settle(sent)
    return True


def _headers(reply: Reply, fault: Fault) -> Pairs:
    length = len(b"".join(piece.data for piece in _kept(reply, fault if fault.ending == "clean" else None)))
    framing = ("transfer-encoding", "chunked") if reply.is_stream else ("content-length", str(length))
    ordered = {name for name, _ in fault.headers}
    return [*((name, value) for name, value in [*reply.headers, framing] if name not in ordered), *fault.headers]


def _kept(reply: Reply, fault: Fault | None) -> list[Piece]:
    """The pieces that are sent: of a stream that is cut the first ones, of another body that is cut the half."""
    if fault is None or fault.cut_after is None:
        return reply.pieces
    if reply.is_stream:
        return reply.pieces[: fault.cut_after]
    (whole,) = reply.pieces
    return [Piece(whole.data[: len(whole.data) // 2], whole.tokens)]


def _cut(connection: Connection, reply: Reply, fault: Fault) -> bool:
    if fault.ending == "clean":
        if reply.is_stream:
            connection.send(LAST_CHUNK)
        return True
    if fault.ending == "reset":
        connection.reset()  # What came before it stays readable for the client.
    return False
