"""The way to a local store's directory, which nobody else may bend.

It is walked one name at a time, each opened from the descriptor of the one before and looked at through its own.
So what is looked at is what is used, and nothing is made in a directory before it is known whose it is.
"""

import logging
import os
import stat
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flask_ailimit.engine.errors import ConfigurationError, StoreError

_MOST_LINKS = 40  # As in Linux: see path_resolution(7).
_MOST_TRIES = 100
ANOTHER_STORE = "Use a local directory such as 'local:///var/lib/myapp/limits', or Redis for several machines."
NAME_ONE = "name a directory that only this user can write to, such as storage_uri='local:///var/lib/myapp/limits'"
_log = logging.getLogger("flask_ailimit")
_said: set[str] = set()


@dataclass(frozen=True)
class Place:
    """A directory for one store.

    Attributes:
        root: An absolute directory that the operator or the system vouches for. Links on the way to it are followed.
        below: Names from there on. Each is a directory of this user, never a link, and is made if it is missing.
        is_named: Whether the operator wrote this very directory down.
        is_root_named: Whether the operator wrote the root down.
        makes_root: Whether a missing root is made.
    """

    root: Path
    below: tuple[str, ...]
    is_named: bool = False
    is_root_named: bool = False
    makes_root: bool = False

    @property
    def path(self) -> Path:
        """One spelling for each directory, because a process can open it only once."""
        return Path(os.path.realpath(self.root), *self.below)


def open_directory(place: Place) -> int:
    """A descriptor of the place's directory, which is made, for this user only, if it is missing.

    Raises:
        ConfigurationError: Somebody or something is in the way; the sentence names it and says what to do.
        StoreError: The directory can't be made.
        OSError: It can't be opened.
    """
    left = [
        *((name, False) for name in reversed(place.below)),
        *((name, True) for name in reversed(place.root.parts[1:])),
    ]
    links = 0
    at = Path("/")
    here = _open_root()
    try:
        while left:
            name, is_root = left.pop()
            there = _open_name(here, at, name, makes=place.makes_root or not is_root)
            try:
                found, around = os.fstat(there), os.fstat(here)
                _require_known(at / name, found, at, around)
                if is_root and stat.S_ISLNK(found.st_mode):
                    links += 1
                    target = Path(os.readlink("", dir_fd=there))
                    if links > _MOST_LINKS:
                        raise ConfigurationError(f"storage_uri: {place.root} has too many links in it.")
                    parts = target.parts
                    if target.is_absolute():
                        parts, at = parts[1:], Path("/")
                        os.close(here)
                        here = _open_root()
                    left += [(part, True) for part in reversed(parts)]
                    continue
                at = at.parent if name == ".." else at / name
                if not is_root:
                    _require_own(at, found, place)
                elif not stat.S_ISDIR(found.st_mode):
                    raise ConfigurationError(f"storage_uri: {at} is not a directory. {_otherwise(place)}")
                elif not any(of_root for _, of_root in left):
                    _require_fit_root(at, found, place)
                here, there = there, here
            finally:
                os.close(there)
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
    finally:
        os.close(here)


def through(descriptor: int, path: Path) -> Path:
    """A path that leads to the opened directory, whatever becomes of its name.

    Without ``/proc``, the name: nobody else can have changed it, for all on the way there was looked at.
    """
    opened = Path(f"/proc/self/fd/{descriptor}")
    return opened if opened.exists() else path


def is_at(descriptor: int, path: Path) -> bool:
    """Whether the opened directory still goes by this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except OSError:
        return False


def say_once(sentence: str) -> None:
    """Log it, unless this process has."""
    if sentence not in _said:
        _said.add(sentence)
        _log.warning("%s", sentence)


def _open_root() -> int:
    return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _open_name(here: int, at: Path, name: str, *, makes: bool) -> int:
    """Open whatever goes by the name, or a new directory."""
    try:
        return _open_as_it_is(here, name)
    except FileNotFoundError:
        if not makes:
            raise StoreError(f"storage_uri: {at / name} is missing. Make it, or {NAME_ONE}.", transient=False) from None
    left = _MOST_TRIES
    while True:
        left -= 1
        try:
            with suppress(FileExistsError):  # Another process was first; whose it is, is looked at as for any.
                os.mkdir(name, 0o700, dir_fd=here)
            return _open_as_it_is(here, name)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and left:
                continue  # Another process has just removed it, because nothing lived in it yet.
            raise StoreError(
                f"storage_uri: can't make {at / name}: {error.strerror}. Let this user write to {at}, or {NAME_ONE}.",
                transient=False,
            ) from error


def _open_as_it_is(here: int, name: str) -> int:
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags | os.O_DIRECTORY, dir_fd=here)  # Asked for a directory, an automounter mounts it.
    except NotADirectoryError:
        return os.open(name, flags, dir_fd=here)


def _require_known(path: Path, found: os.stat_result, at: Path, around: os.stat_result) -> None:
    """Refuse a stranger's file, link or directory where anybody could have put it."""
    if found.st_uid not in (0, os.geteuid()) and _others_write(around):
        raise ConfigurationError(
            f"storage_uri: {path} belongs to uid {found.st_uid}, not to uid {os.geteuid()} of this process, and others "
            f"can write to {at}. Remove it, or {NAME_ONE}."
        )


def _require_own(path: Path, found: os.stat_result, place: Place) -> None:
    if stat.S_ISLNK(found.st_mode):
        way_out = "Name the directory itself." if place.is_named else f"Remove it, or {NAME_ONE}."
        raise ConfigurationError(f"storage_uri: {path} is a link. {way_out}")
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigurationError(f"storage_uri: {path} is not a directory. {_otherwise(place)}")
    if found.st_uid != os.geteuid():
        raise ConfigurationError(
            f"storage_uri: {path} belongs to uid {found.st_uid}, not to uid {os.geteuid()} of this process. "
            f"{'Name a directory of its own.' if place.is_named else _otherwise(place)}"
        )
    if _others_write(found):
        sentence = f"storage_uri: others can write to {path}. Run: chmod 700 {path}"
        if not place.is_named:
            raise ConfigurationError(sentence)
        warnings.warn(sentence, RuntimeWarning, stacklevel=5)


def _require_fit_root(path: Path, found: os.stat_result, place: Place) -> None:
    """Refuse, or for one that the operator named say once, that others can rename what is in it."""
    if _others_write(found) and not found.st_mode & stat.S_ISVTX:
        sentence = (
            f"storage_uri: others can write to {path}, which has no sticky bit, so they can take the counts away. "
            f"Run: chmod +t {path}, or {NAME_ONE}."
        )
        if not place.is_root_named:
            raise ConfigurationError(sentence)
        say_once(sentence)
    if not place.is_root_named and found.st_uid not in (0, os.geteuid()):
        raise ConfigurationError(
            f"storage_uri: {path} belongs to uid {found.st_uid}, not to uid {os.geteuid()} of this process. "
            f"Set XDG_RUNTIME_DIR or XDG_STATE_HOME to this user's own, or {NAME_ONE}."
        )


def _others_write(status: os.stat_result) -> bool:
    """Whether others can make and rename what is in a directory.

    A group whose number is the owner's is taken for the owner's own, as most systems make one for each user.
    """
    mode = status.st_mode
    return bool(mode & stat.S_IWOTH or (mode & stat.S_IWGRP and status.st_gid != status.st_uid))


def _otherwise(place: Place) -> str:
    if place.is_named:
        return ANOTHER_STORE
    return f"Remove it, or {NAME_ONE}."
