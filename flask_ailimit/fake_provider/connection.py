"""One connection of a client, and how it can end."""

import socket
import struct
from contextlib import suppress

from .http_text import Request, read_request

_NO_LINGER = struct.pack("ii", 1, 0)


class Connection:
    """A connection. What a client does to it raises :class:`OSError`.

    Attributes:
        is_idle: No request has come since the last answer.
    """

    def __init__(self, client: socket.socket) -> None:
        self._socket = client
        self._stream = client.makefile("rb")
        self.is_idle = True
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def has_more(self) -> bool:
        """Wait for the next request. Answers whether there is one: else the client has left."""
        return bool(self._stream.peek(1))

    def read(self) -> Request | None:
        """Read a request; None if it never came to its end."""
        return read_request(self._stream)

    def send(self, data: bytes) -> None:
        """Send these bytes."""
        self._socket.sendall(data)

    def client_leaves(self, within: float | None) -> bool:
        """Wait so many seconds, or for ever; less if the client leaves or :meth:`interrupt` is called: is it so?"""
        self._socket.settimeout(within)
        try:
            # A client waits for its answer before it says more, so this hears only that it has left.
            return not self._socket.recv(1, socket.MSG_PEEK)
        except (TimeoutError, BlockingIOError):
            return False
        except OSError:
            return True
        finally:
            self._socket.settimeout(None)

    def reset(self) -> None:
        """End it with a reset (RST)."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.close()

    def interrupt(self) -> None:
        """End whatever another thread does with it."""
        with suppress(OSError):  # It has ended.
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it (FIN)."""
        with suppress(OSError):
            self._stream.close()
        self._socket.close()
