"""How many machines share a Redis, so that each knows its share of the limits when Redis is away.

Every process says in the background, each 5 seconds, that its machine is there; a machine that said nothing for a
minute is gone. While Redis is away the last answer stands.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from threading import Event

from flask_ailimit.engine.background import Background
from flask_ailimit.engine.errors import AILimitError
from flask_ailimit.engine.forking import forget_in_children
from flask_ailimit.engine.stores.share import Share

from .links import Link
from .scripts import load

_log = logging.getLogger("flask_ailimit")

_INTERVAL = 5.0
_GONE_AFTER = 60


class Machines:
    """The machines that share a store.

    Args:
        link: The way to the store.
        key: The key of their names.
        own: The name of this machine: whatever its processes have in common.
        expected: How many to reckon with as long as Redis was never asked.
        answer: The file in which the processes of this machine keep the last answer, so that all count with the same
            share, also one that is started while Redis is away.
        also: What else is asked from time to time; it raises ``StoreError`` if Redis can't be.
    """

    def __init__(
        self,
        link: Link,
        key: bytes,
        own: bytes,
        expected: int,
        answer: Path,
        also: Callable[[], None] = lambda: None,
    ) -> None:
        self._link = link
        self._key = key
        self._own = own
        self._share = Share(0, expected)
        self._answer = answer
        self._also = also
        self.forget()
        forget_in_children(self)

    def share(self) -> Share:
        """This machine's, by the last answer."""
        try:
            rank, of = map(int, self._answer.read_text(encoding="ascii").split())
        except (OSError, ValueError):
            return self._share
        return Share(rank, of) if 0 <= rank < of else self._share

    def stay(self) -> None:
        """Be one of them from now on."""
        self._thread.ensure()

    def enroll(self) -> None:
        """Say that this machine is there, and learn of the others.

        Raises:
            StoreError: Redis can't be asked.
        """
        self._enroll(self._link.run)

    def try_out(self) -> None:
        """As :meth:`enroll`, but raise what redis-py raises."""
        self._enroll(self._link.try_out)

    def leave(self) -> None:
        """Say nothing more."""
        self._stopped.set()

    def forget(self) -> None:
        """Start anew in a child process, which has not its parent's threads."""
        self._thread = Background(self._run, "machines")
        self._stopped = Event()

    def _enroll(self, run: Callable[..., list[bytes]]) -> None:
        names = sorted(run(load("enroll"), [self._key], self._own, b"%d" % _GONE_AFTER))
        self._share = Share(names.index(self._own), len(names))
        draft = self._answer.with_name(f"{self._answer.name}.{token_hex(8)}")
        with suppress(OSError):  # The directory is gone or full: then each process has its own answer.
            draft.write_text(f"{self._share.rank} {self._share.of}", encoding="ascii")
            draft.replace(self._answer)

    def _run(self) -> None:
        while not self._stopped.wait(_INTERVAL):
            try:
                self.enroll()
                self._also()
            except AILimitError as error:
                _log.warning("The number of machines is not known anew, %d stands: %s", self.share().of, error)
