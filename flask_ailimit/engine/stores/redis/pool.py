"""The connections to one server: as many as are used at once, up to a bound. Who finds none free waits in line.

Only a connection on which all that was asked was answered comes back. Any other one is closed: whoever had it next
would read an answer that is not its own. Nothing is counted: the connections that there are, are those that live, so
none is missing after an exception that nobody expected.
"""

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from redis.exceptions import MaxConnectionsError

from flask_ailimit.engine.clock import seconds_running

PATIENCE = 5.0
"""Seconds to wait in line: a burst that keeps this process busy is no outage, but a client waits for the answer."""

MADE_AT_ONCE = 16
"""So many are made at the same time: with TLS each takes milliseconds of both ends' processors, from all the others."""

Check = Callable[[], None]
"""Raises if something is no longer worth doing."""


def nothing() -> None:
    """Find no reason to raise."""


class _Waiting:
    """Somebody who waits for a connection.

    Attributes:
        connection: What it was handed; None as long as it waits.
    """

    def __init__(self) -> None:
        self.connection: Any = None
        # That of the module as it is now: gevent may have put its own there after this was imported.
        self._handed = threading.Lock()
        self._handed.acquire()

    def hand(self, connection: Any) -> None:
        self.connection = connection
        self._handed.release()

    def wait(self, seconds: float) -> None:
        self._handed.acquire(timeout=max(seconds, 0))


class Pool:
    """Connections that are used again, the latest first. Whoever waits is served in turn, before all who come later.

    Args:
        make: Makes one of redis-py's, which is not connected yet.
        most: The most that are open at the same time.
    """

    def __init__(self, make: Callable[[], Any], most: int) -> None:
        self._make = make
        self._most = most
        self.forget()

    def take(self, check: Check = nothing) -> Any:
        """A connected one. It is to be given to :meth:`put`, or to :meth:`drop`.

        Args:
            check: Asked before, and again after a wait.

        Raises:
            MaxConnectionsError: None was free in time.
            RedisError: It can't be connected.
        """
        check()
        if not self._queue:
            with suppress(IndexError):
                # Each step of a deque is whole, so nobody needs a lock here: two threads never take the same.
                return self._free.pop()
        connection = self._wait()
        is_new = connection in self._being_made
        try:
            check()
            if is_new:
                connection.connect()
                self._being_made.discard(connection)
                self._serve()
        except BaseException:
            (self.drop if is_new else self.put)(connection)
            raise
        return connection

    def put(self, connection: Any) -> None:
        """Have it used again: whatever was asked on it was answered."""
        self._free.append(connection)
        # Whoever waits has said so before looking: so either they find it, or they are found waiting here.
        if self._queue:
            self._serve()

    def drop(self, connection: Any) -> None:
        """Close it."""
        connection.disconnect()
        self._open.discard(connection)
        self._being_made.discard(connection)
        self._serve()

    def clear(self) -> None:
        """Close those that nobody uses."""
        with suppress(IndexError):
            while True:
                self.drop(self._free.pop())

    def forget(self) -> None:
        """Drop all of them without a word to the server: they may be a parent process's."""
        self._free: deque[Any] = deque()
        self._queue: deque[_Waiting] = deque()
        self._open: WeakSet[Any] = WeakSet()
        self._being_made: WeakSet[Any] = WeakSet()
        # It may be the system's, made before gevent came: who holds it must let no other greenlet run.
        self._lock = threading.Lock()

    def _wait(self) -> Any:
        """A free connection, or a new one as soon as there may be one more."""
        until = seconds_running() + PATIENCE
        waiting = _Waiting()
        try:
            self._queue.append(waiting)
            self._serve()
            if waiting.connection is None:
                waiting.wait(until - seconds_running())
            if waiting.connection is None:
                self._serve()  # One that was lost has made no noise.
        finally:
            self._leave(waiting)
        if waiting.connection is None:
            raise MaxConnectionsError(f"none of {self._most} connections was free for {PATIENCE:g} s")
        return waiting.connection

    def _leave(self, waiting: _Waiting) -> None:
        with self._lock, suppress(ValueError):
            self._queue.remove(waiting)

    def _serve(self) -> None:
        """Hand what there is to those who wait, in their turn."""
        with self._lock:
            while self._queue:
                connection = self._free_or_new()
                if connection is None:
                    return
                self._queue.popleft().hand(connection)

    def _free_or_new(self) -> Any:
        with suppress(IndexError):
            return self._free.pop()
        if len(self._open) >= self._most or len(self._being_made) >= MADE_AT_ONCE:
            return None
        connection = self._make()
        self._open.add(connection)
        self._being_made.add(connection)
        return connection
