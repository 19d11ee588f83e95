"""The directory of the local store: where it is, whether it is fit, and its lock.

LMDB maps its file into memory, so what would be an error elsewhere can be a signal that kills the worker (a truncated
file, a full tmpfs). Everything that can be known beforehand is looked at here, before the map.
"""

import fcntl
import os
import secrets
import stat
import struct
import warnings
from pathlib import Path

from flask_ailimit.engine.errors import ConfigurationError, StoreError

DATA = "data.mdb"
LOCK = "lock"
SECRET_BYTES = 32
_LEAST_FREE_BYTES = 1 << 20
_META_BYTES = 40 + 96 + 16
_NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "sshfs"}
_ANOTHER_STORE = "Use a local directory such as 'local:///var/lib/myapp/limits', or Redis for several machines."


def default_directory(name: str) -> Path:
    """The directory for an app called ``name``: in memory where there is such a place, else in the user's state.

    Never the temporary directory: its cleaners delete files that are in use.
    """
    for base in (Path("/dev/shm"), Path(os.environ.get("XDG_RUNTIME_DIR") or "/nowhere")):  # noqa: S108  0700 below
        if base.is_dir() and os.access(base, os.W_OK):
            return base / f"flask_ailimit-{os.geteuid()}" / name
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "flask_ailimit" / name


def prepare(directory: Path) -> None:
    """Make the directory, for this user only, and refuse one that is not safe to map.

    Raises:
        ConfigurationError: It is a link, a file, another user's, or on a network file system.
        StoreError: It can't be made, or its file system is full.
    """
    try:
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        status = directory.lstat()
    except FileExistsError as error:
        raise ConfigurationError(f"storage_uri: {error.filename} is not a directory. {_ANOTHER_STORE}") from error
    except OSError as error:
        raise StoreError(f"storage_uri: can't make {directory}: {error.strerror}.", transient=False) from error
    _require_own(directory, status)
    if directory.parent.name.startswith("flask_ailimit-"):
        _require_own(directory.parent, directory.parent.lstat())  # Anybody could have made it before us.
    kind = _file_system(directory).removeprefix("fuse.")
    if kind in _NETWORK_FILE_SYSTEMS:
        raise ConfigurationError(
            f"storage_uri: {directory} is on {kind}, where locks don't reach every host. {_ANOTHER_STORE}"
        )
    free = os.statvfs(directory)
    if free.f_bavail * free.f_frsize < _LEAST_FREE_BYTES:
        raise StoreError(f"storage_uri: the file system of {directory} is full. Make room, then try again.")


def lock(directory: Path) -> int:
    """Wait until nobody else has the directory's lock; answer the descriptor that has it now."""
    path = directory / LOCK
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_ino == _inode(path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # Somebody deleted it while we waited. Others have another one by now.


def move_aside_if_cut(directory: Path) -> None:
    """Rename a data file that LMDB could not map safely. Only for who has the lock."""
    data = directory / DATA
    if data.exists() and is_cut(data):
        move_aside(directory)


def move_aside(directory: Path) -> None:
    """Rename a damaged data file. Whoever opens the directory next starts afresh; those who have it open notice."""
    data = directory / DATA
    aside = data.with_name(f"{DATA}.damaged-{data.stat().st_mtime_ns}")
    data.rename(aside)
    warnings.warn(
        f"The limits' file was damaged. It was moved to {aside}; counts start afresh.", RuntimeWarning, stacklevel=2
    )


def inodes(directory: Path) -> tuple[int, int]:
    """What tells today's data file and lock file from those of before somebody deleted them; 0 for one that is gone."""
    return _inode(directory / DATA), _inode(directory / LOCK)


def shared_secret(directory: Path, known: bytes | None = None) -> bytes:
    """32 random bytes that everyone who opens the directory shares, made by the first.

    ``known`` is written in their place if the directory has none: whoever deleted it, those who still run agree.
    """
    path = directory / "secret"
    if not path.exists():
        draft = directory / f"secret.{secrets.token_hex(8)}"
        draft.touch(mode=0o600)
        draft.write_bytes(known or secrets.token_bytes(SECRET_BYTES))
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # Another process was first; its secret is the one.
        finally:
            draft.unlink()
    secret = path.read_bytes()
    if len(secret) != SECRET_BYTES:
        raise StoreError(
            f"{path} is not {SECRET_BYTES} bytes long. Delete it; every count starts afresh.", transient=False
        )
    return secret


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


def _require_own(directory: Path, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise ConfigurationError(f"storage_uri: {directory} is a link. Name the directory itself.")
    if status.st_uid != os.geteuid():
        raise ConfigurationError(
            f"storage_uri: {directory} belongs to uid {status.st_uid}, not to uid {os.geteuid()} of this process. "
            "Name a directory of its own."
        )
    if status.st_mode & 0o022:
        warnings.warn(
            f"storage_uri: others can write to {directory}. Run: chmod 700 {directory}", RuntimeWarning, stacklevel=3
        )


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0


def _file_system(directory: Path) -> str:
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
