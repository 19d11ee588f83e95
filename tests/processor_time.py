"""How long something takes, in seconds of a quiet machine: its processor time beside that of a loop of known cost.

On a busy machine the same work takes up to three times as much processor time, and so does the loop.
"""

import time

LOOP_SECONDS = 0.058
"""What the loop takes on the machine for which the times in tests and documents are meant."""


def seconds_of(work, attempts=3):
    """The least of some attempts."""
    return min(_seconds(work) for _ in range(attempts))


def _seconds(work):
    before = _loop()
    took = _processor_time(work)
    return took * LOOP_SECONDS / max(before, _loop(), LOOP_SECONDS)


def _loop():
    def loop():
        total = 0
        for i in range(1_000_000):
            total += i

    return _processor_time(loop)


def _processor_time(work):
    began = time.thread_time()
    work()
    return time.thread_time() - began
