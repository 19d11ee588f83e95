"""The settlements of all processes of a machine, in one file.

A settlement and what it adds to the sums of its hour are one transaction, and a settlement that is there already
changes nothing.
"""

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from flask_ailimit.engine.clock import MICROSECONDS, Clock

from .book_file import SUMMED, open_book
from .settlement import Settlement

HOUR_S = 3600
_DAY_US = 86_400 * MICROSECONDS
_HOUR_US = HOUR_S * MICROSECONDS
_LEAST_DELETED = 50
_PAGE = 1000

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
        self._file = open_book(path)

    def add(self, settlements: Sequence[Settlement]) -> None:
        """Add settlements with their sums, all or none, and remove some of those that are too old.

        Raises:
            sqlite3.Error: The file can't be written, or others write for too long. Nothing was added.
            OSError: The file can't be found or made.
            BusyError: Another thread of this process is at it for too long.
        """
        self._file.write(partial(self._add, settlements=settlements))

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
        return [Sum(*row) for row in self._file.run(partial(_rows, text=text, values=values))]

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
        while page := self._file.run(partial(_rows, text=text, values=(*after, end_us, *(subjects or ())))):
            yield from (Settlement(*row[1:]) for row in page)
            after = page[-1][1 + Settlement._fields.index("at_us")], page[-1][0]

    def close(self) -> None:
        """Close the connection. Whoever uses the file next opens it again."""
        self._file.close()

    def _add(self, connection: sqlite3.Connection, settlements: Sequence[Settlement]) -> None:
        oldest_us, most = self._oldest_us(), max(_LEAST_DELETED, 2 * len(settlements))
        connection.executemany(_ADD, settlements)
        connection.execute(_DELETE, (oldest_us, most))
        connection.execute(_DELETE_SUMS, (oldest_us // _HOUR_US, most))

    def _oldest_us(self) -> int:
        """The beginning of the first day that is kept, in UTC."""
        return (self._clock() // _DAY_US - self._days) * _DAY_US


def _rows(connection: sqlite3.Connection, text: str, values: Sequence[Any]) -> list[Any]:
    return connection.execute(text, values).fetchall()
