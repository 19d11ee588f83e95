"""A port on which clients are served, each by a thread of its own, and which can refuse them for a while."""

import socket
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Lock, Thread

from flask_ailimit.engine.clock import seconds_running

from .connection import Connection

_BACKLOG = 1024
_MOMENT = 0.2
"""Seconds in which a connection ends whose answer has been sent."""

_PATIENCE = 5.0
"""Seconds to wait for threads at the end. All that keeps one for so long is a function of the test's own."""

Serve = Callable[[Connection], None]


class Port:
    """Listens on a free port of this machine's loopback.

    Args:
        serve: Serves a connection until it ends, in a thread of its own.
    """

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._lock = Lock()
        self._connections: dict[Connection, Thread] = {}
        self._is_closing = False
        self._listens = Event()
        self._listens.set()
        self._listener = _listener_on_free_port()
        self.number: int = self._listener.getsockname()[1]
        self._acceptor = Thread(target=self._accept, name=f"fake provider {self.number}", daemon=True)
        self._acceptor.start()

    def refuse(self) -> None:
        """Refuse new connections and end those that wait for a request. Calls in flight go on."""
        with self._lock:
            self._listens.clear()
            # The socket stays bound, so that nobody else gets the port meanwhile.
            self._listener.shutdown(socket.SHUT_RD)
            threads = dict(self._connections)
        for connection in threads:
            if connection.is_idle:
                connection.interrupt()
        # Who has just got an answer must find its connection ended. Calls that go on are not waited for.
        until = seconds_running() + _MOMENT
        for thread in threads.values():
            thread.join(max(0.0, until - seconds_running()))

    @property
    def refuses(self) -> bool:
        """Whether it refuses new connections now."""
        return not self._listens.is_set()

    def accept(self) -> None:
        """Accept connections again."""
        with self._lock:
            if not self._is_closing:
                self._listener.listen(_BACKLOG)
                self._listens.set()

    def close(self) -> None:
        """End everything, and wait for the threads."""
        with self._lock:
            self._is_closing = True
            with suppress(OSError):  # It refuses already.
                self._listener.shutdown(socket.SHUT_RD)
            self._listens.set()
        self._acceptor.join(_PATIENCE)
        self._listener.close()
        with self._lock:
            ending = dict(self._connections)
        for connection in ending:
            connection.interrupt()
        for thread in ending.values():
            thread.join(_PATIENCE)

    def _accept(self) -> None:
        while self._listens.wait() and not self._is_closing:
            try:
                client = self._listener.accept()[0]
            except OSError:
                continue  # It was told to refuse, or to end.
            connection = Connection(client)
            thread = Thread(target=self._run, args=[connection], name=self._acceptor.name, daemon=True)
            with self._lock:
                is_welcome = self._listens.is_set() and not self._is_closing
                if is_welcome:
                    self._connections[connection] = thread
                    thread.start()
            if not is_welcome:
                connection.close()

    def _run(self, connection: Connection) -> None:
        try:
            with suppress(OSError):  # The client has left.
                self._serve(connection)
        finally:
            with self._lock:
                self._connections.pop(connection)
            connection.close()


def _listener_on_free_port() -> socket.socket:
    """A listening socket that keeps its port when it stops listening: one that was bound to the port by its number."""
    with socket.socket() as chosen:
        chosen.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        chosen.bind(("127.0.0.1", 0))
        return socket.create_server(chosen.getsockname(), backlog=_BACKLOG)
