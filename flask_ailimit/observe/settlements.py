"""The settlements of all processes of a machine, in one file.

Each process has one connection, which its threads use in turn and which no fork takes along. A settlement and what it
adds to the sums of its hour are one transaction, and a settlement that is there already changes nothing.
"""

import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from weakref import WeakSet

from flask_ailimit.engine.clock import MICROSECONDS, Clock
from flask_ailimit.engine.forking import forget_in_children
from flask_ailimit.engine.mutex import Mutex, system_mutex

from .book_file import SUMMED, connect, prepare
from .settlement import Settlement

HOUR_S = 3600
_DAY_US = 86_400 * MICROSECONDS
_HOUR_US = HOUR_S * MICROSECONDS
_PATIENCE_S = 1.0
_LEAST_DELETED = 50
_PAGE = 1000

_Answer = TypeVar("_Answer")

_ADD = (
    f"INSERT INTO settlements VALUES ({', '.join('?' * len(Settlement._fields))})"  # noqa: S608  no values
    " ON CONFLICT (request_id, number) DO NOTHING"
)
_DELETE = (
    "DELETE FROM settlements WHERE rowid IN (SELECT rowid FROM settlements WHERE at_us < ?1 ORDER BY at_us LIMIT ?2)"
)
_DELETE_SUMS = (
    "DELETE FROM hours WHERE (subject, hour, model, service_tier, currency) IN"
    " (SELECT subject, hour, model, service_tier, currency FROM hours WHERE hour < ?1 ORDER BY hour LIMIT ?2)"
)


class Sum(NamedTuple):
    """What was used in a part of the time, of one model, service tier and currency. The counts are sums.

    Attributes:
        bucket: Which part, from 0.
        model: The plan's pattern; empty without one.
        service_tier: As answers named it; empty without one.
        currency: Of ``cost_nano``; empty for settlements of which no price is known.
        requests: Requests. One that is settled twice counts once.
        input_tokens: As of :class:`.settlement.Settlement`, and so are all below.
        output_tokens: As above.
        cached_input_tokens: As above.
        cache_write_tokens: As above.
        cache_write_1h_tokens: As above.
        audio_input_tokens: As above.
        image_input_tokens: As above.
        reasoning_tokens: As above.
        audio_output_tokens: As above.
        image_output_tokens: As above.
        cost_nano: As above; 0 if no price is known.
    """

    bucket: int
    model: str
    service_tier: str
    currency: str
    requests: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    audio_input_tokens: int
    image_input_tokens: int
    reasoning_tokens: int
    audio_output_tokens: int
    image_output_tokens: int
    cost_nano: int


class Settlements:
    """A file of settlements.

    Args:
        path: The file.
        days: How long a settlement is kept.
        clock: Returns integer microseconds since the epoch: settlements become old by it.

    Raises:
        ConfigurationError: The file can't be used.
    """

    def __init__(self, path: Path, days: int, clock: Clock) -> None:
        self.path = path
        self._days = days
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        prepare(path)
        self._mutex: Mutex = system_mutex()
        forget_in_children(self)
        _open.add(self)

    def add(self, settlements: Sequence[Settlement]) -> None:
        """Add settlements with their sums, all or none, and remove some of those that are too old.

        Raises:
            sqlite3.Error: The file can't be written, or others write for too long. Nothing was added.
            OSError: The file can't be found or made.
            BusyError: Another thread of this process is at it for too long.
        """
        self._run(lambda connection: self._add(connection, settlements))

    def sums(self, subjects: Collection[bytes], start: int, width: int, count: int) -> list[Sum]:
        """What some payers together used in each part of a time. A part in which nothing was used is left out.

        Args:
            subjects: The hashes of the payers.
            start: Where the first part begins: a whole hour, in hours since 1970.
            width: How many hours a part has.
            count: How many parts there are.

        Raises:
            sqlite3.Error: The file can't be read.
            OSError: The file can't be found or made.
            BusyError: Another thread of this process is at it for too long.
        """
        asked = "?," * len(subjects)
        added = ", ".join(f"sum({name})" for name in SUMMED)
        text = (
            f"SELECT (hour - ?) / ? AS bucket, model, service_tier, currency, sum(requests), {added} FROM hours"  # noqa: S608  no values
            f" WHERE subject IN ({asked.rstrip(',')}) AND hour >= ? AND hour < ?"
            " GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
        )
        since = max(start, self._oldest_us() // _HOUR_US)
        values = (start, width, *subjects, since, start + width * count)
        return [Sum(*row) for row in self._run(partial(_rows, text=text, values=values))]

    def between(self, start_us: int, end_us: int, subjects: Collection[bytes] | None = None) -> Iterator[Settlement]:
        """The settlements from a time on and before another one, in their order in time.

        They are read in pages, so that neither memory nor the file's log grows while somebody reads slowly.

        Args:
            start_us: In microseconds since 1970.
            end_us: The same; not included.
            subjects: The hashes of the payers; None for all.

        Raises:
            sqlite3.Error: The file can't be read.
        """
        after = max(start_us, self._oldest_us()), 0
        whose = "" if subjects is None else f" AND subject IN ({('?,' * len(subjects)).rstrip(',')})"
        text = (
            f"SELECT rowid, {', '.join(Settlement._fields)} FROM settlements"  # noqa: S608  no values
            f" WHERE (at_us, rowid) > (?, ?) AND at_us < ?{whose} ORDER BY at_us, rowid LIMIT {_PAGE}"
        )
        while page := self._run(partial(_rows, text=text, values=(*after, end_us, *(subjects or ())))):
            yield from (Settlement(*row[1:]) for row in page)
            after = page[-1][1 + Settlement._fields.index("at_us")], page[-1][0]

    def close(self) -> None:
        """Close the connection. Whoever uses the file next opens it again."""
        self._mutex.run(self._close)

    def hold(self) -> None:
        """Wait until no thread uses the file, and let none use it until :meth:`release`. For who forks."""
        self._mutex.lock.acquire(True, _PATIENCE_S)

    def release(self) -> None:
        """Let threads use the file again."""
        try:  # noqa: SIM105  as Mutex does
            self._mutex.lock.release()
        except RuntimeError:
            pass  # It could not be held in time.

    def forget(self) -> None:
        """Start anew in a child process. What its parent has open is neither used nor closed there."""
        if self._connection is not None:
            _of_parents.append(self._connection)
        self._connection = None
        self._mutex = system_mutex()

    def _run(self, work: Callable[[sqlite3.Connection], _Answer]) -> _Answer:
        return self._mutex.run(lambda: work(self._connected()), seconds=_PATIENCE_S)

    def _connected(self) -> sqlite3.Connection:
        """This process's connection to the file that has the name now."""
        inode = self.path.stat().st_ino if self.path.exists() else 0
        if self._connection is not None and inode == self._inode:
            return self._connection
        self._close()
        if not inode:
            prepare(self.path)  # Somebody moved it away.
        self._connection = connect(self.path)
        self._inode = self.path.stat().st_ino
        return self._connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _add(self, connection: sqlite3.Connection, settlements: Sequence[Settlement]) -> None:
        oldest_us, most = self._oldest_us(), max(_LEAST_DELETED, 2 * len(settlements))
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany(_ADD, settlements)
            connection.execute(_DELETE, (oldest_us, most))
            connection.execute(_DELETE_SUMS, (oldest_us // _HOUR_US, most))
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _oldest_us(self) -> int:
        """The beginning of the first day that is kept, in UTC."""
        return (self._clock() // _DAY_US - self._days) * _DAY_US


def _rows(connection: sqlite3.Connection, text: str, values: Sequence[Any]) -> list[Any]:
    return connection.execute(text, values).fetchall()


_open: WeakSet[Settlements] = WeakSet()
_of_parents: list[sqlite3.Connection] = []


def _hold_all() -> None:
    # SQLite has locks of its own. If another thread had one while this one forks, the child would wait for it for ever.
    for each in [*_open]:
        each.hold()


def _release_all() -> None:
    for each in [*_open]:
        each.release()


os.register_at_fork(before=_hold_all, after_in_parent=_release_all)
