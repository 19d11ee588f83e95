"""The circuit breaker: who asks a store that is away waits for nothing.

Closed, every call goes through. After three failures in a row it opens: calls fail at once, and only a probe in the
background asks, first after a quarter of a second, then each half. A probe that succeeds closes it.
"""

import logging
import random
from collections.abc import Callable
from threading import Event

from flask_ailimit.engine.background import Background
from flask_ailimit.engine.errors import AwayError
from flask_ailimit.engine.mutex import system_mutex

_log = logging.getLogger("flask_ailimit")

FAILURES_TO_OPEN = 3
_FIRST_WAIT = 0.25
_LONGEST_WAIT = 0.5
_JITTER = 0.2


class Breaker:
    """Watches over the calls to one server.

    Args:
        name: What is watched, for the log: no password.
        probe: Asks the server whether it can do the work, and raises if not. It may answer why
            nobody needs to ask the server any more.
        on_change: Called with False when the breaker opens and True when it closes, from any thread.
        failures_to_open: So many in a row open it; infinite for who always asks.
    """

    def __init__(
        self,
        name: str,
        probe: Callable[[], str | None],
        on_change: Callable[[bool], None],
        failures_to_open: float = FAILURES_TO_OPEN,
    ) -> None:
        self._name = name
        self._probe = probe
        self._on_change = on_change
        self._failures_to_open = failures_to_open
        self._failures = 0
        self._reason = ""
        self._mutex = system_mutex()
        self._probing = Background(self._wait_for_it, "probe")
        self._stopped = Event()
        self.is_open = False

    def require_closed(self) -> None:
        """Raise if the server is away."""
        if self.is_open and not self._stopped.is_set():
            if not self._probing.ensure():  # It may have been interrupted while it was started.
                self.is_open = False
                return
            raise AwayError(f"{self._name} is away: {self._reason}")

    def succeeded(self) -> None:
        """Note that a call was answered."""
        self._failures = 0

    def failed(self, reason: str) -> None:
        """Note that a call was not answered."""
        if not self._mutex.run(lambda: self._opens(reason)):
            return
        if not self._probing.ensure():
            self.is_open = False  # Nobody would find out that it is back: so everybody asks.
            return
        _log.error("%s is away, limits follow on_store_error: %s", self._name, reason)

    def stop(self) -> None:
        """Probe no more."""
        self._stopped.set()

    def _opens(self, reason: str) -> bool:
        """Count a failure; answer whether it opens the breaker."""
        self._failures += 1
        if self._failures < self._failures_to_open or self.is_open:
            return False
        self._reason = reason
        self.is_open = True
        return True

    def _wait_for_it(self) -> None:
        self._tell(False)
        wait = _FIRST_WAIT
        while not self._stopped.wait(wait * random.uniform(1 - _JITTER, 1 + _JITTER)):  # noqa: S311  no secret
            try:
                why = self._probe()
            except Exception as error:  # noqa: BLE001  whatever it is, the server isn't back
                self._reason = describe(error)
                wait = min(2 * wait, _LONGEST_WAIT)
            else:
                self._failures = 0
                self._probing.retire()
                self.is_open = False
                if why:
                    _log.warning("%s is asked no more: %s.", self._name, why)
                else:
                    _log.warning("%s is back.", self._name)
                self._tell(True)
                return

    def _tell(self, available: bool) -> None:
        try:
            self._on_change(available)
        except Exception:  # noqa: BLE001  a listener's trouble is not to keep it open
            _log.exception("A listener to the store's changes raised.")


def describe(error: BaseException) -> str:
    """An error in one line, for a log."""
    return f"{type(error).__name__}: {str(error)[:200]}"
