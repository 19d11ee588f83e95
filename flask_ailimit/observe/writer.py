"""Hears :data:`flask_ailimit.usage_settled`, and writes what it hears into the file of settlements.

A request only puts its settlement into a queue. A thread takes what has come within a moment and writes it in one
transaction, so that no answer waits for the disk or for another worker: four workers that wrote for each request by
themselves would wait for each other up to a tenth of a second. The price: a process that is killed (``kill -9``) takes
along what it settled within the last moment, at most ``MOST_WAITING`` settlements while the file can't be written.
"""

import atexit
import logging
import sqlite3
from collections import deque
from pathlib import Path
from weakref import WeakSet

from flask import Flask

from flask_ailimit.config import Settings
from flask_ailimit.engine import AILimitError, native
from flask_ailimit.engine.background import Background, started_apart
from flask_ailimit.engine.clock import Clock, seconds_running
from flask_ailimit.engine.forking import forget_in_children
from flask_ailimit.engine.mutex import BusyError, system_mutex
from flask_ailimit.engine.shared_file import is_busy
from flask_ailimit.signals import usage_settled

from .settlement import Settlement, settlement_of
from .settlements import Settlements

_log = logging.getLogger("flask_ailimit")

MOST_WAITING = 10_000
"""Settlements that wait in memory while the file can't be written. More are lost, and counted in the log."""

MOMENT_S = 0.02
_BATCH = 500
_IDLE_S = 5.0
_RETRY_S = 0.05
_LONG_RETRY_S = 1.0
_LONGEST_BUSY_S = 5.0
_PATIENCE_S = 1.0


class Writer:
    """Writes the settlements of one app.

    Args:
        settlements: The file.
        clock: Returns integer microseconds since the epoch, for the time of each settlement.

    Attributes:
        settlements: The file.
    """

    def __init__(self, settlements: Settlements, clock: Clock) -> None:
        self.settlements = settlements
        self._clock = clock
        self.forget()
        forget_in_children(self)
        _writers.add(self)

    def forget(self) -> None:
        """Start anew in a child process: what waits here is its parent's to write."""
        self._waiting: deque[Settlement] = deque()
        self._batch: list[Settlement] = []
        self._lost = 0
        self._failing = False
        self._busy_since: float | None = None
        self._mutex = system_mutex()
        self._news = native.Pulse()
        self._thread = Background(self._run, "settlements", started_apart)

    def heard(self, _: Flask, **facts: object) -> None:
        """Put a settlement into the queue. A receiver of :data:`flask_ailimit.usage_settled`."""
        settlement = settlement_of(self._clock(), facts)
        if settlement is None:
            return
        if len(self._waiting) >= MOST_WAITING:
            self._lost += 1
            _log.error("A settlement is lost: %d wait already to be written.", MOST_WAITING)
            return
        self._waiting.append(settlement)
        if self._thread.ensure():
            self._news.give()

    def flush(self) -> bool:
        """Write what waits now. Answers whether all of it was written; if not, it goes on to wait."""
        try:
            written = self._mutex.run(self._write, seconds=_PATIENCE_S)
        except BusyError:
            return False
        except (sqlite3.Error, OSError, AILimitError) as error:
            self._say_failed(error)
            return False
        if self._failing:
            _log.warning("Settlements are written again. %d were lost.", self._lost)
            self._failing, self._lost = False, 0
        self._busy_since = None
        return written

    def close(self) -> None:
        """Write what waits, and close the file. What can't be written within a few seconds is lost, and counted."""
        until = seconds_running() + _LONGEST_BUSY_S
        while not self.flush():
            if seconds_running() > until:
                lost = len(self._batch) + len(self._waiting)
                _log.error("%d settlements are lost: they can't be written, and the app ends.", lost)
                self._batch = []
                self._waiting.clear()
                break
            native.pause(_RETRY_S)
        self.settlements.close()

    def _run(self) -> None:
        while self._news.wait(_IDLE_S):
            native.pause(MOMENT_S)
            while not self.flush():
                native.pause(_LONG_RETRY_S if self._failing else _RETRY_S)
        self._thread.retire_unless(lambda: self._waiting)

    def _write(self) -> bool:
        while self._batch or self._waiting:
            while self._waiting and len(self._batch) < _BATCH:
                self._batch.append(self._waiting.popleft())
            self.settlements.add(self._batch)
            self._batch = []  # If this is interrupted, they are added again, which changes nothing.
        return True

    def _say_failed(self, error: Exception) -> None:
        now = seconds_running()
        self._busy_since = self._busy_since or now
        # Workers that write at the same moment are no failure.
        if isinstance(error, sqlite3.Error) and is_busy(error) and now - self._busy_since < _LONGEST_BUSY_S:
            return
        if not self._failing:
            self._failing = True
            _log.error(
                "Settlements can't be written to %s: %s. They wait in memory, %d at most, and are written as soon as "
                "that is possible.",
                *(self.settlements.path, error, MOST_WAITING),
            )


def write_settlements(app: Flask, settings: Settings, clock: Clock) -> Writer | None:
    """Begin to write the settlements of an app. None if its settings name no file.

    The receiver lives as long as the writer that is returned.

    Raises:
        ConfigurationError: The file can't be used.
    """
    if settings.settlements is None:
        return None
    path = Path(app.root_path, settings.settlements)
    writer = Writer(Settlements(path, settings.settlements_days, clock), clock)
    usage_settled.connect(writer.heard, app)
    return writer


_writers: WeakSet[Writer] = WeakSet()


@atexit.register
def _write_at_the_end() -> None:
    for each in [*_writers]:
        each.close()
