"""The only place that asks the machine for the time.

The engine counts integer microseconds since 1970. Wall time, not monotonic time: fixed windows are aligned to
the clock, and a store outlives the process and the boot that wrote it. Algorithms survive a clock that jumps.
"""

import time
from collections.abc import Callable

Clock = Callable[[], int]
"""Answers integer microseconds since the epoch."""

MICROSECONDS = 1_000_000


def system_clock() -> int:
    """Microseconds since the epoch, by this machine's wall clock."""
    now = time.time_ns()
    # A float comes from libraries for tests that replace this function. A look at the type costs less than int().
    return now // 1000 if type(now) is int else int(now) // 1000


def seconds_running() -> float:
    """Seconds of a clock that never jumps, for what must not wait too long. It means nothing to another process."""
    return time.monotonic()


def rest(seconds: float) -> None:
    """Do nothing for so many seconds. Under gevent others run meanwhile."""
    time.sleep(seconds)
