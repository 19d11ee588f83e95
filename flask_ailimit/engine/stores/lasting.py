"""Whether a directory is still there after a restart: money is counted only where it is."""

from pathlib import Path

from . import directory

_IN_MEMORY = ("tmpfs", "ramfs")
_OF_CONTAINERS = ("overlay", "aufs", "fuse.fuse-overlayfs")
_CLEANED = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108  nothing is made there

_ON_A_DISK = "a directory on a disk, such as storage_uri='local:///var/lib/myapp/limits'"
USE_A_DISK = f"Use {_ON_A_DISK}."
USE_ANOTHER_STORE = f"Use {_ON_A_DISK}, or a Redis that saves."


def why_it_ends(path: Path) -> str | None:
    """With what the files in a directory end, and what to do, in sentences; None if nothing is known that ends them.

    The file systems are those of the kernel's table of mounts. That ``/tmp`` is cleaned when the machine starts, and
    ``/var/tmp`` from time to time, is said by the Filesystem Hierarchy Standard 3.0 and by tmpfiles.d(5).
    """
    kind = directory.file_system(path)
    if kind in _IN_MEMORY:
        return f"Counts end with a restart of the machine: {path} is in memory ({kind}). {USE_A_DISK}"
    if kind in _OF_CONTAINERS:
        return (
            f"Counts end with the container: {path} is in its own layer ({kind}). Mount a volume there, or name a "
            "directory in one."
        )
    real = path.resolve()
    for cleaned in _CLEANED:
        if real.is_relative_to(cleaned):
            return f"Counts end when {cleaned} is cleaned: {path} is in it. {USE_A_DISK}"
    return None
