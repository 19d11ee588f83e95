"""The directory of the local store: where it is, whether it is fit, its lock, and the files in it.

LMDB maps its file into memory, so what would be an error elsewhere can be a signal that kills the worker (a truncated
file, a full tmpfs). Everything that can be known beforehand is looked at here, before the map.
"""

import errno
import fcntl
import os
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from threading import Event

from flask_ailimit.engine.errors import AwayError, ConfigurationError, StoreError

from . import places
from .file_lock import Patience, lock_within
from .places import Place

BASE = "AILIMIT_STORES_DIRECTORY"
"""The environment variable that names a directory in place of ``/dev/shm`` and those that follow it."""

DATA = "data.mdb"
LOCK = "lock"
SECRET = "secret"  # noqa: S105  a file's name
CONFIGURATIONS = "configurations"
MACHINES = "machines"
CHANGES = "changes.jsonl"
_IN_MEMORY = Path("/dev/shm")  # noqa: S108  what we make in it is for this user only
_TRIES = 100
_BETWEEN_TRIES = 0.01
_LEAST_FREE_BYTES = 1 << 20
_META_BYTES = 40 + 96 + 16
NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "sshfs"}


def named(path: Path) -> Place:
    """The place that the operator wrote down."""
    path = path.absolute()
    return Place(path.parent, (path.name,), is_named=True, is_root_named=True, makes_root=True)


def default(path: Path) -> Place:
    """The place of :func:`default_directory`."""
    root, asked = path.parents[1], bool(os.environ.get(BASE))
    return Place(root, (path.parent.name, path.name), is_root_named=asked, makes_root=asked or root == _state())


def default_directory(name: str) -> Path:
    """The directory for an app called ``name``: in memory where there is such a place, else in the user's state.

    Never the temporary directory: its cleaners delete files that are in use. A place that is missing or read-only is
    skipped, which the log says once.

    Raises:
        ConfigurationError: ``AILIMIT_STORES_DIRECTORY`` is not absolute.
        StoreError: There is no such place.
    """
    own = f"flask_ailimit-{os.geteuid()}"
    if asked := os.environ.get(BASE):
        if not asked.startswith("/"):
            raise ConfigurationError(
                f"{BASE}: an absolute directory is needed, such as '/dev/shm'. Got {asked[:80]!r}."
            )
        return Path(asked) / own / name
    skipped = []
    for base in _in_memory():
        if base.exists() and os.access(base, os.W_OK):
            return base / own / name
        skipped.append(f"{base} is {'read-only' if base.exists() else 'missing'}")
    state = _state()
    if state is None:
        raise StoreError(
            f"storage_uri: there is no place for the counts: {', '.join(skipped)}, and this user has no home. "
            f"Mount a tmpfs on /dev/shm, or {places.NAME_ONE}.",
            transient=False,
        )
    places.say_once(
        f"The counts are kept in {state}, because {' and '.join(skipped)}. "
        f"For counts in memory, mount a tmpfs on /dev/shm; for another place, {places.NAME_ONE}."
    )
    return state / "flask_ailimit" / name


def default_homes() -> Iterator[Path]:
    """The directories in which default stores of this user lie, one in another, whether or not they are there."""
    own = f"flask_ailimit-{os.geteuid()}"
    if asked := os.environ.get(BASE):
        yield Path(asked) / own
        return
    for base in _in_memory():
        yield base / own
    if state := _state():
        yield state / "flask_ailimit"


def open_fit(place: Place) -> int:
    """A descriptor of the place's directory, which is fit to be mapped; see :func:`.places.open_directory`.

    Whoever has it open shares the kernel's lock on it, so that nobody removes what is in use.

    Raises:
        ConfigurationError: Somebody or something is in the way, or it is on a network file system.
        StoreError: It can't be made, or its file system is full.
    """
    while True:
        descriptor = places.open_directory(place)
        try:
            _share(descriptor)
            if places.is_at(descriptor, place.path):
                _require_fit(place.path, descriptor)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # Somebody removed it while we came.


def is_alone(descriptor: int) -> bool:
    """Whether nobody else has the directory open. A fork shares the descriptor and counts as the same."""
    try:
        return take_alone(descriptor)
    finally:
        _share(descriptor)  # Linux lets go of the lock that it can't change.


def take_alone(descriptor: int) -> bool:
    """Whether nobody else has the directory open. If so, nobody can open it until the descriptor is closed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_file(directory: Path, name: str, flags: int) -> int:
    """A descriptor of a plain file in the directory, of this user alone.

    Raises:
        ConfigurationError: It is something else, somebody else's, or has another name somewhere.
        OSError: It can't be opened.
    """
    path = os.path.realpath(directory) + "/" + name
    try:
        # Not to wait for who writes to a pipe.
        descriptor = os.open(directory / name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ConfigurationError(f"storage_uri: {path} is a link. Remove it.") from error
        raise
    found = os.fstat(descriptor)
    wrong = (
        (not stat.S_ISREG(found.st_mode) and "is no plain file")
        or (
            found.st_uid != os.geteuid() and f"belongs to uid {found.st_uid}, not to uid {os.geteuid()} of this process"
        )
        or (found.st_nlink > 1 and "has another name somewhere (a hard link)")
        or (found.st_mode & (0o077 if name in (SECRET, CHANGES) else 0o022) and "is open to others")
    )
    if wrong:
        os.close(descriptor)
        lost = "; counts start afresh" if name in (DATA, SECRET) else ""
        raise ConfigurationError(f"storage_uri: {path} {wrong}. Remove it{lost}.")
    return descriptor


def lock(directory: Path, patience: Patience) -> FileIO:
    """Wait until nobody else has the directory's lock; answer the file that has it now, until it is closed or dropped.

    Raises:
        AwayError: Somebody had it for too long.
    """
    path = directory / LOCK
    while True:
        # A descriptor that an exception loses stays open, and a lock on it would be held for ever. A file is dropped.
        file = FileIO(open_file(directory, LOCK, os.O_RDWR | os.O_CREAT), "r+")
        try:
            if not lock_within(file, patience):
                raise held_too_long(directory)  # noqa: TRY301  the file is closed below
            if os.fstat(file.fileno()).st_ino == _inode(path):
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # Somebody deleted it while we waited. Others have another one by now.


def held_too_long(directory: Path) -> AwayError:
    """What is raised when the lock can't be had."""
    return AwayError(
        f"The limits' directory {os.path.realpath(directory)} has been locked for too long: a process that uses it is "
        "stopped (kill -STOP, a debugger) or very slow. Let it go on, or end it."
    )


def open_data(directory: Path) -> int:
    """A descriptor of a data file that LMDB can map safely: another one is renamed. Only for who has the lock."""
    while True:
        descriptor = open_file(directory, DATA, os.O_RDWR | os.O_CREAT)
        try:
            if not is_cut(places.through(descriptor, directory / DATA)):
                return descriptor
            move_aside(directory)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def move_aside(directory: Path) -> None:
    """Rename a damaged data file. Whoever opens the directory next starts afresh; those who have it open notice."""
    data = directory / DATA
    aside = data.with_name(f"{DATA}.damaged-{data.stat().st_mtime_ns}")
    data.rename(aside)
    warnings.warn(
        f"The limits' file was damaged. It was moved to {os.path.realpath(aside)}; counts start afresh.",
        RuntimeWarning,
        stacklevel=2,
    )


def inodes(directory: Path) -> tuple[int, int]:
    """What tells today's data file and lock file from those of before somebody deleted them; 0 for one that is gone."""
    return _inode(directory / DATA), _inode(directory / LOCK)


def is_cut(data: Path) -> bool:
    """Whether the file lacks a page that its newest meta page speaks of, or was never LMDB's.

    LMDB doesn't write pages that one transaction both took and freed, so by itself it makes healthy files that are
    shorter. The local store's are as long as its map from before their first transaction.

    Layout of liblmdb 0.9: each of the first two pages has a 16-byte header, then magic, version, address, map size,
    two 48-byte database records (the first begins with the page size), the last page's number and the transaction's.
    """
    size = data.stat().st_size
    if size == 0:
        return False
    with data.open("rb") as file:
        head = file.read(_META_BYTES)
        page_size = struct.unpack_from("<I", head, 40)[0] if len(head) == _META_BYTES else 0
        if page_size < 512 or page_size & (page_size - 1):  # noqa: PLR2004  smaller than any page
            return True
        file.seek(page_size)
        pages = [head, file.read(_META_BYTES)]
    newest = -1
    last_page = 0
    for page in pages:
        if len(page) < _META_BYTES or struct.unpack_from("<II", page, 16) != (0xBEEFC0DE, 1):
            return True
        last, transaction = struct.unpack_from("<QQ", page, 136)
        if transaction > newest:
            newest, last_page = transaction, last
    return size < (last_page + 1) * page_size


def _in_memory() -> Iterator[Path]:
    yield _IN_MEMORY
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):  # The XDG specification: a relative one is to be ignored.
        yield Path(runtime)


def _state() -> Path | None:
    state = os.environ.get("XDG_STATE_HOME", "")
    if state.startswith("/"):
        return Path(state)
    with suppress(RuntimeError):  # There is no such user, as in a container that was given a number.
        return Path.home() / ".local" / "state"
    return None


def _share(descriptor: int) -> None:
    """Share the kernel's lock on the directory. Whoever has it alone removes the directory, or only asked."""
    for _ in range(_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return
        Event().wait(_BETWEEN_TRIES)
    raise StoreError("storage_uri: somebody has had the limits' directory alone for a second. Try again.")


def _require_fit(path: Path, descriptor: int) -> None:
    kind = file_system(path).removeprefix("fuse.")
    if kind in NETWORK_FILE_SYSTEMS:
        raise ConfigurationError(
            f"storage_uri: {path} is on {kind}, where locks don't reach every host. {places.ANOTHER_STORE}"
        )
    free = os.statvfs(descriptor)
    if free.f_bavail * free.f_frsize < _LEAST_FREE_BYTES:
        raise StoreError(f"storage_uri: the file system of {path} is full. Make room, then try again.")


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0


def file_system(directory: Path) -> str:
    """The kind of file system, from the kernel's table of mounts; "" where there is no such table."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    real = directory.resolve()
    best, kind = -1, ""
    for mount in mounts:
        _, point, name, *_ = mount.split(" ")
        mount_point = Path(point.encode().decode("unicode_escape"))
        if real.is_relative_to(mount_point) and len(mount_point.parts) >= best:
            best, kind = len(mount_point.parts), name
    return kind
