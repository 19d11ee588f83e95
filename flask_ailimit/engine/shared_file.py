"""A SQLite file that the processes of a machine share: with a write-ahead log, of this user alone, with a version.

Each process has one connection, which its threads use in turn and which no fork takes along. A process that dies in the
middle leaves nothing half written: SQLite takes back what was not committed. See https://www.sqlite.org/wal.html
"""

import os
import sqlite3
import stat
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar
from weakref import WeakSet

from .clock import seconds_running
from .errors import ConfigurationError
from .forking import forget_in_children
from .mutex import Mutex, system_mutex
from .native import pause
from .stores.directory import NETWORK_FILE_SYSTEMS, file_system

_LONGEST_START_S = 10.0
_PAUSE_S = 0.01
_PATIENCE_S = 1.0
_HOLD_S = 3.0
"""Longer than a thread waits for other processes while it has the file."""


_Answer = TypeVar("_Answer")


class Layout(NamedTuple):
    """What is in such a file.

    Attributes:
        setting: Names the file; messages begin with it.
        application: Four bytes as a number, in the place where SQLite lets an application say that a file is its own.
        version: Of the tables.
        schema: The statements that make the tables.
        is_lasting: Whether the file of another version is to be kept, and not used. Else it is emptied.
        busy_s: Seconds that one attempt waits for other processes that write.
    """

    setting: str
    application: int
    version: int
    schema: Sequence[str]
    is_lasting: bool = True
    busy_s: float = 0.25


class SharedFile:
    """A file of one layout. It is made by :meth:`prepare`, and again if somebody moves it away.

    Args:
        path: The file.
        layout: What is in it.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self._path = path
        self._layout = layout
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._fit_inode = 0  # Of the file that was checked.
        self._mutex: Mutex = system_mutex()
        forget_in_children(self)
        _open.add(self)

    def prepare(self, patience_s: float = _LONGEST_START_S) -> None:
        """Make the file if it is not there, and check that it can be used. Nothing stays open.

        Args:
            patience_s: Seconds to wait for others that have the file locked.

        Raises:
            ConfigurationError: It is not to be used; the message says what to do.
            sqlite3.Error: It is damaged, or can't be read or written.
            OSError: It can't be made.
        """
        path, setting = self._path, self._layout.setting
        _require_place(path.parent, setting)
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            # Not opened to be looked at: closing it would drop the locks that SQLite has on it in this process.
            _require_own(path, path.lstat(), setting)
        with closing(connect(path, timeout_s=self._layout.busy_s)) as connection:
            self._begin(connection, seconds_running() + patience_s)
        self._fit_inode = _inode(path)

    def run(self, work: Callable[[sqlite3.Connection], _Answer]) -> _Answer:
        """Do something with the file while no other thread of this process does, and answer what it answers.

        Raises:
            ConfigurationError: Another file has the name now, which is not to be used.
            sqlite3.Error: What ``work`` raised, or the file can't be opened.
            OSError: The file can't be found or made.
            BusyError: Another thread of this process is at it for too long.
        """
        return self._mutex.run(lambda: work(self._connected()), seconds=_PATIENCE_S)

    def write(self, work: Callable[[sqlite3.Connection], _Answer]) -> _Answer:
        """The same in a transaction: all of what ``work`` changes, or none if it raises."""
        return self.run(lambda connection: _in_transaction(connection, work))

    def close(self) -> None:
        """Close the connection. Whoever uses the file next opens it again."""
        self._mutex.run(self._close)

    def hold(self) -> None:
        """Wait until no thread uses the file, and let none use it until :meth:`release`. For who forks."""
        self._mutex.lock.acquire(True, _HOLD_S)

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

    def _connected(self) -> sqlite3.Connection:
        """This process's connection to the file that has the name now."""
        inode = _inode(self._path)
        if self._connection is not None and inode == self._inode:
            return self._connection
        self._close()
        if not inode or inode != self._fit_inode:
            self.prepare(_PATIENCE_S)  # Somebody moved it away, or it could not be used when the app started.
        self._connection = connect(self._path, timeout_s=self._layout.busy_s)
        self._inode = _inode(self._path)
        return self._connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _begin(self, connection: sqlite3.Connection, until: float) -> None:
        """Make the tables of a new file, which others may be doing, too; of one that is there, ask its version."""
        while True:
            try:
                # Nothing is changed in the file of something else. All is asked of one moment: another process may be
                # making the tables.
                _in_transaction(connection, self._require_ours, begin="BEGIN")
                connection.execute("PRAGMA journal_mode = WAL")
                _in_transaction(connection, self._make)
            except sqlite3.OperationalError as error:
                if not is_busy(error) or seconds_running() > until:
                    raise
                pause(_PAUSE_S)  # SQLite doesn't wait by itself for the one who changes the mode.
            else:
                break

    def _make(self, connection: sqlite3.Connection) -> None:
        if self._require_ours(connection):
            return
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (name,) in tables:  # Of another version, with their indexes and triggers.
            connection.execute(f'DROP TABLE "{name}"')
        for statement in self._layout.schema:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {self._layout.application}")
        connection.execute(f"PRAGMA user_version = {self._layout.version}")

    def _require_ours(self, connection: sqlite3.Connection) -> bool:
        """Whether the file has its tables; False if they are to be made."""
        path, layout = self._path, self._layout
        (application,), (version,) = (
            connection.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
        )
        if application == layout.application:
            if version != layout.version and layout.is_lasting:
                raise ConfigurationError(
                    f"{layout.setting}: {path} is of version {version}, and this is for version {layout.version}. Name "
                    "another file; keep the old one with the flask_ailimit that wrote it."
                )
            return bool(version == layout.version)
        if application or version or connection.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
            raise ConfigurationError(f"{layout.setting}: {path} is a database of something else. Name another file.")
        return False


def connect(path: Path, *, timeout_s: float = 0.25) -> sqlite3.Connection:
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


def is_busy(error: sqlite3.Error) -> bool:
    """Whether somebody else was in the way, and the same can be done in a moment."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _in_transaction(
    connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], _Answer], begin: str = "BEGIN IMMEDIATE"
) -> _Answer:
    try:
        connection.execute(begin)
        answer = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise
    return answer


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def _require_place(folder: Path, setting: str) -> None:
    if not folder.is_dir():
        raise ConfigurationError(f"{setting}: there is no directory {folder}. Make it, or name another file.")
    kind = file_system(folder).removeprefix("fuse.")
    if kind in NETWORK_FILE_SYSTEMS:
        raise ConfigurationError(
            f"{setting}: {folder} is on {kind}, on which SQLite can't share a file between processes. Name a file on "
            "a disk of this machine; each machine has its own."
        )


def _require_own(path: Path, found: os.stat_result, setting: str) -> None:
    wrong = (
        (stat.S_ISLNK(found.st_mode) and "is a link")
        or (not stat.S_ISREG(found.st_mode) and "is no plain file")
        or (
            found.st_uid != os.geteuid() and f"belongs to uid {found.st_uid}, not to uid {os.geteuid()} of this process"
        )
        or (found.st_mode & 0o077 and "is open to others: chmod 600 closes it")
    )
    if wrong:
        raise ConfigurationError(f"{setting}: {path} {wrong}. Put that right, or name another file.")


_open: WeakSet[SharedFile] = WeakSet()
_of_parents: list[sqlite3.Connection] = []


def _hold_all() -> None:
    # SQLite has locks of its own. If another thread had one while this one forks, the child would wait for it for ever.
    for each in [*_open]:
        each.hold()


def _release_all() -> None:
    for each in [*_open]:
        each.release()


os.register_at_fork(before=_hold_all, after_in_parent=_release_all)
