"""How the calls of this thread or task are to be made: how long they may wait, and whether they are a batch's."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Event
from typing import NamedTuple

from flask_ailimit.engine.clock import seconds_running
from flask_ailimit.tokens import Usage

_log = logging.getLogger("flask_ailimit")

Tally = Callable[[str, str, Usage], None]
"""Is told of each call that was settled: the upstream's name, the model, and what the call used."""


class Calling(NamedTuple):
    """How calls are to be made.

    Attributes:
        wait: The most seconds that a call may wait, over all its attempts; None for the upstream's ``max_wait``.
        until: Until when an attempt may begin, in seconds of :func:`flask_ailimit.engine.clock.seconds_running`; None
            for no such time.
        is_batch: Whether the call waits while it would delay one that is not a batch's.
        tally: Told of each call that was settled.
        stop: Set when calls are to wait no longer; those that a provider answers now go on. None if that never comes.
        tenant: For whom they are made. The cache gives no tenant what another one has asked. None if nobody says it.
    """

    wait: float | None = None
    until: float | None = None
    is_batch: bool = False
    tally: Tally | None = None
    stop: Event | None = None
    tenant: str | None = None

    def told(self, upstream: str, model: str, usage: Usage) -> None:
        """Tell the tally of a call, if there is one. If it raises, that is logged, and nothing changes for the call."""
        try:
            if self.tally is not None:
                self.tally(upstream, model, usage)
        except Exception as error:  # noqa: BLE001  it is the app's function
            _log.error("A tally of calls raised %s.", type(error).__name__)


_USUAL = Calling()
_CALLING: ContextVar[Calling] = ContextVar("flask_ailimit_calling", default=_USUAL)


def calling_now() -> Calling:
    """How the calls of this thread or task are to be made."""
    return _CALLING.get()


@contextmanager
def calling(
    *,
    wait: float | None = None,
    within: float | None = None,
    batch: bool = False,
    tally: Tally | None = None,
    stop: Event | None = None,
    tenant: str | None = None,
) -> Iterator[None]:
    """Say how the calls inside the block are to be made.

    Args:
        wait: The most seconds that each of them may wait, over all its attempts: 0 for not at all; None for what a
            block around this one says, or else the upstream's ``max_wait``.
        within: In how many seconds from now the last attempt may begin, such as what an inbound request has left; None
            for no such time. How long an attempt itself may take is the client's time-out.
        batch: They wait while they would delay calls that are not a batch's.
        tally: Is told of each call that was settled.
        tenant: For whom they are made. The cache gives no tenant what another one has asked.
        stop: Once it is set, the calls wait no longer. Those that a provider answers at that moment go on.

    Raises:
        ValueError: A number of seconds is below 0 or no number.
    """
    for name, seconds in (("wait", wait), ("within", within)):
        if seconds is not None and not (isinstance(seconds, int | float) and seconds >= 0):
            raise ValueError(f"{name}: a number of seconds, 0 or more, is needed. Got {seconds!r:.40}.")
    outer = _CALLING.get()
    until = None if within is None else seconds_running() + within
    if outer.until is not None:
        until = outer.until if until is None else min(until, outer.until)
    whom = outer.tenant if tenant is None else tenant
    now = Calling(
        outer.wait if wait is None else wait,
        until,
        batch or outer.is_batch,
        tally or outer.tally,
        stop or outer.stop,
        whom,
    )
    token = _CALLING.set(now)
    try:
        yield
    finally:
        _CALLING.reset(token)
