"""One thread at a time, whatever is raised in the middle of it.

A time-out may be raised between any two steps of Python: by a handler of signals, by ``PyThreadState_SetAsyncExc``, by
gevent wherever it switches. Between ``lock.acquire()`` and the block that would give the lock back it leaves the lock
held for ever; ``with`` is no better where ``__enter__`` is written in Python, as those of ``threading.Condition`` and
``Event`` are, or is called like any function, as from Python 3.14 on.

So here a lock is taken inside of the block that gives it back. The lock is a reentrant one, which knows who has it:
giving it back is right whether or not it was taken, and it is the block's very first step, a single call into C.
"""

import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from .native import new_rlock

_Answer = TypeVar("_Answer")


class BusyError(Exception):
    """Somebody else is inside for too long, or this very thread is: the garbage collector or a signal came between."""


class ReentrantLock(Protocol):
    """A lock that knows who has it."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it; answer whether that was done in time."""

    def release(self) -> None:
        """Give it back; raise ``RuntimeError`` if this thread doesn't have it."""

    def _is_owned(self) -> bool:
        """Whether this thread has it. ``threading.Condition`` asks the same."""


class Mutex:
    """Lets one thread at a time do something.

    Attributes:
        lock: The lock. For those that must hold it beyond one call.
    """

    __slots__ = ("lock",)

    def __init__(self, lock: ReentrantLock) -> None:
        self.lock = lock

    def run(self, work: Callable[..., _Answer], *arguments: Any, seconds: float = -1) -> _Answer:
        """Do the work while nobody else does, and answer what it does. Nothing stays locked, whatever is raised.

        Args:
            work: What is to be done.
            *arguments: Of the work.
            seconds: How long to wait for who is inside; -1: for ever.

        Raises:
            BusyError: Somebody was inside for all that time, or this thread is inside already.
        """
        lock = self.lock
        if lock._is_owned():  # noqa: SLF001  as threading.Condition does
            raise BusyError("it was interrupted by another call of the same thread")
        try:
            if not lock.acquire(True, seconds):
                raise BusyError(f"another thread was inside for {seconds:.2f} s")
            return work(*arguments)
        finally:
            # No step of Python may come before this call. A block of suppress() would be several.
            try:  # noqa: SIM105
                lock.release()
            except RuntimeError:
                pass  # It had not been taken.


def mutex() -> Mutex:
    """For threads of Python: under gevent those are greenlets, and who waits lets others run."""
    # Asked for by its module: gevent may have put its own there after this file was imported, as under --preload.
    return Mutex(threading.RLock())  # type: ignore[arg-type]  # typeshed leaves _is_owned out


def system_mutex() -> Mutex:
    """For threads of the system, also beside greenlets: nothing that may switch to another one is done inside."""
    return Mutex(new_rlock())
