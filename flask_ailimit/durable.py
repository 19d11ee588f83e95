"""Money is limited only over a store that keeps its counts: one that loses them would grant every budget anew."""

import logging
from collections.abc import Callable
from threading import Event

from .engine import ConfigurationError, Store, StoreError
from .engine.background import Background
from .engine.stores.base import Lasting

_log = logging.getLogger("flask_ailimit")

_ASKED_AGAIN_AFTER = 5.0
"""Seconds, if the store was away."""

_ACCEPT = "To accept that, set AILIMIT_ACCEPT_MONEY_LOSS = True."


class Durability:
    """Whether money lasts in an app's store. The store is asked once, when it is known that there is money.

    Args:
        store: The app's store.
        is_accepted: Returns whether the app accepts that money is lost.
        passed_by: Options of Flask-Limiter by which requests pass while the store is away, whatever a limit says.
    """

    def __init__(self, store: Store, is_accepted: Callable[[], bool], passed_by: list[str]) -> None:
        self._store = store
        self._is_accepted = is_accepted
        self._passed_by = passed_by
        self._is_known = False
        self._ended = Event()
        self._asking = Background(self._ask_again, "durability of money")

    def require(self) -> None:
        """Check that money lasts. A store that is away is asked later, and the log then says what is wrong.

        Raises:
            ConfigurationError: It doesn't, and the app doesn't accept that.
        """
        if self._is_known or self._is_accepted():
            return
        if self._passed_by:
            raise ConfigurationError(
                f"{self._passed_by[0]}: money is limited, and would be spent uncounted while the store is away. Leave "
                f"this option out. {_ACCEPT}"
            )
        try:
            wrong = self._wrong()
        except StoreError as error:
            # Until it is back, limits on money refuse.
            _log.warning("Whether money lasts is looked at later: %s", error)
            self._asking.ensure()
            return
        if wrong:
            raise ConfigurationError(wrong)

    def close(self) -> None:
        """Ask no more."""
        self._ended.set()

    def _wrong(self) -> str | None:
        loss = "This store doesn't say whether its counts last (may_lose_counts)."
        if isinstance(self._store, Lasting):
            loss = self._store.may_lose_counts() or ""
        self._is_known = not loss
        return (
            f"storage_uri: money is limited, and every budget would be granted anew. {loss} {_ACCEPT}" if loss else None
        )

    def _ask_again(self) -> None:
        while not self._ended.wait(_ASKED_AGAIN_AFTER):
            try:
                wrong = self._wrong()
            except StoreError:
                continue
            if wrong and not self._ended.is_set():
                _log.error("Money is not safe. %s", wrong)
            return
