"""The changes of plans that are in force now, as this process knows them: it looks for new ones every two seconds.

A request takes what is known, and waits for nobody. Only the first one of a process looks itself.
"""

import logging
import math
from collections.abc import Callable, Mapping
from threading import Event
from weakref import ref

from flask_ailimit.engine import AILimitError, Store
from flask_ailimit.engine.background import Background
from flask_ailimit.engine.clock import MICROSECONDS, Clock, seconds_running
from flask_ailimit.engine.forking import forget_in_children
from flask_ailimit.engine.mutex import mutex
from flask_ailimit.engine.stores.base import KeepsChanges

from .change import RELOAD, Change, PayerName, read
from .derived import derived
from .plan import Plan
from .trail import InForce, Trail, Values

_log = logging.getLogger("flask_ailimit")

LOOK_EVERY = 2.0
"""Seconds."""

_MOST_DERIVED = 1024
_MOST_LATEST = 4096
_MEANWHILE = 60


class LiveChanges:
    """The trail of one app's store, and the plans that it makes for single payers.

    Args:
        store: The app's store. If it keeps no changes, there are none.
        clock: Returns integer microseconds since the epoch: boosts end by it.
        every: Seconds between two looks.

    Attributes:
        trail: What is known of the trail.
        reload: Reads the plan file again. Called when somebody has asked for it.
    """

    def __init__(self, store: Store, clock: Clock, every: float | None = None) -> None:
        self._clock = clock
        self._every = LOOK_EVERY if every is None else every
        self.reload: Callable[[], None] = _nothing
        self._derived: dict[tuple[str, Values], Plan] = {}
        self._latest: dict[tuple[tuple[str, str], str], tuple[InForce, int | None, Plan]] = {}
        self.use(store)
        self.forget()
        forget_in_children(self)

    @property
    def store(self) -> KeepsChanges | None:
        """The store, if it keeps changes."""
        return self._store if isinstance(self._store, KeepsChanges) else None

    def use(self, store: Store) -> None:
        """Take another store, of which nothing is known yet."""
        self._store = store
        self.trail = Trail()
        self._has_begun = False
        self._has_looked = False
        self._looked = -math.inf
        self._watches = isinstance(store, KeepsChanges) and store.shares_changes

    def in_force(self) -> Mapping[PayerName, InForce]:
        """What holds for each payer for whom something does.

        The first call of a process asks the store, unless that was done a moment ago, when the app started.
        """
        if not self._has_begun:
            if seconds_running() - self._looked > self._every:
                self.look_if_possible()
            self._has_begun = True  # Only now: other requests that came with the first one look, too.
        if self._watches:
            self._thread.ensure()
        return self.trail.in_force

    def plan_of(self, payer: tuple[str, str], changed: InForce, plan: Plan) -> Plan:
        """The plan as it holds for a payer now. Payers for whom the same was changed have the same one.

        Args:
            payer: Its role and id.
            changed: What is in force for it.
            plan: The plan that it would have.
        """
        key = (payer, plan.key)
        known = self._latest.get(key)
        if known is not None and known[0] is changed and (known[1] is None or self.now_s() < known[1]):
            return known[2]
        now_s = self.now_s()
        found = self._shared(plan, changed.values(plan.name, now_s))
        if len(self._latest) >= _MOST_LATEST:
            self._latest.clear()
        self._latest[key] = changed, changed.next_end(now_s), found
        return found

    def _shared(self, plan: Plan, values: Values) -> Plan:
        if not values:
            return plan
        found = self._derived.get((plan.key, values))
        if found is None:
            if len(self._derived) >= _MOST_DERIVED:
                self._derived.clear()
            found = self._derived[plan.key, values] = derived(plan, values)
        return found

    def now_s(self) -> float:
        """The time, in seconds since the epoch."""
        return self._clock() / MICROSECONDS

    def look(self) -> None:
        """Read what is new in the trail.

        Raises:
            StoreError: The store can't answer, or an entry is damaged. What was known before still holds.
        """
        self._mutex.run(self._look)

    def look_if_possible(self) -> None:
        """Read what is new in the trail. If that can't be done, say so: what was known before still holds."""
        try:
            self.look()
        except AILimitError as error:
            if self._stopped.is_set():
                return  # The app was closed meanwhile, and perhaps its store was.
            _log.error("Changes of plans are not known anew, those known before hold: %s", error)

    def close(self) -> None:
        """Look no more."""
        self._stopped.set()
        self._watches = False

    def forget(self) -> None:
        """Start anew in a child process, which has not its parent's thread. What was known it looks up again."""
        self._mutex = mutex()
        self._stopped = Event()
        self._has_begun = False
        self._looked = -math.inf
        # Nobody's thread is to keep an app alive that nobody has any more.
        this, stopped, every = ref(self), self._stopped, self._every
        self._thread = Background(lambda: _watch(this, stopped, every), "changes of plans")

    def _look(self) -> None:
        store, trail = self.store, self.trail
        if store is None:
            return
        entries = store.changes_from(max(1, trail.last))
        if trail.last and entries[:1] == [(trail.last, trail.last_text)]:
            entries = entries[1:]
        elif trail.last:
            # The entry that was the last is gone or another one: it was forgotten, or this is another trail.
            entries = store.changes_from(1)
            if not entries:
                _log.error(
                    "The store has lost all changes of plans. This process goes on with those that it knows (the last "
                    "is entry %d), but no other that is started from now on. Put back a copy, or make them again.",
                    trail.last,
                )
                return
            trail = Trail()
        understood = [(number, text, self._read(number, text)) for number, text in entries]
        for number, text, change in understood:
            trail.add(number, text, change)
        self.trail = trail
        self._looked = seconds_running()
        # At the first look the file has just been read. Somebody may have written it and asked meanwhile.
        since = 0 if self._has_looked else self.now_s() - _MEANWHILE
        self._has_looked = True
        if any(change and change.kind == RELOAD and change.at >= since for _, _, change in understood):
            self.reload()

    def _read(self, number: int, text: str) -> Change | None:
        change = read(number, text)
        if change is None:
            _log.warning("A newer version made the change of plans %d. It changes nothing here.", number)
        return change


def _nothing() -> None:
    """Read nothing again."""


def _watch(watched: "ref[LiveChanges]", stopped: Event, every: float) -> None:
    while not stopped.wait(every):
        changes = watched()
        if changes is None:
            return
        changes.look_if_possible()
        del changes
