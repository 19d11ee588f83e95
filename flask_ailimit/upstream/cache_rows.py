"""What is in the file of a cache: sealed answers, and who asks now. Times are microseconds since the epoch."""

import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple

from flask_ailimit.engine.clock import MICROSECONDS
from flask_ailimit.engine.shared_file import Layout

LEASE_S: Final = 10
"""Seconds after which another caller asks, if the process of the one who asks has died."""

LONGEST_VALUE: Final = 16 << 20
"""Bytes. A longer value is none of ours."""

_LEASE_US: Final = LEASE_S * MICROSECONDS
_USED_EVERY_US: Final = 60 * MICROSECONDS
"""An answer is noted as used once in so long: most hits write nothing."""

_AHEAD_US: Final = _LEASE_US
"""By so much a time may lie ahead: others look at the clock before they wait for their turn to write."""

_SHORTEST_WAIT_S: Final = 0.01
_LONGEST_WAIT_S: Final = 0.5
_WAITED_SHARE: Final = 8

_MOST_OLD: Final = 64
_FEW: Final = 4
_MOST_FEWS: Final = 64
_PAGES_BESIDE: Final = 8
"""Pages that a row may take in tables and indexes besides those of its value."""

_SCHEMA = (
    """CREATE TABLE answers (
        id BLOB PRIMARY KEY, made_us INTEGER NOT NULL, ends_us INTEGER NOT NULL, used_us INTEGER NOT NULL,
        sealed BLOB NOT NULL
    )""",
    "CREATE INDEX answers_by_end ON answers (ends_us)",
    "CREATE INDEX answers_by_use ON answers (used_us)",
    """CREATE TABLE asking (
        id BLOB PRIMARY KEY, lease INTEGER NOT NULL, since_us INTEGER NOT NULL, until_us INTEGER NOT NULL
    ) WITHOUT ROWID""",
)
LAYOUT: Final = Layout("cache", application=0x41494C43, version=1, schema=_SCHEMA, is_lasting=False, busy_s=0.5)

_FIND = "SELECT made_us, ends_us, sealed, used_us < ? FROM answers WHERE id = ? AND length(sealed) <= ?"
_NOTE_USE = "UPDATE answers SET used_us = ? WHERE id = ?"
_PUT = (
    "INSERT INTO answers VALUES (?1, ?2, ?3, ?2, ?4) ON CONFLICT (id) DO UPDATE SET made_us = excluded.made_us,"
    " ends_us = excluded.ends_us, used_us = excluded.used_us, sealed = excluded.sealed"
)
_DELETE_OLD = (
    "DELETE FROM answers WHERE rowid IN (SELECT rowid FROM answers WHERE ends_us <= ? ORDER BY ends_us LIMIT ?)"
)
# What was used in the future was so before the clock was put back. It would never be the one that was used longest ago.
_DELETE_FUTURE = (
    "DELETE FROM answers WHERE rowid IN (SELECT rowid FROM answers WHERE used_us > ? ORDER BY used_us LIMIT ?)"
)
_DELETE_LEAST_USED = "DELETE FROM answers WHERE rowid IN (SELECT rowid FROM answers ORDER BY used_us LIMIT ?)"
_DELETE_DEAD = "DELETE FROM asking WHERE until_us NOT BETWEEN ? AND ?"
_ASKED = "SELECT ?1 - since_us, until_us - ?1 FROM asking WHERE id = ?2 AND until_us > ?1 AND until_us <= ?3"
_ASK = (
    "INSERT INTO asking VALUES (?1, ?2, ?3, ?4) ON CONFLICT (id) DO UPDATE SET lease = excluded.lease,"
    " since_us = excluded.since_us, until_us = excluded.until_us"
)
_GO_ON = "UPDATE asking SET until_us = ? WHERE id = ? AND lease = ?"
_END = "DELETE FROM asking WHERE id = ? AND lease = ?"


class Row(NamedTuple):
    """A sealed answer.

    Attributes:
        id: By which it is found.
        made_us: When it was put there.
        ends_us: From when it is too old.
        sealed: The answer.
    """

    id: bytes
    made_us: int
    ends_us: int
    sealed: bytes


class Found(NamedTuple):
    """A row that was found. Whoever can write to the file may have changed it: nothing is sure of its values."""

    row: Row
    is_to_be_noted: bool


def find(connection: sqlite3.Connection, key: bytes, now: int) -> Found | None:
    """The row with this id; None if there is none. ``is_to_be_noted``: its use was not noted lately."""
    found = connection.execute(_FIND, (now - _USED_EVERY_US, key, LONGEST_VALUE)).fetchone()
    return None if found is None else Found(Row(key, *found[:3]), bool(found[3]))


def note_use(connection: sqlite3.Connection, key: bytes, now: int) -> None:
    """Note that an answer was used, so that it stays longer than others."""
    connection.execute(_NOTE_USE, (now, key))


def put(connection: sqlite3.Connection, row: Row, most_bytes: int) -> bool:
    """Put a row there, in place of the one with its id, and delete what is too old or too much. Within a transaction.

    Returns:
        Whether it is there. It is not where so much would have to be deleted for it that others had to wait; what was
        deleted makes room for the next one.
    """
    connection.execute(_DELETE_OLD, (row.made_us, _MOST_OLD))
    connection.execute(_DELETE_FUTURE, (row.made_us + _AHEAD_US, _MOST_OLD))
    connection.execute(_DELETE_DEAD, (row.made_us, row.made_us + _LEASE_US + _AHEAD_US))
    if not _makes_room(connection, len(row.sealed), most_bytes):
        return False
    connection.execute(_PUT, row)
    return True


def _makes_room(connection: sqlite3.Connection, needed: int, most_bytes: int) -> bool:
    for _ in range(_MOST_FEWS):
        pages, free, page_bytes = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        if (pages - free + _PAGES_BESIDE) * page_bytes + needed <= most_bytes:
            return True
        if not connection.execute(_DELETE_LEAST_USED, (_FEW,)).rowcount:
            return False
    return False


def seconds_to_wait(connection: sqlite3.Connection, key: bytes, now: int) -> float:
    """Seconds until it is worth looking again, while somebody asks; 0 if nobody does."""
    found = connection.execute(_ASKED, (now, key, now + _LEASE_US + _AHEAD_US)).fetchone()
    if found is None:
        return 0.0
    asked_s, left_s = found[0] / MICROSECONDS, found[1] / MICROSECONDS
    # Who asks for a minute already is not looked at a hundred times a second.
    return float(min(max(asked_s / _WAITED_SHARE, _SHORTEST_WAIT_S), _LONGEST_WAIT_S, left_s))


def ask(connection: sqlite3.Connection, key: bytes, lease: int, now: int) -> None:
    """Note that somebody asks. Within a transaction in which nobody did."""
    connection.execute(_ASK, (key, lease, now, now + _LEASE_US))


def go_on_asking(connection: sqlite3.Connection, leases: Sequence[tuple[bytes, int]], now: int) -> None:
    """Note that they still ask. Who has lost its lease to another one gets none."""
    connection.executemany(_GO_ON, [(now + _LEASE_US, key, lease) for key, lease in leases])


def end_asking(connection: sqlite3.Connection, key: bytes, lease: int) -> None:
    """Note that who has this lease asks no more."""
    connection.execute(_END, (key, lease))
