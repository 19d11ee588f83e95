"""Keeps the leases of this process alive, for as long as the process and the request live.

While there are leases, one thread per engine renews them all in one store call, each third of the shortest lease time.
A process that dies renews nothing, so its slots come back when their leases end. Under gevent it is a thread of the
system all the same: a view that computes stops every greenlet, and would lose its slot.

A time-out may be raised between taking a slot and the moment from which somebody will give it back, or in the middle of
giving it back. So a lease is noted before its slot is asked for, and the thread sees to what nobody can end any more.
"""

import logging
from typing import Protocol
from weakref import ReferenceType, ref

from . import native
from .background import Background, started_apart
from .charge import Charge, Settlement
from .clock import seconds_running
from .errors import AILimitError
from .forking import forget_in_children
from .mutex import system_mutex
from .stores.base import Store

_log = logging.getLogger("flask_ailimit")

_RENEWALS_PER_LEASE = 3
_LONGEST_INTERVAL = 3600.0
_LOOK_EVERY = 1.0


class Holder(Protocol):
    """Who ends a lease.

    Attributes:
        open: Holds something from when the slot is the holder's until somebody begins to give it back.
    """

    open: list[int]


class Leases:
    """The leases that reservations of this process hold."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._interval = _LONGEST_INTERVAL
        self.forget()
        forget_in_children(self)

    def add(self, lease: int, charges: list[Charge], holder: Holder | None = None) -> None:
        """Renew the lease on these charges from now on.

        If the holder is dropped, nobody can end it: it is renewed no more. If its ``open`` is empty then, its beginning
        or its end was interrupted, and the slot is given back.
        """
        if holder is not None:
            self._holders[lease] = ref(holder), holder.open
        self._held[lease] = charges
        shortest = min([charge.quota.period for charge in charges]) / _RENEWALS_PER_LEASE
        if shortest < self._interval:
            self._mutex.run(lambda: self._shorten(shortest))
        self._thread.ensure()

    def remove(self, lease: int) -> None:
        """Renew the lease no more."""
        self._held.pop(lease, None)
        self._holders.pop(lease, None)

    def renew(self, store: Store | None = None) -> None:
        """Renew every lease now. The thread calls this; a store that fails is asked again at the next turn."""
        # Of a copy, which is made in one step: others go on adding and removing.
        leases = [
            (charge, lease)
            for lease, charges in self._held.copy().items()
            if self._may_be_held(lease)
            for charge in charges
        ]
        if leases:
            try:
                (store or self._store).renew(leases)
            except AILimitError as error:
                _log.warning("Leases were not renewed: %s", error)

    def give_back(self, store: Store | None = None) -> None:
        """See to the leases that nobody can end any more. The thread calls this, and tries again where it fails."""
        lost = [(lease, is_open) for lease, (holder, is_open) in self._holders.copy().items() if holder() is None]
        for lease, is_open in lost:
            slots = () if is_open else self._held.get(lease, ())
            settlements = [Settlement(charge.costing(0), 0, 0, lease) for charge in slots]
            try:
                if settlements:
                    (store or self._store).settle(settlements)
            except AILimitError as error:
                _log.warning("Slots of interrupted requests were not given back: %s", error)
                return
            self.remove(lease)

    def close(self) -> None:
        """Stop the thread."""
        self._closed = True
        self._wake.give()

    def _may_be_held(self, lease: int) -> bool:
        """Whether nobody has begun to give it back."""
        holder = self._holders.get(lease)
        return holder is None or bool(holder[1])

    def _shorten(self, interval: float) -> None:
        if interval < self._interval:
            self._interval = interval
            self._wake.give()  # The thread may be in the middle of a longer wait.

    def _run(self) -> None:
        # Beside greenlets, which would be disturbed in the use of their connections.
        apart = getattr(self._store, "apart", None) if native.has_greenlets() else None
        store, wake = apart() if apart else None, self._wake
        renewed = seconds_running()
        while not self._closed:
            left = renewed + self._interval - seconds_running()
            # Woken, the interval is shorter now, or this is the end.
            if wake.wait(max(0, min(left, _LOOK_EVERY))) or self._closed:
                continue
            self.give_back(store)
            if seconds_running() - renewed >= self._interval:
                self.renew(store)
                renewed = seconds_running()
            if not self._has_leases():
                break
        if store and store is not self._store:
            store.close()
        self._thread.retire_unless(lambda: self._has_leases() and not self._closed)

    def _has_leases(self) -> bool:
        return bool(self._held or self._holders)

    def forget(self) -> None:
        """Start anew: a child process has none of its parent's requests, nor its thread."""
        self._mutex = system_mutex()
        self._closed = False
        self._wake = native.Pulse()
        self._held: dict[int, list[Charge]] = {}
        self._holders: dict[int, tuple[ReferenceType[Holder], list[int]]] = {}
        self._thread = Background(self._run, "leases", started_apart)
        self._interval = _LONGEST_INTERVAL
