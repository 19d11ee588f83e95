"""What a server didn't answer is put right in the background, as soon as it answers again.

A decision that nobody heard of is undone, and a settlement that didn't arrive is brought. Both are safe to do twice
while the server remembers them by their marker.
"""

import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Event

from flask_ailimit.engine.background import Background
from flask_ailimit.engine.clock import seconds_running
from flask_ailimit.engine.errors import AwayError, StoreError, UnansweredError
from flask_ailimit.engine.forking import forget_in_children

_log = logging.getLogger("flask_ailimit")

_INTERVAL = 0.25
_REMEMBERED = 8.0  # Of the ten seconds that a marker lives.
_MOST = 10_000
_MOST_TRIES = 40


@dataclass
class Errand:
    """Something to be done.

    Attributes:
        do: Does it, or raises ``StoreError``.
        again: Whether it is right to do it at any time, however often.
        until: When the server begins to forget that it was done, if it may have been; else None.
        tries: How often it was sent in vain.
    """

    do: Callable[[], object]
    again: bool
    until: float | None = None
    tries: int = 0

    def may_have_run(self) -> None:
        """Note that it was sent and not answered."""
        if not self.again and self.until is None:
            self.until = seconds_running() + _REMEMBERED

    @property
    def is_lost(self) -> bool:
        """Whether there is no use in trying, or it may no longer be right."""
        return self.tries >= _MOST_TRIES or (self.until is not None and seconds_running() > self.until)


class Afterwards:
    """The errands of one store in this process. The oldest are dropped if there are too many."""

    def __init__(self) -> None:
        self.forget()
        forget_in_children(self)

    def add(self, do: Callable[[], object], error: BaseException, *, again: bool = False) -> None:
        """Do it as soon as the server answers; ``error`` is what came of it the first time.

        What is no error of a store was raised in the middle of it: then nobody knows what came of it.
        """
        errand = Errand(do, again)
        if isinstance(error, UnansweredError) or not isinstance(error, StoreError):
            errand.may_have_run()
        self._errands.append(errand)
        self._thread.ensure()

    def stop(self) -> None:
        """Do nothing more."""
        self._stopped.set()

    def forget(self) -> None:
        """Start anew in a child process: the errands are its parent's."""
        self._errands: deque[Errand] = deque(maxlen=_MOST)
        self._thread = Background(self._run, "afterwards")
        self._stopped = Event()

    def _run(self) -> None:
        while not self._stopped.wait(_INTERVAL):
            for _ in range(len(self._errands)):
                with suppress(IndexError):  # Another thread may do them, too.
                    self._try(self._errands.popleft())
            if not self._errands:
                self._thread.retire_unless(lambda: self._errands)
                return

    def _try(self, errand: Errand) -> None:
        if errand.is_lost:
            _log.warning("What a server didn't answer was not put right: it stays charged until time heals it.")
            return
        try:
            errand.do()
        except StoreError as error:
            if isinstance(error, UnansweredError):
                errand.may_have_run()
            if not isinstance(error, AwayError):
                errand.tries += 1
            self._errands.append(errand)
