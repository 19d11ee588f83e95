"""``local://``: one machine, shared by all processes of one user. The default.

An LMDB file: a transaction takes a few microseconds, a process that is killed inside one leaves nothing behind, and
there is no server to run. Files are not flushed: counts survive every crash of a process, and a power cut ends the
store's directory in memory anyway.
"""

import logging
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import lmdb

from flask_ailimit.engine.clock import Clock, system_clock
from flask_ailimit.engine.decide import Changes, Record
from flask_ailimit.engine.errors import AwayError, ConfigurationError, StoreError
from flask_ailimit.engine.mutex import BusyError

from . import directory, environment, housekeeping, lasting, trail_file
from .base import StateStore, Transaction
from .environment import Environment
from .options import require_seconds
from .places import Place
from .record import decode, encode

_log = logging.getLogger("flask_ailimit")

_MAP_BYTES = 1 << 30
_LEAST_MAP_BYTES = 1 << 20
_LOCK_TIMEOUT = 1.0
_SHORTEST_LOCK_TIMEOUT = 0.01
_LONGEST_LOCK_TIMEOUT = 60
_IN_MEMORY = ("tmpfs", "ramfs")

_Answer = TypeVar("_Answer")


class _Transaction:
    """See :class:`flask_ailimit.engine.stores.base.Transaction`. Inside its block, the only one of this machine.

    Who is alone in the process may use it. Nothing that is raised in its methods leaves it half done.
    """

    __slots__ = ("_clock", "_environment", "_is_new", "_lmdb", "now_us")

    def __init__(self, environment: Environment, clock: Clock) -> None:
        self._environment = environment
        self._clock = clock
        self._is_new = False

    def __enter__(self) -> Self:
        shared = self._environment
        try:
            self.now_us = self._clock()
            self._lmdb = shared.begin(self.now_us)
        except (lmdb.Error, OSError) as error:
            raise _store_error(shared, error) from error
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
        lock_timeout: Seconds to wait at most until other processes let this one in, 0.01 to 60. A process that was
            stopped inside keeps all others out.

    Raises:
        ConfigurationError: An option is out of its range, or (when first used) the directory is not fit.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        name: str = "app",
        clock: Clock = system_clock,
        map_size: int = _MAP_BYTES,
        lock_timeout: float = _LOCK_TIMEOUT,
    ) -> None:
        if type(map_size) is not int or map_size < _LEAST_MAP_BYTES:
            raise ConfigurationError(
                f"map_size: the file's largest size in bytes, at least {_LEAST_MAP_BYTES}. Got {map_size!r}."
            )
        require_seconds("lock_timeout", lock_timeout, _SHORTEST_LOCK_TIMEOUT, _LONGEST_LOCK_TIMEOUT, "1")
        self._lock_timeout = lock_timeout
        self._path = path
        self._name = name
        self._clock = clock
        self._map_size = map_size
        self._environment: Environment | None = None  # Stays after the end, for who is inside.
        self._uses_it = False

    shares_changes = True

    def __repr__(self) -> str:
        return f"LocalStore({str(self.path)!r})"

    @property
    def where(self) -> str:
        """Where the counts are, in words."""
        return str(self.path)

    @property
    def path(self) -> Path:
        """The directory. The default one depends on the user, so it is asked for when it is needed."""
        return self._place.path

    @property
    def _place(self) -> Place:
        if self._path is not None:
            return directory.named(self._path)
        return directory.default(directory.default_directory(self._name))

    def alone(self, step: Callable[[Transaction], _Answer]) -> _Answer:
        """See :class:`~flask_ailimit.engine.stores.base.StateStore`."""
        answer: _Answer = self._alone(StateStore.alone, self, step)
        return answer

    def transaction(self) -> _Transaction:
        """Hold the lock of the machine. For who is :meth:`alone`."""
        # Who is alone has come through _join; from in there nobody may: a fork takes these two locks in that order.
        return _Transaction(self._environment or self._join(), self._clock)

    def clear(self) -> None:
        """Forget everything."""

        def step(transaction: Transaction) -> None:
            assert isinstance(transaction, _Transaction)  # noqa: S101
            transaction.clear()

        self.alone(step)

    def secret(self) -> bytes:
        """32 random bytes that every process which opens this directory shares."""
        return self._alone(self._shared().secret)

    def introduce(self, configuration: str, app: str) -> None:
        """Say once in the log if another configuration is in use on this directory.

        Nothing is said while nobody gets in: that is no reason for an app not to start.

        Args:
            configuration: A fingerprint of what the app's limits are configured with, 32 hexadecimal digits.
            app: The app's name.
        """
        other = None
        with suppress(AwayError):
            other = self._alone(self._shared().introduce, configuration, app)
        if other:
            _log.warning(
                "The counts in %s are used with two configurations: that of the app %r, and another one of %s. If one "
                "is a new release of the other, nothing is wrong. If they are two apps, or two instances that are to "
                "count apart, give each a name: AILIMIT_NAME.",
                self.path,
                app,
                other,
            )

    def changes_from(self, number: int) -> list[tuple[int, str]]:
        """See :class:`~flask_ailimit.engine.stores.base.KeepsChanges`. Takes no lock."""
        return trail_file.read(self.path, number)

    def add_change(self, text: str, last: int, without: Collection[int] = ()) -> bool:
        """See :class:`~flask_ailimit.engine.stores.base.KeepsChanges`."""
        return self._alone(self._shared().add_change, text, last, without)

    def may_lose_changes(self) -> str | None:
        """See :class:`~flask_ailimit.engine.stores.base.KeepsChanges`."""
        path = self.path
        kind = directory.file_system(path)
        if kind not in _IN_MEMORY:
            return None
        return (
            f"Changes of plans don't survive a restart of the machine: {path} is in memory ({kind}). Use a directory "
            "on a disk, such as storage_uri='local:///var/lib/myapp/limits'."
        )

    def may_lose_counts(self) -> str | None:
        """See :class:`~flask_ailimit.engine.stores.base.Lasting`."""
        return lasting.why_it_ends(self.path)

    def close(self) -> None:
        """Close the file if no other store of this process uses it."""
        environment.joining.run(self._leave)

    def _leave(self) -> None:
        if self._uses_it and self._environment is not None:
            self._uses_it = False
            environment.release(self._environment)

    def discard(self) -> None:
        """Remove the directory, after :meth:`close`, if nothing was ever counted in it and nobody has it open."""
        housekeeping.remove_if_ended(self.path)

    def _alone(self, work: Callable[..., _Answer], *arguments: Any) -> _Answer:
        shared = self._shared()
        try:
            return shared.alone(self._lock_timeout, work, *arguments)
        except BusyError as error:
            raise _busy(self.path, error) from error
        except OSError as error:
            raise _store_error(shared, error) from error

    def _shared(self) -> Environment:
        shared = self._environment if self._uses_it else None
        return shared or self._join()

    def _join(self) -> Environment:
        try:
            return environment.joining.run(self._joined)
        except BusyError as error:
            raise _busy(self.path, error) from error

    def _joined(self) -> Environment:
        if self._environment is None or not self._uses_it:
            self._environment = environment.share(self._place, self._map_size)
            self._uses_it = True
        return self._environment


def _decoded(raw: bytes) -> Record:
    try:
        return decode(raw)
    except ValueError:
        return {}  # Written by another version of this library: such a count starts afresh.


def _busy(path: Path, error: BusyError) -> AwayError:
    return AwayError(f"The limits' file in {path} can't be used now: {error}.")


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
