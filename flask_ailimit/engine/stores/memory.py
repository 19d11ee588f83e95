"""``memory://``: one process, for tests and notebooks."""

import os
import shlex
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from flask_ailimit.engine.clock import Clock, system_clock
from flask_ailimit.engine.decide import Changes, Record, alive
from flask_ailimit.engine.errors import AwayError, ConfigurationError, StoreError
from flask_ailimit.engine.forking import forget_in_children
from flask_ailimit.engine.mutex import BusyError, system_mutex

from .base import StateStore, Transaction
from .lasting import USE_ANOTHER_STORE

_MOST_COUNTS = 250_000
_LEAST_MOST_COUNTS = 8
_FULL = 7 / 8
_WRITES_PER_SWEEP = 4
_SWEPT = 8
_NO_RECORD: Record = {}

_Answer = TypeVar("_Answer")


class MemoryStore(StateStore):
    """Keeps the counts in a dictionary behind a lock; each process has its own.

    Under several workers each would grant the whole limit, so the store warns when it can see more than one.

    Args:
        clock: Microseconds since the epoch; read under the lock.
        max_counts: The most counts that are kept at once, at least 8. At seven eighths of it no new subject is taken
            in until counts of others end, and at all of it no new count.

    Raises:
        ConfigurationError: ``max_counts`` is something else.
    """

    def __init__(self, clock: Clock = system_clock, *, max_counts: int = _MOST_COUNTS) -> None:
        if type(max_counts) is not int or max_counts < _LEAST_MOST_COUNTS:
            raise ConfigurationError(
                f"max_counts: the most counts that memory:// keeps, at least {_LEAST_MOST_COUNTS}. Got {max_counts!r}."
            )
        self._clock = clock
        self._mutex = system_mutex()
        self._now = _Now(self, clock)
        self._most = max_counts
        self._free_until = int(max_counts * _FULL)
        self._records: OrderedDict[bytes, Record] = OrderedDict()  # First comes who was longest there.
        self._counts: int | None = 0
        self._writes = 0
        self._changes: dict[int, str] = {}
        self.now_us = 0
        forget_in_children(self)
        if count_workers(sys.argv, os.environ) > 1:
            warnings.warn(
                "storage_uri='memory://' counts in each worker alone, so this server grants every limit once per "
                "worker. Use 'local://' (shared by all workers of this machine).",
                RuntimeWarning,
                stacklevel=4,
            )

    shares_changes = False

    def __repr__(self) -> str:
        return "MemoryStore()"

    @property
    def where(self) -> str:
        """Where the counts are, in words."""
        return "in the memory of each process of the app; this one has its own"

    def alone(self, step: Callable[[Transaction], _Answer]) -> _Answer:
        """See :class:`~flask_ailimit.engine.stores.base.StateStore`."""
        try:
            answer: _Answer = self._mutex.run(StateStore.alone, self, step)
        except BusyError as error:
            raise AwayError(f"The counts in memory can't be used: {error}.") from error
        return answer

    def transaction(self) -> "_Now":
        """For who is :meth:`alone`. The time is read here, so that it never runs backwards between decisions."""
        return self._now

    def read(self, subject: bytes) -> Record:
        """See :class:`~flask_ailimit.engine.stores.base.Transaction`."""
        return self._records.get(subject, _NO_RECORD)

    def write(self, changes: Changes) -> None:
        """See :class:`~flask_ailimit.engine.stores.base.Transaction`; forgets what has ended of a few subjects as well.

        Raises:
            StoreError: There would be too many counts.
        """
        self._writes += 1
        if self._writes % _WRITES_PER_SWEEP == 0:
            self._sweep()
        after = self._after(changes)
        if after > self._free_until and not self._has_room(changes, after):
            self._sweep()
            after = self._after(changes)
            if not self._has_room(changes, after):
                raise StoreError(
                    f"memory:// keeps {self._most} counts, and nearly as many live. Give a larger max_counts in "
                    "storage_options, or use local://."
                )
        self._keep(changes, after)

    def clear(self) -> None:
        """Forget everything."""
        self.alone(lambda _: self._forget_all())

    def changes_from(self, number: int) -> list[tuple[int, str]]:
        """See :class:`~flask_ailimit.engine.stores.base.KeepsChanges`."""
        return [entry for entry in self._changes.copy().items() if entry[0] >= number]

    def add_change(self, text: str, last: int, without: Collection[int] = ()) -> bool:
        """See :class:`~flask_ailimit.engine.stores.base.KeepsChanges`."""

        def step(_: Transaction) -> bool:
            if last != max(self._changes, default=0):
                return False
            kept = {number: entry for number, entry in self._changes.items() if number not in without}
            self._changes = {**kept, last + 1: text}
            return True

        return self.alone(step)

    def may_lose_changes(self) -> str:
        """See :class:`~flask_ailimit.engine.stores.base.KeepsChanges`."""
        return (
            "Changes of plans are in the memory of this process alone, and end with it: storage_uri is memory://. Use "
            "a directory on a disk, such as storage_uri='local:///var/lib/myapp/limits', or a Redis that saves."
        )

    def may_lose_counts(self) -> str:
        """See :class:`~flask_ailimit.engine.stores.base.Lasting`."""
        return (
            "Counts are in the memory of this process alone, and end with it: storage_uri is memory://. "
            f"{USE_ANOTHER_STORE}"
        )

    def secret(self) -> None:
        """None: nobody else opens this store, so its user makes a secret."""

    def close(self) -> None:
        """Forget everything."""
        with suppress(AwayError):  # The thread that closes it may be inside: no matter who uses the counts now.
            self.clear()

    def forget(self) -> None:
        """Start anew in a child process: whichever thread of the parent was inside isn't there to release the lock."""
        self._mutex = system_mutex()

    def _forget_all(self) -> None:
        self._records.clear()
        self._counts = 0

    def _sweep(self) -> None:
        """Forget what has ended of the subjects whose turn it is."""
        turn, now_us = list(islice(self._records.items(), _SWEPT)), self.now_us
        ended = {subject: kept for subject, record in turn if len(kept := alive(record, now_us)) < len(record)}
        if ended:
            self._keep(ended, self._after(ended))
        for subject, _ in turn:
            if self._records[subject]:
                self._records.move_to_end(subject)
            else:
                del self._records[subject]

    def _has_room(self, changes: Changes, after: int) -> bool:
        if after <= self._free_until or after <= self._after({}):
            return True
        is_new = any(record and subject not in self._records for subject, record in changes.items())
        return after <= self._most and not is_new

    def _after(self, changes: Changes) -> int:
        """How many counts there are once the changes are made."""
        counts = self._counts
        if counts is None:
            counts = sum(map(len, self._records.values()))
        for subject, record in changes.items():
            counts += len(record) - len(self._records.get(subject, _NO_RECORD))
        return counts

    def _keep(self, changes: Changes, after: int) -> None:
        self._counts = None  # An exception may be raised between any two steps: the next one counts anew.
        self._records.update(changes)  # All of them in one step. An empty record goes when its turn comes.
        self._counts = after


class _Now:
    """A store at the time of one decision. A generator in its place would cost four times as much."""

    __slots__ = ("_clock", "_store")

    def __init__(self, store: MemoryStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def __enter__(self) -> MemoryStore:
        self._store.now_us = self._clock()
        return self._store

    def __exit__(self, *_: object) -> None:
        pass


def count_workers(argv: list[str], environment: Mapping[str, str]) -> int:
    """How many workers gunicorn was asked for, as far as its command line and environment tell; else 1."""
    program = Path(argv[0] if argv else "")
    if program.name not in ("gunicorn", "gunicorn3") and program.parts[-2:] != ("gunicorn", "__main__.py"):
        return 1
    asked = environment.get("WEB_CONCURRENCY", "1")
    # The later wins: gunicorn reads the variable before the command line.
    options = shlex.split(environment.get("GUNICORN_CMD_ARGS", "")) + argv[1:]
    for option, value in zip(options, [*options[1:], ""], strict=True):
        if option in ("-w", "--workers"):
            asked = value
        elif option.startswith(("-w", "--workers=")):
            asked = option.removeprefix("-w").removeprefix("--workers=")
    return int(asked) if asked.isdigit() else 1


def open_uri(uri: str, name: str, clock: Clock, **options: Any) -> MemoryStore:  # noqa: ARG001  one shape for all
    """Open ``memory://``."""
    if uri != "memory://":
        raise ConfigurationError(f"storage_uri: memory:// takes nothing after the slashes. Got {uri[:80]!r}.")
    return MemoryStore(clock, **options)
