"""Bounds the log: what each request of a client can bring about is not written for each.

A full store, a callable that fails and a client that comes back at once write the same line again and again. A filter
on the library's loggers lets ten lines a minute pass from each place in the code, and then says how many it left out.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from .clock import seconds_running

MOST = 10
PERIOD = 60.0
_ABOUT = "ailimit_about"


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
        self._places: dict[tuple[str, int], _Period] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be written. Threads that come at once may let one more pass."""
        now, place = self._clock(), (record.pathname, record.lineno)
        period, left_out = self._places.get(place), 0
        if period is None or now - period.since >= PERIOD:
            left_out = 0 if period is None else period.left_out
            period = self._places[place] = _Period(now)
        about = getattr(record, _ABOUT, None)
        if period.passed >= MOST or about in period.told:
            period.left_out += 1
            return False
        period.passed += 1
        if about is not None:
            period.told.add(about)
        if left_out:
            record.msg, record.args = f"{record.getMessage()} ({left_out} such lines were left out before.)", ()
        return True


@dataclass
class _Period:
    """What came from one place since a moment."""

    since: float
    passed: int = 0
    left_out: int = 0
    told: set[str] = field(default_factory=set)


def once_a_minute(about: str) -> dict[str, str]:
    """The ``extra`` of a line that is to pass once in ``PERIOD`` for each text of what it is about."""
    return {_ABOUT: about}


few_lines = FewLines()
"""The one of this process, for all of the library's loggers."""
