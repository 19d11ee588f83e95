"""A proxy before a Redis server, which knows commands and replies, and does to them what networks do."""

import socket
import threading
from collections import Counter
from contextlib import suppress

from proxied_connection import Connection
from redis_servers import PATIENCE, free_port
from resp_messages import name_of

FOREVER = float("inf")

FAULTS = {
    "cut_request": "The connection ends before the command reaches the server.",
    "drop_request": "The command never reaches the server; the connection stays.",
    "duplicate_request": "The server gets the command twice; the client sees the first reply, when both have come.",
    "corrupt_request": "Some bits of the command are not what they were.",
    "cut_reply": "The server has executed the command; the connection ends instead of the reply.",
    "drop_reply": "The server has executed the command; no reply comes, and the connection stays.",
    "delay_reply": "The reply comes late.",
    "corrupt_reply": "Some bits of the reply are not what they were.",
}


class Fault:
    """What is to befall some of the commands that pass.

    Attributes:
        what: One of ``FAULTS``.
        hits: How many commands it has befallen.
    """

    def __init__(self, what, *, at=1, times=1, command=None, seconds=0, offset=0, flip=0x01, reset=True):
        self.what = what
        self.hits = 0
        self.seconds = seconds
        self.reset = reset
        self._before = at - 1
        self._left = times
        self._matches = _predicate(command)
        self._offset, self._flip = offset, flip
        self._happened = threading.Condition()

    def meets(self, words):
        """Count a command that passes: is it one of those?"""
        if not self._left or not self._matches(words):
            return False
        if self._before:
            self._before -= 1
            return False
        self._left -= 1
        return True

    @property
    def spent(self):
        """Whether it has met all that it was to befall."""
        return not self._left

    def corrupted(self, message):
        """The message as the fault leaves it."""
        changed = bytearray(message)
        changed[self._offset] ^= self._flip
        return bytes(changed)

    def happened(self):
        """Count a hit: now, before anybody can see what it does."""
        with self._happened:
            self.hits += 1
            self._happened.notify_all()

    def wait(self, hits=1, patience=PATIENCE):
        """Wait until it has happened. What it does may be seen a moment later."""
        with self._happened:
            assert self._happened.wait_for(lambda: self.hits >= hits, patience), f"{self.what}: {self.hits} of {hits}"


def _predicate(command):
    if command is None:
        return lambda words: True
    if callable(command):
        return command
    names = {command.upper()} if isinstance(command, str) else {name.upper() for name in command}
    return lambda words: name_of(words) in names


class FaultProxy:
    """Listens on a port of its own, and passes everything on until it is told otherwise.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        target: The port of the server behind it.
        commands: How often clients sent each command, by its name in capitals, whatever became of it.
        accepted: How many connections there have been.
        delay: Seconds by which every answer of the server is late.
        split: Whether every byte is sent in a segment of its own, both ways.
        black_hole: Whether everything that arrives is swallowed. A connection that lost something never recovers.
    """

    def __init__(self, target, *, port=None, tls=None):
        """Listen.

        Args:
            target: Port of the server.
            port: Where to listen; a free port otherwise.
            tls: The :class:`ssl.SSLContext` of a server, to have clients speak TLS. The server behind does not.
        """
        self.target = target
        self.tls = tls
        self.commands = Counter()
        self.accepted = 0
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._connections = {}
        self._listener = socket.create_server(("127.0.0.1", port or free_port()), backlog=1024)
        self.port = self._listener.getsockname()[1]
        self._listens = threading.Event()
        self._faults = []
        self.heal()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def uri(self):
        """Where clients find it, if they need no password."""
        return f"{'rediss' if self.tls else 'redis'}://127.0.0.1:{self.port}"

    def inject(self, what, **which):
        """Have some of the commands meet a fault.

        Args:
            what: One of ``FAULTS``.
            at: The first to meet it: 1 is the first command that matches from now on, over all connections.
            times: How many of those that match meet it, from that one on; ``FOREVER`` for all.
            command: Which match: a name, some names, or a function of the command's words; all otherwise.
            seconds: Of ``delay_reply``.
            offset: Of ``corrupt_…``: the byte of the message; -3 is the last before the line's end.
            flip: Of ``corrupt_…``: the bits that change.
            reset: Of ``cut_…``: whether the client sees a reset (RST), which may take with it earlier replies that
                it has not read, or an end (FIN).

        Returns:
            The :class:`Fault`.
        """
        assert what in FAULTS, f"{what!r} is none of {', '.join(FAULTS)}"
        fault = Fault(what, **which)
        with self._lock:
            self._faults.append(fault)
        return fault

    def heal(self):
        """Pass everything on again, and accept connections; the faults that have not happened never will."""
        with self._lock:
            self._faults.clear()
        self.delay = 0
        self.split = self.black_hole = False
        self._listener.listen(1024)
        self._listens.set()

    def refuse(self):
        """Refuse new connections. Those that exist stay."""
        self._listens.clear()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RD)

    def reset_connections(self, after=None):
        """Reset the connections with clients, and wait until they are.

        Args:
            after: The command, such as PSYNC, that made streams of those to reset; all otherwise.
        """
        with self._lock:
            chosen = {c: thread for c, thread in self._connections.items() if after in (None, c.stream)}
        for connection in chosen:
            with suppress(OSError):  # It has ended just now.
                connection.interrupt()
        for thread in chosen.values():
            thread.join(PATIENCE)

    def close(self):
        """Reset all connections and listen no more."""
        self._closing.set()
        self.refuse()
        self._listens.set()
        self._acceptor.join(PATIENCE)
        self._listener.close()
        self.reset_connections()

    def fault_of(self, words):
        """Count a command; the fault that it meets, or None."""
        with self._lock:
            self.commands[name_of(words)] += 1
            met = [fault for fault in self._faults if fault.meets(words)]
            self._faults = [fault for fault in self._faults if not fault.spent]
        return met[0] if met else None

    def _accept(self):
        while self._listens.wait() and not self._closing.is_set():
            try:
                client = self._listener.accept()[0]
            except OSError:
                continue  # It was told to refuse, or to end.
            connection = Connection(self, client)
            thread = threading.Thread(target=self._serve, args=[connection], daemon=True)
            with self._lock:
                self.accepted += 1
                self._connections[connection] = thread
            thread.start()

    def _serve(self, connection):
        try:
            with suppress(OSError):
                connection.serve()
        finally:
            connection.close()
            with self._lock:
                del self._connections[connection]
