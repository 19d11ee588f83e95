"""Local stores that nobody uses any more: what stands in a user's home of stores, and what can go.

Whoever opens a directory shares the kernel's lock on it (:func:`.directory.open_fit`). So who gets that lock alone
knows that nobody has it open, and that nobody opens it meanwhile.
"""

import logging
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import lmdb

from flask_ailimit.engine.errors import AILimitError

from . import directory, places
from .record import is_expired

_WHOLE = f"{directory.SECRET}|{directory.CONFIGURATIONS}|{directory.MACHINES}"
"""Files that are written whole: a draft of one can be left behind."""

_OURS = re.compile(rf"{re.escape(directory.DATA)}|{directory.LOCK}|({_WHOLE})(\.[a-z0-9]+)?")
_MOST_STORES = 100
_MOST_RECORDS = 10_000
_BLOCK_BYTES = 512
_MACHINE_KEPT_NS = 24 * 3600 * 10**9
_log = logging.getLogger("flask_ailimit")


class Standing(NamedTuple):
    """A store as it stands on the disk.

    Attributes:
        path: Its directory.
        size_bytes: The space that it takes.
        written_ns: When a count was last written, in nanoseconds since 1970.
        is_open: Whether a process has it open.
    """

    path: Path
    size_bytes: int
    written_ns: int
    is_open: bool


def standing(home: Path) -> Iterator[Standing]:
    """The stores in a home, by name."""
    with suppress(OSError), _opened(home) as parent:
        for name in sorted(_names(parent)):
            with suppress(OSError), _opened(name, parent) as store:
                files = [os.stat(file, dir_fd=store, follow_symlinks=False) for file in _names(store)]
                written = max((file.st_mtime_ns for file in files), default=os.fstat(store).st_mtime_ns)
                size = sum(file.st_blocks for file in files) * _BLOCK_BYTES
                yield Standing(home / name, size, written, not directory.take_alone(store))


def remove_ended(own: Path, opened: int) -> None:
    """Remove the stores beside ``own`` in which nothing lives and that nobody has open. Never fails.

    Looks at 100 of them at most, and at 10,000 records of each: this is done while an app starts.
    """
    with suppress(OSError), _opened(own.parent) as parent:
        # The kernel's time. A test may have this process believe in another one, in which all has ended.
        os.utime(opened)
        now_us = os.fstat(opened).st_mtime_ns // 1000
        for name in islice(_names(parent), _MOST_STORES):
            if name != own.name:
                _remove_if_ended(parent, own.parent / name, now_us)


def remove_if_ended(path: Path) -> None:
    """Remove this very store if nothing lives in it and nobody has it open. Never fails."""
    with suppress(OSError), _opened(path.parent) as parent:
        _remove_if_ended(parent, path, None)


def _remove_if_ended(parent: int, path: Path, now_us: int | None) -> None:
    with suppress(OSError, lmdb.Error, AILimitError), _opened(path.name, parent) as store:
        if directory.take_alone(store) and _has_ended(store, path, now_us):
            _remove(parent, path.name, store)


@contextmanager
def _opened(name: Path | str, parent: int | None = None) -> Iterator[int]:
    """A directory of this user, which is no link."""
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise PermissionError(name)
        yield descriptor
    finally:
        os.close(descriptor)


def _names(opened: int) -> list[str]:
    with os.scandir(opened) as entries:
        return [entry.name for entry in entries]


def _has_ended(store: int, path: Path, now_us: int | None) -> bool:
    """Whether no count lives, and nothing lies there that isn't ours; None as the time: whether there is no count."""
    if not all(_may_go(name, store, now_us) for name in _names(store)):
        return False
    inside = places.through(store, path)
    try:
        data = directory.open_file(inside, directory.DATA, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        file = places.through(data, inside / directory.DATA)
        if os.fstat(data).st_size == 0:
            return True
        if directory.is_cut(file):
            return False
        with (
            lmdb.open(str(file), subdir=False, readonly=True, create=False, lock=False, readahead=False) as opened,
            opened.begin(buffers=True) as transaction,
        ):
            if transaction.stat()["entries"] > _MOST_RECORDS:
                return False
            return all(now_us is not None and is_expired(bytes(raw), now_us) for _, raw in transaction.cursor())
    finally:
        os.close(data)


def _may_go(name: str, store: int, now_us: int | None) -> bool:
    status = os.stat(name, dir_fd=store, follow_symlinks=False)
    if not _OURS.fullmatch(name) or not stat.S_ISREG(status.st_mode):
        return False
    if name != directory.MACHINES:
        return True
    # A machine of a Redis, which knows it by the secret here, and would take it for another one without.
    return now_us is not None and now_us * 1000 - status.st_mtime_ns >= _MACHINE_KEPT_NS


def _remove(parent: int, name: str, store: int) -> None:
    for file in _names(store):
        os.unlink(file, dir_fd=store)
    os.rmdir(name, dir_fd=parent)
    _log.info("Removed the limits' directory %s: nothing lived in it, and nobody had it open.", name)
