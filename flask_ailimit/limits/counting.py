"""How the current app counts what a limit doesn't say itself."""

from collections.abc import Callable
from typing import NamedTuple

from flask_ailimit.engine import Calendar
from flask_ailimit.engine.quota import UTC


class Counting(NamedTuple):
    """How an app counts.

    Attributes:
        algorithm: That of limits on requests: Flask-Limiter's ``strategy``.
        calendar: That of windows of a calendar.
    """

    algorithm: str
    calendar: Calendar = UTC


CountingNow = Callable[[], Counting]
"""Returns how the current app counts."""
