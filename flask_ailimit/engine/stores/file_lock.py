"""The kernel's lock on a file, for which nobody waits too long.

``flock`` waits without an end, also for a process that was stopped inside. So it is asked again and again, at first
after 50 microseconds and later each half millisecond: on a busy machine that is as quick and as fair as the kernel's
own queue, which lets whoever comes by go first, too.
"""

from collections.abc import Callable
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from io import FileIO

from flask_ailimit.engine.clock import seconds_running
from flask_ailimit.engine.native import pause

_FIRST_PAUSE = 50e-6
_LONGEST_PAUSE = 500e-6
_GROWTH = 1.5
_AT_ONCE = LOCK_EX | LOCK_NB


Patience = Callable[[], float]
"""Answers how many seconds to wait. Asked only if there is something to wait for."""


def lock_within(file: FileIO, patience: Patience) -> bool:
    """Take the lock on a file that nobody else may have with it; answer whether that was done in time."""
    try:
        flock(file, _AT_ONCE)
    except BlockingIOError:
        return _wait(file, patience())
    return True


def _wait(file: FileIO, seconds: float) -> bool:
    until, between, paused = seconds_running() + seconds, _FIRST_PAUSE, 0.0
    # Both: in a test the clock may stand still.
    while paused < seconds and seconds_running() < until:
        pause(between)
        paused += between
        between = min(between * _GROWTH, _LONGEST_PAUSE)
        with suppress(BlockingIOError):
            flock(file, _AT_ONCE)
            return True
    return False
