"""The file of settlements: SQLite with a write-ahead log, of this user alone, with a version.

What is wrong with it is found when the app starts. A process that dies in the middle leaves nothing half written:
SQLite takes back what was not committed. See https://www.sqlite.org/wal.html
"""

import os
import sqlite3
import stat
from contextlib import closing, suppress
from pathlib import Path

from flask_ailimit.engine import ConfigurationError
from flask_ailimit.engine.clock import seconds_running
from flask_ailimit.engine.native import pause
from flask_ailimit.engine.stores.directory import NETWORK_FILE_SYSTEMS, file_system
from flask_ailimit.tokens.usage import MAX_TOKENS

from .settlement import Settlement

VERSION = 1
_APPLICATION = 0x41494C4D
"""``AILM`` in ASCII, in the place where SQLite lets an application say that a file is its own."""

_BUSY_S = 0.25
"""Seconds that one attempt waits for other processes that write."""

_LONGEST_START_S = 10.0
_PAUSE_S = 0.01

SUMMED = (
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "audio_input_tokens",
    "image_input_tokens",
    "reasoning_tokens",
    "audio_output_tokens",
    "image_output_tokens",
    "cost_nano",
)
"""The columns of a settlement that are added up."""

_INTEGERS = {"number", "at_us", "status", *SUMMED}
_MAY_MISS = {"endpoint", "plan", "label", "model", "status", "units", "cost_nano", "price", "price_source", "rates"}


def _column(name: str) -> str:
    kind = "BLOB" if name == "subject" else "INTEGER" if name in _INTEGERS else "TEXT"
    return f"{name} {kind}" if name in _MAY_MISS else f"{name} {kind} NOT NULL"


_SCHEMA = (
    f"CREATE TABLE settlements ({', '.join(map(_column, Settlement._fields))})",
    "CREATE UNIQUE INDEX settlements_by_id ON settlements (request_id, number)",
    "CREATE INDEX settlements_by_time ON settlements (at_us)",
    f"""CREATE TABLE hours (
        subject BLOB NOT NULL, hour INTEGER NOT NULL, model TEXT NOT NULL, service_tier TEXT NOT NULL,
        currency TEXT NOT NULL, requests INTEGER NOT NULL, {", ".join(f"{name} INTEGER NOT NULL" for name in SUMMED)},
        PRIMARY KEY (subject, hour, model, service_tier, currency)
    ) WITHOUT ROWID""",
    "CREATE INDEX hours_by_time ON hours (hour)",
    # A trigger runs in the transaction of the row that it is about, and not for a row that is there already.
    f"""CREATE TRIGGER added AFTER INSERT ON settlements BEGIN
        INSERT INTO hours VALUES (
            new.subject, new.at_us / 3600000000, coalesce(new.model, ''), new.service_tier, new.currency,
            new.number = 1, {", ".join(f"coalesce(new.{name}, 0)" for name in SUMMED)}
        ) ON CONFLICT DO UPDATE SET requests = requests + excluded.requests,
            {", ".join(f"{name} = min({name} + excluded.{name}, {MAX_TOKENS})" for name in SUMMED)};
    END""",  # noqa: S608  names of columns, no values
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {VERSION}",
)


def prepare(path: Path) -> None:
    """Make the file if it is not there, and check that it can be used. Nothing stays open.

    Raises:
        ConfigurationError: It can't be used; the message says what to do.
    """
    _require_place(path)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        # Not opened to be looked at: closing it would drop the locks that SQLite has on it in this process.
        _require_own(path, path.lstat())
    except OSError as error:
        raise ConfigurationError(f"settlements: {path} can't be made: {error.strerror}.") from error
    try:
        with closing(connect(path)) as connection:
            _begin(path, connection)
    except sqlite3.DatabaseError as error:
        raise ConfigurationError(
            f"settlements: {path} can't be used: {error}. If it is no file of settlements, name another; if it is "
            "damaged, move it away, with those beside it that end in -wal and -shm. A new one is made then."
        ) from error


def connect(path: Path, *, timeout_s: float = _BUSY_S) -> sqlite3.Connection:
    """A connection for one process, in which each statement is a transaction unless one is begun.

    Raises:
        sqlite3.Error: There is no such file, or it can't be opened.
    """
    # A file that is gone is not made anew by chance, without a table and for everybody to read.
    uri = path.absolute().as_uri() + "?mode=rw"
    connection = sqlite3.connect(uri, uri=True, timeout=timeout_s, isolation_level=None, check_same_thread=False)
    try:
        # What is committed survives the end of the process, and needs no wait for the disk. A loss of power may take
        # the last transactions along, and leaves the file whole.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {16 << 20}")
    except BaseException:
        connection.close()
        raise
    return connection


def _begin(path: Path, connection: sqlite3.Connection) -> None:
    """Make the tables of a new file, which other processes may be doing, too; of one that is there, ask its version."""
    until = seconds_running() + _LONGEST_START_S
    while True:
        try:
            _require_ours(path, connection)  # Nothing is changed in the file of something else.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not is_busy(error) or seconds_running() > until:
                raise
            pause(_PAUSE_S)  # SQLite doesn't wait by itself for the one who changes the mode.
        else:
            break
    try:
        if not _require_ours(path, connection):
            for statement in _SCHEMA:
                connection.execute(statement)
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _require_ours(path: Path, connection: sqlite3.Connection) -> bool:
    """Whether the file has its tables; False if it is empty."""
    (application,), (version,) = (
        connection.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
    )
    if application == _APPLICATION and version == VERSION:
        return True
    if application == _APPLICATION:
        raise ConfigurationError(
            f"settlements: {path} is of version {version}, and this is for version {VERSION}. Name another file; keep "
            "the old one with the flask_ailimit that wrote it."
        )
    if application or version or connection.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
        raise ConfigurationError(f"settlements: {path} is a database of something else. Name another file.")
    return False


def is_busy(error: sqlite3.Error) -> bool:
    """Whether somebody else was in the way, and the same can be done in a moment."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _require_place(path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise ConfigurationError(f"settlements: there is no directory {folder}. Make it, or name another file.")
    kind = file_system(folder).removeprefix("fuse.")
    if kind in NETWORK_FILE_SYSTEMS:
        raise ConfigurationError(
            f"settlements: {folder} is on {kind}, on which SQLite can't share a file between processes. Name a file on "
            "a disk of this machine; each machine has its own."
        )


def _require_own(path: Path, found: os.stat_result) -> None:
    wrong = (
        (stat.S_ISLNK(found.st_mode) and "is a link")
        or (not stat.S_ISREG(found.st_mode) and "is no plain file")
        or (
            found.st_uid != os.geteuid() and f"belongs to uid {found.st_uid}, not to uid {os.geteuid()} of this process"
        )
        or (found.st_mode & 0o077 and "is open to others: chmod 600 closes it")
    )
    if wrong:
        raise ConfigurationError(f"settlements: {path} {wrong}. Put that right, or name another file.")
