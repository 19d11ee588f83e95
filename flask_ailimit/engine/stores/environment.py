"""An LMDB file that many processes map, and the lock that lets one of them in at a time.

The lock is the kernel's (``flock``), not LMDB's. That one is a robust mutex in shared memory, which has a hole: if a
process that waits for it is killed just as it is woken while another one slips in, nobody wakes those who wait behind
it, ever: three in 24,000 ``kill -9`` under load stopped everybody. A file's lock is let go by the kernel with the
process and leaves nothing behind. It also works between containers, where LMDB confuses processes of the same number.
"""

import fcntl
import math
import os
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import lmdb

from flask_ailimit.engine.clock import MICROSECONDS, seconds_running
from flask_ailimit.engine.errors import AwayError, ConfigurationError, StoreError
from flask_ailimit.engine.mutex import system_mutex

from . import common, directory, housekeeping, places, trail_file
from .file_lock import lock_within
from .places import Place
from .record import is_expired

if TYPE_CHECKING:
    from io import FileIO

_WRITES_PER_SWEEP = 4
_SWEPT = 8
_SWEPT_WHEN_FULL = (256, 16, 2)  # Deleting takes room as well: the less there is, the fewer can go at once.
_FULL = 7 / 8
_LOOK_AT_DIRECTORY_EVERY_US = MICROSECONDS
_NO_FILES = (0, 0)
_NOT_STUCK = -1
_WHILE_STUCK = 0.01
"""Seconds to wait for the lock while it is known that nobody gets it: else a queue of requests would wait in turn."""

_DAMAGED = (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PageNotFoundError)

_Answer = TypeVar("_Answer")


class Environment:
    """An open LMDB environment. LMDB allows one per process and path, so stores of the same path share it.

    Attributes:
        place: Where it is.
        path: Its directory, in the one spelling that this process has for it.
        map_bytes: The largest size of the file.
        threads: Lets one thread of this process in.
        users: How many stores of this process share it.
    """

    def __init__(self, place: Place, map_bytes: int) -> None:
        self.place = place
        self.path = place.path
        self.map_bytes = map_bytes
        self.threads = system_mutex()
        self.users = 0
        self._lmdb: lmdb.Environment | None = None
        self._transaction: lmdb.Transaction | None = None
        self._lock_file: FileIO | None = None
        self._is_locked = False
        self._until = 0.0
        self._stuck_at = _NOT_STUCK
        self._directory = -1
        self._process = 0
        self._files = _NO_FILES
        self._looked_us = 0
        self._swept = b""
        self._writes = 0
        self._secret: bytes | None = None

    def alone(self, seconds: float, work: Callable[..., _Answer], *arguments: Any) -> _Answer:
        """Do the work as the only thread of this process, and answer what it does.

        Whatever is raised, no lock and no transaction stays behind.

        Args:
            seconds: How long to wait in all, for other threads and for other processes.
            work: What is to be done.
            *arguments: Of the work.

        Raises:
            BusyError: Another thread was inside for all that time.
        """
        until = seconds_running() + seconds
        answer: _Answer = self.threads.run(self._cleared, until, work, arguments, seconds=seconds)
        return answer

    def _cleared(self, until: float, work: Callable[..., _Answer], arguments: Sequence[Any]) -> _Answer:
        """Clear away what an interrupted transaction left: the first step of each ``finally``, a call into C."""
        self._until = until
        try:
            try:
                return work(*arguments)
            finally:
                if self._transaction is not None:
                    self._transaction.abort()  # Nothing if it was committed.
        finally:
            if self._is_locked and self._lock_file is not None:
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)
                self._is_locked = False

    def begin(self, now_us: int) -> lmdb.Transaction:
        """Be the only one of this machine until :meth:`end`, for one transaction."""
        try:
            opened = self._enter(now_us)
        except ConfigurationError as error:
            if self._files == _NO_FILES:
                raise
            # Somebody came in the way while the app runs: no reason to stop, but on_store_error holds.
            raise StoreError(str(error), transient=False) from error
        try:
            self._transaction = transaction = opened.begin(write=True)
        except BaseException as error:
            self._failed(error, now_us)
            raise
        return transaction

    def end(self, transaction: lmdb.Transaction, now_us: int, error: BaseException | None) -> None:
        """Commit, or undo it after an exception inside, and let the next one in."""
        try:
            if error is None:
                transaction.commit()
            else:
                transaction.abort()
        except BaseException as failure:
            self._failed(failure, now_us)
            raise
        if error is None:
            self._leave()
        else:
            self._failed(error, now_us)

    def secret(self) -> bytes:
        """The bytes that all users of the directory share; see :func:`.common.shared_secret`."""
        self._secret = common.shared_secret(self._come_in(), self._secret, self._patience)
        return self._secret

    def introduce(self, configuration: str, app: str) -> str | None:
        """See :func:`.common.introduce`."""
        opened = self._come_in()
        alone = self.users == 1 and directory.is_alone(self._directory)
        return common.introduce(opened, configuration, app, alone=alone, patience=self._patience)

    def add_change(self, text: str, last: int, without: Collection[int]) -> bool:
        """See :class:`.base.KeepsChanges`."""
        return trail_file.add(self._come_in(), text, last, without, self._patience)

    def written(self, transaction: lmdb.Transaction, now_us: int) -> None:
        """Forget a few expired records at every fourth write, so that the file stays as small as its use."""
        self._writes += 1
        if self._writes % _WRITES_PER_SWEEP == 0:
            self._sweep(transaction, now_us, _SWEPT)

    def is_full(self, transaction: lmdb.Transaction) -> bool:
        """Whether to stop taking new subjects in. LMDB itself needs free pages, even to delete."""
        pages = transaction.stat()
        used = pages["branch_pages"] + pages["leaf_pages"] + pages["overflow_pages"]
        return bool(used * pages["psize"] > self.map_bytes * _FULL)

    def clear(self, transaction: lmdb.Transaction) -> None:
        """Delete everything."""
        if self._lmdb is not None:
            transaction.drop(self._lmdb.open_db(), delete=False)

    def close(self) -> None:
        """Close the file. It is opened again when it is needed."""
        # First nobody has them any more: what an exception keeps from being closed here is closed when it is dropped.
        opened, lock_file = self._lmdb, self._lock_file
        self._lmdb = self._transaction = self._lock_file = None
        if opened is not None:
            opened.close()
        if lock_file is not None:
            lock_file.close()

    def leave(self) -> None:
        """Let others remove the directory if nothing lives in it. It is opened again when it is needed."""
        # First it is nobody's: a descriptor that is closed twice may be somebody else's by then.
        left, self._directory = self._directory, -1
        if left >= 0:
            os.close(left)

    def _come_in(self) -> Path:
        """A path through the descriptor of the directory, which is looked at anew."""
        opened, before = directory.open_fit(self.place), self._directory
        self.leave()
        self._directory = opened
        if before < 0 and not self.place.is_named:
            housekeeping.remove_ended(self.path, opened)
        return places.through(opened, self.path)

    def _enter(self, now_us: int) -> lmdb.Environment:
        if self._process != os.getpid():
            self.close()  # Forked by something that told Python nothing: a shared lock would let both in.
        elif abs(now_us - self._looked_us) > _LOOK_AT_DIRECTORY_EVERY_US:
            self._looked_us = now_us
            if self._files != directory.inodes(self.path):
                self.close()  # Somebody deleted or replaced the files: workers would split over two stores.
        if self._lmdb is None:
            return self._open()
        self._is_locked = True
        if self._lock_file is None or not lock_within(self._lock_file, self._patience):
            self._stuck_at = self._last_commit()
            raise directory.held_too_long(self.path)
        self._stuck_at = _NOT_STUCK
        return self._lmdb

    def _leave(self) -> None:
        if self._lmdb is not None and self._lock_file is not None:
            fcntl.flock(self._lock_file, fcntl.LOCK_UN)
        self._is_locked = False

    def _patience(self) -> float:
        """How many seconds to wait for other processes."""
        is_stuck = self._stuck_at != _NOT_STUCK and self._stuck_at == self._last_commit()
        return min(self._until - seconds_running(), _WHILE_STUCK if is_stuck else math.inf)

    def _last_commit(self) -> int:
        return int(self._lmdb.info()["last_txnid"]) if self._lmdb is not None else 0

    def _open(self) -> lmdb.Environment:
        """Open the file and be alone with it."""
        if not self.users:  # LMDB refuses to open a file twice, and the next user has an environment of its own.
            raise AwayError(f"The limits' file in {self.path} was closed while somebody came in.")
        inside = self._come_in()
        if self._secret:
            common.shared_secret(inside, self._secret, self._patience)
        try:
            lock_file = directory.lock(inside, self._patience)
        except AwayError:
            self._stuck_at = 0
            raise
        self._stuck_at = _NOT_STUCK
        data = -1
        try:
            data = directory.open_data(inside)
            opened = lmdb.open(
                str(places.through(data, inside / directory.DATA)),
                map_size=self.map_bytes,
                subdir=False,
                mode=0o600,
                lock=False,
                sync=False,
                metasync=False,
                writemap=False,  # With it, a full disk would be a signal in place of an error.
                meminit=True,  # Else what the process had in its memory, prompts too, fills up the file's pages.
                readahead=False,
            )
            # Before the first transaction: see directory.is_cut. The file has holes, so this takes no space.
            if os.fstat(data).st_size < self.map_bytes:
                os.ftruncate(data, self.map_bytes)
            self._files = os.fstat(data).st_ino, os.fstat(lock_file.fileno()).st_ino
        except BaseException:
            lock_file.close()
            raise
        finally:
            if data >= 0:
                os.close(data)
        self._lmdb = opened
        self._lock_file = lock_file
        self._is_locked = True
        self._process = os.getpid()
        return opened

    def _failed(self, error: BaseException, now_us: int) -> None:
        """Do what lets a later transaction succeed, then let the next one in."""
        try:
            self._recover(error, now_us)
        finally:
            self._leave()

    def _recover(self, error: BaseException, now_us: int) -> None:
        if isinstance(error, lmdb.MapFullError):
            self._make_room(now_us)
        elif isinstance(error, (lmdb.PanicError, lmdb.MapResizedError)):
            self.close()
        elif isinstance(error, _DAMAGED):
            is_ours = self._files == directory.inodes(self.path)
            try:
                if is_ours:  # Else another process has moved it already.
                    directory.move_aside(self.path)
            finally:
                self.close()

    def _sweep(self, transaction: lmdb.Transaction, now_us: int, most: int) -> None:
        """Delete those of the next ``most`` records that have expired."""
        cursor = transaction.cursor()
        found = cursor.set_range(self._swept)
        for _ in range(most):
            if not found:
                break
            expired = is_expired(bytes(cursor.value()), now_us)
            found = cursor.delete() and bool(cursor.key()) if expired else cursor.next()
        self._swept = bytes(cursor.key()) if found else b""

    def _make_room(self, now_us: int) -> None:
        if self._lmdb is None:
            return
        for most in _SWEPT_WHEN_FULL:
            with suppress(lmdb.Error), self._lmdb.begin(write=True) as transaction:
                self._sweep(transaction, now_us, most)
                return


def share(place: Place, map_bytes: int) -> Environment:
    """The environment of this place for one more user. Only in :data:`joining`."""
    environment = _environments.setdefault(place.path, Environment(place, map_bytes))
    environment.users += 1
    return environment


def release(environment: Environment) -> None:
    """Close it if this was its last user. Only in :data:`joining`."""
    environment.users -= 1
    if environment.users == 0:
        del _environments[environment.path]
        environment.threads.run(environment.close)
        environment.leave()


_environments: dict[Path, Environment] = {}
joining = system_mutex()
"""For who begins or ends to use an environment, and for a fork: no child inherits it from another thread."""


def _before_fork() -> None:
    """Close what LMDB forbids to inherit, when no thread is using it; each process opens it again when needed."""
    for environment in _environments.values():
        environment.threads.lock.acquire()
        environment.close()


def _after_fork() -> None:
    for environment in _environments.values():
        with suppress(RuntimeError):  # What was raised before a fork has kept it from being taken.
            environment.threads.lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
# Taken first and given back last, by the functions themselves: nothing is raised between two steps of theirs.
_lock = joining.lock
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
