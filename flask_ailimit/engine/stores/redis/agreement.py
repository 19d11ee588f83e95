"""That all machines which share a store hash identities with one secret, found out by what it leaves behind.

The first machine leaves a fingerprint, by which nobody finds the secret. Who has another one is refused at the start;
who couldn't ask then says so in the log, as soon as it can: what runs is not to be stopped.
"""

import logging

from flask_ailimit.engine.clock import seconds_running
from flask_ailimit.engine.errors import ConfigurationError, StoreError

from .links import Link
from .scripts import load

_log = logging.getLogger("flask_ailimit")

_KEPT_MS = 30 * 86_400 * 1000
_EACH = 3600.0


class Agreement:
    """The agreement of the machines that share a store.

    Args:
        link: The way to the store.
        key: Where the fingerprint is kept.

    Attributes:
        waits: Whether the server is known to be away, so that nobody is to wait for it now.
    """

    def __init__(self, link: Link, key: bytes) -> None:
        self.waits = False
        self._link = link
        self._key = key
        self._fingerprint = b""
        self._advice = ""
        self._due = 0.0

    def require(self, fingerprint: bytes, advice: str) -> None:
        """Be one of those that have this fingerprint.

        Args:
            fingerprint: 32 hexadecimal digits.
            advice: What to do where the others have another one.

        Raises:
            ConfigurationError: They have.
        """
        self._fingerprint, self._advice = fingerprint, advice
        if self.waits:
            return
        try:
            wrong = self._wrong()
        except StoreError as error:
            _log.warning("Whether all machines have one secret is looked at later: %s", error)
            return
        if wrong:
            raise ConfigurationError(wrong)

    def look_again(self) -> None:
        """Say in the log if there is another fingerprint by now. It is asked for when the app starts, and each hour.

        Raises:
            StoreError: The server can't be asked.
        """
        if self._fingerprint and seconds_running() >= self._due:
            wrong = self._wrong()
            if wrong:
                _log.error("Not all machines have one secret. %s", wrong)

    def _wrong(self) -> str:
        kept: bytes = self._link.run(load("agree"), [self._key], self._fingerprint, b"%d" % _KEPT_MS)
        self._due = seconds_running() + _EACH
        if kept == self._fingerprint:
            return ""
        return (
            f"secret: this app hashes identities otherwise than those that already use {self._link.name} under this "
            f"prefix, and would count apart from them. {self._advice} If it was changed on purpose, run once: "
            f'redis-cli DEL "{self._key.decode()}" (for a cluster with -c), and restart all machines; every count then '
            "starts afresh."
        )
