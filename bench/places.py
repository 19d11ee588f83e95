"""Where the stores of the bench are: a server of its own, and a directory in memory."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MEMORY = Path("/dev/shm")


@contextmanager
def redis_server() -> Iterator[Any]:
    """A server of this run alone, started as the tests start theirs; nothing of it stays.

    Raises:
        RuntimeError: ``BENCH_SERVER`` names one that is not installed.
    """
    sys.path.append(str(ROOT / "tests" / "redis"))
    from redis_servers import binary_of, start_server  # noqa: PLC0415  the path is known only here

    name = os.environ.get("BENCH_SERVER", "valkey")
    binary = binary_of(name)
    if binary is None:
        raise RuntimeError(
            f"BENCH_SERVER: {name} is not installed. Leave it out for Valkey, which make bench installs."
        )
    with closing(start_server(binary)) as server:
        yield server


@contextmanager
def directory() -> Iterator[Path]:
    """An empty directory, in memory where there is such a place: there the local store is by default."""
    with tempfile.TemporaryDirectory(prefix="ailimit-bench-", dir=MEMORY if MEMORY.is_dir() else None) as made:
        yield Path(made)
