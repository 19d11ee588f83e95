"""The trail of a local store: a line of JSON for each entry, in a file that only grows, unless entries are erased.

An entry counts once it is whole and on the disk; the last needs no end of line, because some editors leave it out. What
a killed process left of an entry was told to nobody, and is cut off before the next one. Who reads needs no lock: a
line is appended in one step, and erasing writes another file.
"""

import errno
import json
import os
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from flask_ailimit.engine.errors import StoreError

from . import directory
from .file_lock import Patience

_END_BYTES = 1 << 16
_LINE = re.compile(rb'\{"number":([0-9]{1,15}),"entry":(.*)\}')


def read(place: Path, number: int) -> list[tuple[int, str]]:
    """The entries with this number and higher ones, in order; none if there is no file.

    Raises:
        StoreError: A line is damaged, or the file can't be read.
    """
    try:
        # Who knows the entries before has read their lines, and asks every two seconds.
        end = _content(place, _END_BYTES) if number > 1 else b""
        at = end.find(b'\n{"number":%d,' % number) + 1
        return _entries(place, _whole(end[at:] if at else _content(place)), number)
    except OSError as error:
        raise _failed(place, error) from error


def add(place: Path, text: str, last: int, without: Collection[int], patience: Patience) -> bool:
    """Append an entry after the one with the number ``last``, and erase others; see :class:`.base.KeepsChanges`.

    Raises:
        StoreError: There is no room, or the file is damaged.
        AwayError: Somebody else has the directory's lock for too long.
    """
    inside = directory.lock(place, patience)
    try:
        content = _content(place)
        whole = _whole(content)
        entries = _entries(place, whole, 1)
        if last != (entries[-1][0] if entries else 0):
            return False
        line = _line(last + 1, text)
        if without:
            kept = [_line(number, entry) for number, entry in entries if number not in without]
            _replace(place, b"".join([*kept, line]))
        else:
            size = min(len(whole), len(content))  # A last line without its end stays, and is given it.
            _append(place, whole[size:] + line, size)
    except OSError as error:
        raise _failed(place, error) from error
    else:
        return True
    finally:
        inside.close()


def _content(place: Path, at_most: int | None = None) -> bytes:
    """What is in the file; with ``at_most``, so many bytes of its end."""
    try:
        with os.fdopen(directory.open_file(place, directory.CHANGES, os.O_RDONLY), "rb") as file:
            if at_most is not None:
                file.seek(max(0, os.fstat(file.fileno()).st_size - at_most))
            return file.read()
    except FileNotFoundError:
        return b""


def _whole(content: bytes) -> bytes:
    """The whole lines, the last with its end."""
    size = content.rfind(b"\n") + 1
    with suppress(ValueError):
        json.loads(content[size:])
        return content + b"\n"
    return content[:size]


def _entries(place: Path, whole: bytes, first: int) -> list[tuple[int, str]]:
    found, before = list[tuple[int, str]](), 0
    for line in whole.split(b"\n")[:-1]:
        match = _LINE.fullmatch(line)
        number = int(match[1]) if match else 0
        if match is None or number <= before:
            path = os.path.realpath(place) + "/" + directory.CHANGES
            raise StoreError(
                f"{path}: a line is damaged, after the entry {before}. Put back a copy of the file, or correct it.",
                transient=False,
            )
        before = number
        if number >= first:
            found.append((number, match[2].decode(errors="replace")))
    return found


def _line(number: int, text: str) -> bytes:
    return f'{{"number":{number},"entry":{text}}}\n'.encode()


def _append(place: Path, line: bytes, size: int) -> None:
    """Write a line behind the whole ones, which have this size. Only for who has the lock."""
    is_new = not os.path.lexists(place / directory.CHANGES)
    descriptor = directory.open_file(place, directory.CHANGES, os.O_WRONLY | os.O_CREAT)
    try:
        os.ftruncate(descriptor, size)
        if os.pwrite(descriptor, line, size) != len(line):
            os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if is_new:
        _sync(place)


def _replace(place: Path, content: bytes) -> None:
    """Write the whole file anew, or nothing of it. Only for who has the lock."""
    draft = place / f"{directory.CHANGES}.draft"
    with suppress(FileNotFoundError):
        draft.unlink()  # Of somebody who died while writing it.
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(place / directory.CHANGES)
    _sync(place)


def _sync(place: Path) -> None:
    """Have the names in the directory written, too."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failed(place: Path, error: OSError) -> StoreError:
    return StoreError(f"The changes of plans in {os.path.realpath(place)} can't be used: {error.strerror}.")
