"""Keeps the leases of this process alive, for as long as the process and the request live.

One thread per engine renews every lease in one store call, each third of the shortest lease time. A process that dies
renews nothing, so its slots come back when their leases end.
"""

import logging
from threading import Event, Lock, Thread

from .background import started
from .charge import Charge
from .errors import AILimitError
from .forking import forget_in_children
from .stores.base import Store

_log = logging.getLogger("flask_ailimit")

_RENEWALS_PER_LEASE = 3
_LONGEST_INTERVAL = 3600.0


class Leases:
    """The leases that reservations of this process hold."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._running = False
        self._thread: Thread | None = None
        self._interval = _LONGEST_INTERVAL
        self.forget()
        forget_in_children(self)

    def add(self, lease: int, charges: list[Charge]) -> None:
        """Renew the lease on these charges from now on."""
        self._held[lease] = charges
        shortest = min([charge.quota.period for charge in charges]) / _RENEWALS_PER_LEASE
        if self._running and shortest >= self._interval:
            return
        with self._lock:
            if shortest < self._interval:
                self._interval = shortest
                self._wake.set()  # The thread may be in the middle of a longer wait.
            start, self._running = not self._running, True
        # Not under the lock: gevent lets others run until the thread has started, and they would want the lock.
        if start:
            self._thread = started(self._run, "leases")
            self._running = self._thread is not None

    def remove(self, lease: int) -> None:
        """Renew the lease no more."""
        self._held.pop(lease, None)

    def renew(self) -> None:
        """Renew every lease now. The thread calls this; a store that fails is asked again at the next turn."""
        # Of a copy, which is made in one step: others go on adding and removing.
        leases = [(charge, lease) for lease, charges in self._held.copy().items() for charge in charges]
        if leases:
            try:
                self._store.renew(leases)
            except AILimitError as error:
                _log.warning("Leases were not renewed: %s", error)

    def close(self) -> None:
        """Stop the thread."""
        self._closed = True
        self._wake.set()

    def _run(self) -> None:
        while not self._closed:
            if self._wake.wait(self._interval):
                self._wake.clear()  # The interval is shorter now, or this is the end.
            else:
                self.renew()

    def forget(self) -> None:
        """Start anew: a child process has none of its parent's requests, nor its thread."""
        self._lock = Lock()
        self._closed = False
        self._wake = Event()
        self._held: dict[int, list[Charge]] = {}
        self._running = False
        self._thread = None
        self._interval = _LONGEST_INTERVAL
