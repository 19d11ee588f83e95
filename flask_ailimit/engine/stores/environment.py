"""An LMDB file that many processes map, and the lock that lets one of them in at a time.

The lock is the kernel's (``flock``), not LMDB's. That one is a robust mutex in shared memory, which has a hole: if a
process that waits for it is killed just as it is woken while another one slips in, nobody wakes those who wait behind
it, ever: three in 24,000 ``kill -9`` under load stopped everybody. A file's lock is let go by the kernel with the
process and leaves nothing behind. It also works between containers, where LMDB confuses processes of the same number.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from threading import Lock, RLock

import lmdb

from flask_ailimit.engine.clock import MICROSECONDS

from . import directory
from .record import is_expired

_WRITES_PER_SWEEP = 4
_SWEPT = 8
_SWEPT_WHEN_FULL = (256, 16, 2)  # Deleting takes room as well: the less there is, the fewer can go at once.
_FULL = 7 / 8
_LOOK_AT_DIRECTORY_EVERY_US = MICROSECONDS
_DAMAGED = (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PageNotFoundError)


class Environment:
    """An open LMDB environment. LMDB allows one per process and path, so stores of the same path share it.

    Attributes:
        path: The directory.
        map_bytes: The largest size of the file.
        threads: Held by the one thread of this process that is inside.
        users: How many stores of this process share it.
    """

    def __init__(self, path: Path, map_bytes: int) -> None:
        self.path = path
        self.map_bytes = map_bytes
        self.threads = Lock()
        self.users = 0
        self._lmdb: lmdb.Environment | None = None
        self._lock_file = -1
        self._process = 0
        self._files = (0, 0)
        self._looked_us = 0
        self._swept = b""
        self._writes = 0
        self._secret: bytes | None = None

    def begin(self, now_us: int) -> lmdb.Transaction:
        """Be the only one of this machine until :meth:`end`, for one transaction."""
        opened = self._enter(now_us)
        try:
            return opened.begin(write=True)
        except BaseException as error:
            self._failed(error, now_us)
            raise

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
        """The bytes that all users of the directory share; see :func:`.directory.shared_secret`."""
        directory.prepare(self.path)
        self._secret = directory.shared_secret(self.path, self._secret)
        return self._secret

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
        if self._lmdb is not None:
            self._lmdb.close()
            self._lmdb = None
            os.close(self._lock_file)

    def _enter(self, now_us: int) -> lmdb.Environment:
        if self._process != os.getpid():
            self.close()  # Forked by something that told Python nothing: a shared lock would let both in.
        elif abs(now_us - self._looked_us) > _LOOK_AT_DIRECTORY_EVERY_US:
            self._looked_us = now_us
            if self._files != directory.inodes(self.path):
                self.close()  # Somebody deleted or replaced the files: workers would split over two stores.
        if self._lmdb is None:
            return self._open()
        fcntl.flock(self._lock_file, fcntl.LOCK_EX)
        return self._lmdb

    def _leave(self) -> None:
        if self._lmdb is not None:
            fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    def _open(self) -> lmdb.Environment:
        """Open the file and be alone with it."""
        directory.prepare(self.path)
        if self._secret:
            directory.shared_secret(self.path, self._secret)
        lock_file = directory.lock(self.path)
        try:
            directory.move_aside_if_cut(self.path)
            opened = lmdb.open(
                str(self.path),
                map_size=self.map_bytes,
                mode=0o600,
                lock=False,
                sync=False,
                metasync=False,
                writemap=False,  # With it, a full disk would be a signal in place of an error.
                meminit=True,  # Else what the process had in its memory, prompts too, fills up the file's pages.
                readahead=False,
            )
            data = self.path / directory.DATA
            # Before the first transaction: see directory.is_cut. The file has holes, so this takes no space.
            if data.stat().st_size < self.map_bytes:
                os.truncate(data, self.map_bytes)
            self._files = data.stat().st_ino, os.fstat(lock_file).st_ino
        except BaseException:
            os.close(lock_file)
            raise
        self._lmdb = opened
        self._lock_file = lock_file
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


def share(path: Path, map_bytes: int) -> Environment:
    """The environment of this path for one more user."""
    with joining:
        environment = _environments.setdefault(path, Environment(path, map_bytes))
        environment.users += 1
        return environment


def release(environment: Environment) -> None:
    """Close it if this was its last user."""
    with joining:
        environment.users -= 1
        if environment.users == 0:
            del _environments[environment.path]
            with environment.threads:
                environment.close()


_environments: dict[Path, Environment] = {}
joining = RLock()
"""Held by whoever begins or ends to use an environment, and by a fork: no child inherits it from another thread."""


def _before_fork() -> None:
    """Close what LMDB forbids to inherit, when no thread is using it; each process opens it again when needed."""
    joining.acquire()
    for environment in _environments.values():
        environment.threads.acquire()
        environment.close()


def _after_fork() -> None:
    for environment in _environments.values():
        environment.threads.release()
    joining.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
