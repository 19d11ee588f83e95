"""Threads and locks of the operating system, also where gevent has put greenlets in their place.

A greenlet that computes lets no other one run, but a thread of the system runs beside it. What both use is guarded by a
lock of the system: so nothing that may switch to another greenlet is done while one is held.
"""

import _thread
import logging
import sys
from _thread import LockType
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_log = logging.getLogger("flask_ailimit")

_MOMENT = 0.0001


def has_greenlets() -> bool:
    """Whether a new ``threading.Thread`` would be a greenlet."""
    monkey = sys.modules.get("gevent.monkey")
    return bool(monkey and monkey.is_module_patched("threading"))


def new_lock() -> LockType:
    """A lock that a thread of the system can share with greenlets."""
    lock: LockType = _original("allocate_lock")()
    return lock


def new_rlock() -> Any:
    """A reentrant lock of the same kind."""
    return _original("RLock")()


def pause(seconds: float) -> None:
    """Let no other greenlet run for so long, but the threads of the system."""
    Pulse().wait(seconds)


def started(work: Callable[[], None], name: str) -> bool:
    """Do the work in a thread of the system; False where none can start: a request is not to fail for that."""
    try:
        _original("start_new_thread")(work, ())
    except RuntimeError as error:
        _log.error("No thread for %s: %s", name, error)
        return False
    return True


def give_way() -> None:
    """Rest for a moment, so that whoever waits for a lock that was just let go gets it: none of them is fair."""
    lock = new_lock()
    lock.acquire()
    lock.acquire(timeout=_MOMENT)


class Pulse:
    """Wakes one thread, which waits for it or will. Giving it is one step: nothing that is raised leaves it half done.

    Args:
        lock: What to wait with, where not threads of the system wait but those of Python.
    """

    def __init__(self, lock: LockType | None = None) -> None:
        self._lock = lock or new_lock()
        self._lock.acquire()

    def give(self) -> None:
        """Wake whoever waits, or comes to wait next."""
        with suppress(RuntimeError):  # It was given before, and nobody has come yet.
            self._lock.release()

    def wait(self, seconds: float = -1) -> bool:
        """Wait so long for it, -1 for ever; answer whether it came."""
        return self._lock.acquire(timeout=seconds)


def _original(name: str) -> Any:
    """A function of ``_thread`` as it was before gevent came."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey.get_original("_thread", name) if monkey else getattr(_thread, name)
