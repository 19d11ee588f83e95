"""A file to which answers are appended as they come. One process at a time has it."""

import fcntl
import os
import threading
from pathlib import Path
from typing import IO, Final

from flask_ailimit.engine.clock import seconds_running

_SYNC_EVERY: Final = 1.0
"""Seconds of answers that a power cut may take. A process that is killed loses none that was written."""


class BusyError(Exception):
    """Another process has the file."""


class Journal:
    """The file, held until it is closed.

    Args:
        path: Where it is. If it isn't there, it is made for this user alone, and removed again if it stays empty.

    Raises:
        BusyError: Another process has it.
        OSError: It can't be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _opened(path)
        self.end = os.fstat(self._file.fileno()).st_size
        self._synced = seconds_running()
        self._writing = threading.Lock()

    def begin_at(self, end: int) -> None:
        """Cut off what is behind the last whole line, and write from there on."""
        self._file.truncate(end)
        self.end = end

    def write(self, line: bytes) -> None:
        """Append a line. Any thread may call it.

        Raises:
            OSError: It could not be written. What was written of it is cut off again, as far as that goes.
        """
        with self._writing:
            try:
                left = memoryview(line)
                while left:
                    left = left[self._file.write(left) :]
            except OSError:
                self._file.truncate(self.end)
                raise
            self.end += len(line)
            now = seconds_running()
            if now - self._synced >= _SYNC_EVERY:
                os.fsync(self._file)
                self._synced = now

    def close(self) -> None:
        """Have what was written on the disk, and let others have the file."""
        with self._writing:
            os.fsync(self._file)
            if not self.end:
                self.path.unlink(missing_ok=True)
            self._file.close()


def _opened(path: Path) -> IO[bytes]:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        file = os.fdopen(descriptor, "r+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise BusyError from None
        if path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor)):
            return file
        file.close()  # Another process has finished with it and removed it meanwhile.
