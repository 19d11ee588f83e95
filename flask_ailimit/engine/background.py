"""Threads that work in the background, where the system has one to give."""

import logging
from collections.abc import Callable
from contextvars import Context
from functools import partial
from threading import Thread
from weakref import ref

from . import native

_log = logging.getLogger("flask_ailimit")

Start = Callable[[Callable[[], None], str], bool]
"""Starts a thread of this name, and answers whether there was one: a request is not to fail for that."""


def started(work: Callable[[], None], name: str) -> bool:
    """Do the work in a daemon thread of Python.

    It begins without context variables. Tracing tools, and Python with ``-X thread_inherit_context``, would give it
    those of the request that starts it. It would then keep that request in memory, and the slots that it holds.
    """
    thread = Thread(target=work, name=f"flask_ailimit {name}", daemon=True)
    try:
        Context().run(thread.start)
    except RuntimeError as error:
        _log.error("No thread for %s: %s", name, error)
        return False
    return True


def started_apart(work: Callable[[], None], name: str) -> bool:
    """The same, but beside greenlets in a thread of the system: they would all wait for it."""
    return native.started(work, name) if native.has_greenlets() else started(work, name)


class _Life:
    """Lives as long as its thread.

    Attributes:
        begun: The thread runs. Until then whoever starts it has it too, and an exception may keep that alive.
    """

    __slots__ = ("__weakref__", "begun")

    def __init__(self) -> None:
        self.begun = False


class Background:
    """Work that a thread of its own does, started by whoever finds it missing.

    Whether it is there is no flag, which an exception could leave wrong, but an object that lives as long as it: a
    thread that couldn't be started, was interrupted while it was, or has ended however it may, is started anew. Of
    those that come at once each may start one; the last does the work. It must be right when two threads do it.

    Args:
        work: What the thread does.
        name: The thread's, for the log.
        start: Starts it.
    """

    def __init__(self, work: Callable[[], None], name: str, start: Start = started) -> None:
        self._work = work
        self._name = name
        self._start = start
        self._life: Callable[[], _Life | None] = _nobody

    def ensure(self) -> bool:
        """Start the thread if it isn't there. Answers whether it is."""
        if self.is_alive():
            return True
        life = _Life()
        self._life = ref(life)
        return self._start(partial(self._live, life), self._name)

    def retire(self) -> None:
        """For the thread, which ends then: whoever brings work from now on needs another one."""
        self._life = _nobody

    def retire_unless(self, is_needed: Callable[[], object]) -> None:
        """For the thread, which ends then: another one goes on if somebody has just brought work and took this one."""
        self.retire()
        if is_needed():
            self.ensure()

    def is_alive(self) -> bool:
        """Whether there is a thread."""
        life = self._life()
        return life is not None and life.begun

    def _live(self, life: _Life) -> None:
        if self._life() is not life:
            return  # Another one was started meanwhile.
        life.begun = True
        try:
            self._work()
        finally:
            life.begun = False  # Whatever keeps it alive.


def _nobody() -> None:
    """The life of no thread."""
