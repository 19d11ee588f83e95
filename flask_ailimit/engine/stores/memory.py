"""``memory://``: one process, for tests and notebooks."""

import os
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

from flask_ailimit.engine.clock import Clock, system_clock
from flask_ailimit.engine.decide import Changes, Record
from flask_ailimit.engine.errors import ConfigurationError
from flask_ailimit.engine.forking import forget_in_children

from .base import StateStore

_WRITES_PER_SWEEP = 4
_SWEPT = 8
_NO_RECORD: Record = {}


class MemoryStore(StateStore):
    """Keeps the counts in a dictionary behind a lock; each process has its own.

    Under several workers each would grant the whole limit, so the store warns when it can see more than one.
    """

    def __init__(self, clock: Clock = system_clock) -> None:
        self._clock = clock
        self._alone = _Alone(self, clock)
        self._records: dict[bytes, Record] = {}
        self._sweeping: Iterator[bytes] = iter(())
        self._writes = 0
        self.now_us = 0
        forget_in_children(self)
        if count_workers(sys.argv, os.environ) > 1:
            warnings.warn(
                "storage_uri='memory://' counts in each worker alone, so this server grants every limit once per "
                "worker. Use 'local://' (shared by all workers of this machine).",
                RuntimeWarning,
                stacklevel=4,
            )

    def __repr__(self) -> str:
        return "MemoryStore()"

    def transaction(self) -> "_Alone":
        """Hold the lock. The time is read under it, so that it never runs backwards between decisions."""
        return self._alone

    def read(self, subject: bytes) -> Record:
        """See :class:`~flask_ailimit.engine.stores.base.Transaction`."""
        return self._records.get(subject, _NO_RECORD)

    def write(self, changes: Changes) -> None:
        """See :class:`~flask_ailimit.engine.stores.base.Transaction`; forgets a few expired records as well."""
        for subject, record in changes.items():
            if record:
                self._records[subject] = record
            else:
                self._records.pop(subject, None)
        self._writes += 1
        if self._writes % _WRITES_PER_SWEEP == 0:
            self._sweep()

    def clear(self) -> None:
        """Forget everything."""
        with self._alone:
            self._records.clear()

    def secret(self) -> None:
        """None: nobody else opens this store, so its user makes a secret."""

    def close(self) -> None:
        """Forget everything."""
        self.clear()

    def forget(self) -> None:
        """Start anew in a child process: whichever thread of the parent was inside isn't there to release the lock."""
        self._alone = _Alone(self, self._clock)

    def _sweep(self) -> None:
        candidates = tuple(islice(self._sweeping, _SWEPT))
        if not candidates:
            self._sweeping = iter(list(self._records))
        for subject in candidates:
            for bucket in self._records.get(subject, _NO_RECORD).values():
                if bucket.expires_us > self.now_us:
                    break
            else:
                self._records.pop(subject, None)


class _Alone:
    """Lets one thread at a time into a store. A generator in its place would cost four times as much."""

    __slots__ = ("_clock", "_lock", "_store")

    def __init__(self, store: MemoryStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lock = Lock()

    def __enter__(self) -> MemoryStore:
        self._lock.acquire()
        try:
            self._store.now_us = self._clock()
        except BaseException:
            self._lock.release()
            raise
        return self._store

    def __exit__(self, *_: object) -> None:
        self._lock.release()


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
