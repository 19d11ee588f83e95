"""``local://``: one machine, shared by all processes of one user. The default.

An LMDB file: a transaction takes a few microseconds, a process that is killed inside one leaves nothing behind, and
there is no server to run. Files are not flushed: counts survive every crash of a process, and a power cut ends the
store's directory in memory anyway.
"""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import lmdb

from flask_ailimit.engine.clock import Clock, system_clock
from flask_ailimit.engine.decide import Changes, Record
from flask_ailimit.engine.errors import ConfigurationError, StoreError

from . import directory, environment
from .base import StateStore
from .environment import Environment
from .record import decode, encode

_MAP_BYTES = 1 << 30
_LEAST_MAP_BYTES = 1 << 20


class _Transaction:
    """See :class:`flask_ailimit.engine.stores.base.Transaction`. Inside its block, the only one of this machine."""

    __slots__ = ("_clock", "_environment", "_is_new", "_lmdb", "now_us")

    def __init__(self, environment: Environment, clock: Clock) -> None:
        self._environment = environment
        self._clock = clock
        self._is_new = False

    def __enter__(self) -> Self:
        shared = self._environment
        shared.threads.acquire()
        try:
            self.now_us = self._clock()
            self._lmdb = shared.begin(self.now_us)
        except BaseException as error:
            shared.threads.release()
            if isinstance(error, (lmdb.Error, OSError)):
                raise _store_error(shared, error) from error
            raise
        try:
            self.now_us = self._clock()  # Others may have been inside meanwhile.
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        shared = self._environment
        failure = error
        try:
            shared.end(self._lmdb, self.now_us, error)
        except (lmdb.Error, OSError) as at_end:
            failure = at_end
        finally:
            shared.threads.release()
        if isinstance(failure, (lmdb.Error, OSError)):
            raise _store_error(shared, failure) from failure

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
        self._environment.written(self._lmdb, self.now_us)

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
        self._environment: Environment | None = None

    def __repr__(self) -> str:
        return f"LocalStore({str(self.path)!r})"

    @property
    def path(self) -> Path:
        """The directory. The default one depends on the user, so it is asked for when it is needed."""
        path = (self._path or directory.default_directory(self._name)).absolute()
        # One spelling for each, because a process may open it only once. Whether the directory itself is a link is
        # looked at later.
        return path.parent.resolve() / path.name

    def transaction(self) -> _Transaction:
        """Hold the lock of the machine. See :class:`~flask_ailimit.engine.stores.base.StateStore`."""
        return _Transaction(self._environment or self._join(), self._clock)

    def clear(self) -> None:
        """Forget everything."""
        with self.transaction() as transaction:
            transaction.clear()

    def secret(self) -> bytes:
        """32 random bytes that every process which opens this directory shares."""
        shared = self._environment or self._join()
        with shared.threads:
            try:
                return shared.secret()
            except OSError as error:
                raise _store_error(shared, error) from error

    def close(self) -> None:
        """Close the file if no other store of this process uses it."""
        with environment.joining:
            shared, self._environment = self._environment, None
        if shared:
            environment.release(shared)

    def _join(self) -> Environment:
        with environment.joining:
            if self._environment is None:
                self._environment = environment.share(self.path, self._map_size)
            return self._environment


def _decoded(raw: bytes) -> Record:
    try:
        return decode(raw)
    except ValueError:
        return {}  # Written by another version of this library: such a count starts afresh.


def _store_error(shared: Environment, error: Exception) -> StoreError:
    if isinstance(error, lmdb.MapFullError):
        return StoreError(
            f"The limits' file in {shared.path} is full at {shared.map_bytes} bytes. "
            "Give a larger map_size in storage_options."
        )
    return StoreError(f"The limits' file in {shared.path} can't be used: {error}.")


def open_uri(uri: str, name: str, clock: Clock, **options: Any) -> LocalStore:
    """Open ``local://`` (the default directory) or ``local:///an/absolute/directory``."""
    rest = uri.removeprefix("local://")
    if rest and not rest.startswith("/"):
        raise ConfigurationError(
            f"storage_uri: 'local://{rest[:80]}' names no absolute directory. Write three slashes, as in "
            "'local:///var/lib/myapp/limits', or only 'local://' for the default place."
        )
    return LocalStore(Path(rest) if rest else None, name=name, clock=clock, **options)
