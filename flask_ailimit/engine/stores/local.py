"""``local://``: one machine, shared by all processes of one user. The default.

An LMDB environment: a write transaction takes a few microseconds, a process that is killed inside one leaves nothing
behind, and there is no server to run. Files are not flushed: counts survive every crash of a process, and a power cut
ends the store's directory in memory anyway.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any

import lmdb

from flask_ailimit.engine.clock import MICROSECONDS, Clock, system_clock
from flask_ailimit.engine.decide import Changes, Record
from flask_ailimit.engine.errors import ConfigurationError, StoreError

from . import directory
from .base import StateStore
from .record import decode, encode, is_expired

_MAP_BYTES = 1 << 30
_LEAST_MAP_BYTES = 1 << 20
_SWEPT_PER_WRITE = 2
_SWEPT_WHEN_FULL = (256, 16, 2)  # Deleting takes room as well: the less there is, the fewer can go at once.
_FULL = 7 / 8
_DAMAGED = (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PageNotFoundError)
_LOOK_AT_DIRECTORY_EVERY_US = MICROSECONDS


class _Environment:
    """An open LMDB environment. LMDB allows one per process and path, so stores of the same path share it."""

    def __init__(self, path: Path, map_bytes: int) -> None:
        self.path = path
        self.map_bytes = map_bytes
        self.lock = Lock()
        self.users = 0
        self._lmdb: lmdb.Environment | None = None
        self._membership = -1
        self._files = (0, 0)
        self._looked_us = 0
        self._swept = b""
        self._secret: bytes | None = None

    def begin(self, now_us: int) -> lmdb.Transaction:
        if self._lmdb is not None and abs(now_us - self._looked_us) > _LOOK_AT_DIRECTORY_EVERY_US:
            self._looked_us = now_us
            if self._files != directory.inodes(self.path):
                # Somebody deleted or replaced the files: without this, workers would split over two stores.
                self.close()
        return (self._lmdb or self._open()).begin(write=True)

    def secret(self) -> bytes:
        directory.prepare(self.path)
        self._secret = directory.shared_secret(self.path, self._secret)
        return self._secret

    def sweep(self, transaction: lmdb.Transaction, now_us: int, most: int = _SWEPT_PER_WRITE) -> None:
        """Delete those of the next few records that have expired, so that the file stays as small as its use."""
        cursor = transaction.cursor()
        found = cursor.set_range(self._swept)
        for _ in range(most):
            if not found:
                break
            expired = is_expired(bytes(cursor.value()), now_us)
            found = cursor.delete() and bool(cursor.key()) if expired else cursor.next()
        self._swept = bytes(cursor.key()) if found else b""

    def is_full(self, transaction: lmdb.Transaction) -> bool:
        """Whether to stop taking new subjects in. LMDB itself needs free pages, even to delete."""
        pages = transaction.stat()
        used = pages["branch_pages"] + pages["leaf_pages"] + pages["overflow_pages"]
        return bool(used * pages["psize"] > self.map_bytes * _FULL)

    def clear(self, transaction: lmdb.Transaction) -> None:
        if self._lmdb is not None:
            transaction.drop(self._lmdb.open_db(), delete=False)

    def recover(self, error: Exception, now_us: int) -> None:
        """Do what lets a later transaction succeed."""
        if isinstance(error, lmdb.MapFullError):
            self._make_room(now_us)
        elif isinstance(error, lmdb.PanicError):
            self.close()
        elif isinstance(error, _DAMAGED):
            is_ours = self._files == directory.inodes(self.path)
            self.close()
            if is_ours:  # Else another process has moved it already.
                directory.move_aside(self.path)

    def close(self) -> None:
        if self._lmdb is not None:
            self._lmdb.close()
            self._lmdb = None
            os.close(self._membership)

    def _make_room(self, now_us: int) -> None:
        if self._lmdb is None:
            return
        for most in _SWEPT_WHEN_FULL:
            with suppress(lmdb.Error), self._lmdb.begin(write=True) as transaction:
                self.sweep(transaction, now_us, most)
                return

    def _open(self) -> lmdb.Environment:
        directory.prepare(self.path)
        if self._secret:
            directory.shared_secret(self.path, self._secret)
        membership = directory.join(self.path)
        try:
            opened = lmdb.open(
                str(self.path),
                map_size=self.map_bytes,
                max_readers=16,  # Only write transactions are used.
                mode=0o600,
                sync=False,
                metasync=False,
                writemap=False,  # With it, a full disk would be a signal in place of an error.
                meminit=False,
                readahead=False,
            )
            # Before the first transaction: see directory._is_whole. The file has holes, so this takes no space.
            data = self.path / directory.DATA
            if data.stat().st_size < self.map_bytes:
                os.truncate(data, self.map_bytes)
        except BaseException:
            os.close(membership)
            raise
        self._lmdb = opened
        self._membership = membership
        self._files = directory.inodes(self.path)
        return opened


class _Transaction:
    """See :class:`flask_ailimit.engine.stores.base.Transaction`."""

    __slots__ = ("_environment", "_is_new", "_lmdb", "now_us")

    def __init__(self, environment: _Environment, transaction: lmdb.Transaction, now_us: int) -> None:
        self._environment = environment
        self._lmdb = transaction
        self._is_new = False
        self.now_us = now_us

    def read(self, subject: bytes) -> Record:
        raw = self._lmdb.get(subject)
        if raw is None:
            self._is_new = True
            return {}
        return _decoded(bytes(raw))

    def write(self, changes: Changes) -> None:
        """Write, and forget a few expired records as well."""
        if self._is_new and any(changes.values()) and self._environment.is_full(self._lmdb):
            raise lmdb.MapFullError("the rest is kept free for deleting")
        for subject, record in changes.items():
            if record:
                self._lmdb.put(subject, encode(record))
            else:
                self._lmdb.delete(subject)
        self._environment.sweep(self._lmdb, self.now_us)

    def clear(self) -> None:
        self._environment.clear(self._lmdb)


class LocalStore(StateStore):
    """Keeps the counts of one machine in a directory.

    Args:
        path: The directory; made if it is missing, for this user only. None: the default one of ``name``.
        name: The app's name in the default directory.
        clock: Microseconds since the epoch; read inside the transaction, so that decisions are in its order.
        map_size: The largest size of the file in bytes; space is used only as it is needed. At seven eighths of it
            no new subject is taken in until others expire.

    Raises:
        ConfigurationError: ``map_size`` is too small, or (when first used) the directory is not fit.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        name: str = "app",
        clock: Clock = system_clock,
        map_size: int = _MAP_BYTES,
    ) -> None:
        if type(map_size) is not int or map_size < _LEAST_MAP_BYTES:
            raise ConfigurationError(
                f"map_size: the file's largest size in bytes, at least {_LEAST_MAP_BYTES}. Got {map_size!r}."
            )
        self._path = path
        self._name = name
        self._clock = clock
        self._map_size = map_size
        self._environment: _Environment | None = None

    def __repr__(self) -> str:
        return f"LocalStore({str(self.path)!r})"

    @property
    def path(self) -> Path:
        """The directory. The default one depends on the user, so it is asked for when it is needed."""
        path = (self._path or directory.default_directory(self._name)).absolute()
        # One spelling for each, because a process may open it only once. Whether the directory itself is a link is
        # looked at later.
        return path.parent.resolve() / path.name

    @contextmanager
    def transaction(self) -> Iterator[_Transaction]:
        """Hold the machine-wide write lock. See :class:`~flask_ailimit.engine.stores.base.StateStore`."""
        environment = self._environment or self._join()
        with environment.lock:
            try:
                with environment.begin(self._clock()) as transaction:
                    yield _Transaction(environment, transaction, self._clock())
            except (lmdb.Error, OSError) as error:
                environment.recover(error, self._clock())
                raise _store_error(environment, error) from error

    def clear(self) -> None:
        """Forget everything."""
        with self.transaction() as transaction:
            transaction.clear()

    def secret(self) -> bytes:
        """32 random bytes that every process which opens this directory shares."""
        environment = self._environment or self._join()
        with environment.lock:
            try:
                return environment.secret()
            except OSError as error:
                raise _store_error(environment, error) from error

    def close(self) -> None:
        """Close the file if no other store of this process uses it."""
        with _registry:
            environment, self._environment = self._environment, None
            if environment is None:
                return
            environment.users -= 1
            if environment.users == 0:
                del _environments[environment.path]
                with environment.lock:
                    environment.close()

    def _join(self) -> _Environment:
        with _registry:
            path = self.path
            environment = _environments.setdefault(path, _Environment(path, self._map_size))
            if self._environment is None:
                environment.users += 1
                self._environment = environment
        return environment


_environments: dict[Path, _Environment] = {}
_registry = Lock()


def _decoded(raw: bytes) -> Record:
    try:
        return decode(raw)
    except ValueError:
        return {}  # Written by another version of this library: such a count starts afresh.


def _store_error(environment: _Environment, error: Exception) -> StoreError:
    if isinstance(error, lmdb.MapFullError):
        return StoreError(
            f"The limits' file in {environment.path} is full at {environment.map_bytes} bytes. "
            "Give a larger map_size in storage_options."
        )
    return StoreError(f"The limits' file in {environment.path} can't be used: {error}.")


def _before_fork() -> None:
    """Close what LMDB forbids to inherit, when no thread is using it; each process opens it again when needed."""
    _registry.acquire()
    for environment in _environments.values():
        environment.lock.acquire()
        environment.close()


def _after_fork() -> None:
    for environment in _environments.values():
        environment.lock.release()
    _registry.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


def open_uri(rest: str, name: str, clock: Clock, **options: Any) -> LocalStore:
    """Open ``local://`` (the default directory) or ``local:///an/absolute/directory``."""
    if rest and not rest.startswith("/"):
        raise ConfigurationError(
            f"storage_uri: 'local://{rest[:80]}' names no absolute directory. Write three slashes, as in "
            "'local:///var/lib/myapp/limits', or only 'local://' for the default place."
        )
    return LocalStore(Path(rest) if rest else None, name=name, clock=clock, **options)
