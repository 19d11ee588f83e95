"""Raises in a thread what a time-out of the app raises: between any two steps of Python."""

import ctypes
import sys
import threading

from flask_ailimit.engine.mutex import Mutex


class Interruption(BaseException):
    """As gevent's Timeout is, and what a handler of SIGALRM may raise."""


_set_async_exc = ctypes.pythonapi.PyThreadState_SetAsyncExc
_set_async_exc.argtypes = (ctypes.c_ulong, ctypes.py_object)


def interrupt(thread):
    """Have it raised in a thread, at its next step of Python.

    Not once it has ended, when its number may be another's, and not while it starts one: CPython 3.11 gives that one
    the starter's number at first, and then it is the new one that is struck, before it says that it has begun.
    """
    if thread.is_alive() and threading.Thread.start.__code__ not in codes_of(thread):
        _set_async_exc(thread.ident, Interruption)


def interrupt_at_the_door(thread):
    """Have it raised in a thread once that comes to a lock, which somebody has: it waits, or will at once."""
    assert comes_true(lambda: Mutex.run.__code__ in codes_of(thread))
    interrupt(thread)


def codes_of(thread):
    """The functions that a thread is in."""
    frame = sys._current_frames().get(thread.ident)
    codes = set()
    while frame is not None:
        codes.add(frame.f_code)
        frame = frame.f_back
    return codes


def comes_true(condition):
    """Whether it does so within a minute, which only a test that fails takes."""
    return any(condition() or threading.Event().wait(0.01) for _ in range(6000))


class Worker(threading.Thread):
    """A thread that does something.

    Attributes:
        raised: What it raised; None as long as it has raised nothing.
    """

    def __init__(self, work):
        super().__init__(daemon=True)
        self.raised = None
        self._work = work
        self.start()

    def run(self):
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001  it is what the test asks about
            self.raised = error

    def has_ended(self):
        """Wait until it has, for a minute; answer whether it did."""
        self.join(60)
        return not self.is_alive()
