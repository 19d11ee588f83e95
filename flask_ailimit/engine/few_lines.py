"""Bounds the log: what each request of a client can bring about is not written for each.

A full store, a callable that fails and a client that comes back at once write the same line again and again. A filter
on the library's loggers lets ten lines a minute pass from each place in the code, and then says how many it left out.
"""

import logging
from collections.abc import Callable

from .clock import seconds_running

MOST = 10
PERIOD = 60.0


class FewLines(logging.Filter):
    """Lets ``MOST`` records in ``PERIOD`` seconds pass from each place in the code.

    Args:
        clock: Answers seconds that never jump.
    """

    def __init__(self, clock: Callable[[], float] = seconds_running) -> None:
        super().__init__()
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        """Start anew."""
        self._places: dict[tuple[str, int], tuple[float, int]] = {}  # Since when, and how many records.

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be written. Threads that come at once may let one more pass."""
        now, place = self._clock(), (record.pathname, record.lineno)
        since, count = self._places.get(place, (now, 0))
        if now - since >= PERIOD:
            if count > MOST:
                left_out = f" ({count - MOST} such lines were left out before.)"
                record.msg, record.args = record.getMessage() + left_out, ()
            since, count = now, 0
        self._places[place] = since, count + 1
        return count < MOST


few_lines = FewLines()
"""The one of this process, for all of the library's loggers."""
