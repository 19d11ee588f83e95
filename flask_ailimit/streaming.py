"""A streamed answer that is settled when it ends, however it ends, and passes through unchanged.

A slot must be free, and tokens settled, before the client can know that the answer is complete: else a client that
sends one request after the other meets its own shadow. Three things tell a client so: the terminal event of an event
stream, the end of the chunks, and the last byte of a body whose length was announced. In the first case settling comes
before the chunk that carries the event, in the second before the end is reported, and in the third the chunk with the
last byte is held until the source has ended. No other chunk is held.

If output follows the end (an agent's next message), the account is resumed before that output leaves, and ended again.

A slot belongs to the work. So when the client is gone, nothing is settled yet: the source may be waiting for a model.
No further chunk is read, the thread that reads closes the source, and then the account is ended.
"""

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import Enum, auto
from errno import EPIPE
from typing import Protocol

from .engine.forking import lineage
from .engine.mutex import mutex
from .tokens import Measure

_log = logging.getLogger("flask_ailimit")


class Ending(Enum):
    """How a stream ended."""

    COMPLETE = auto()
    NOT_STARTED = auto()  # Nobody asked for a first chunk: HEAD.
    FAILED = auto()  # The source raised.
    ABANDONED = auto()  # The client left, or the worker was told to stop.


class Meter(Protocol):
    """What knows at any time what an answer has used so far: see :class:`flask_ailimit.tokens.StreamMeter`."""

    @property
    def ended(self) -> bool:
        """Whether the answer has ended, as far as is known."""

    @property
    def seen_anything(self) -> bool:
        """Whether any output has passed."""

    def feed(self, chunk: bytes, /) -> bool:
        """Take the next chunk. Answers whether the answer has ended."""

    def measure(self, known_input: int | None, /, *, complete: bool) -> Measure:
        """What was used so far."""


class Account(Protocol):
    """What a stream settles. Its methods are called one after the other, never two at once."""

    def end(self, ending: Ending, meter: Meter) -> None:
        """Settle what was used so far and give the slot back. Called each time that the answer ends."""

    def resume(self) -> None:
        """Take the slot again: output follows although the answer had ended. :meth:`end` will follow."""

    def close(self, meter: Meter) -> None:
        """Settle what was recorded or metered since the last end. Called once; nothing follows."""


class MeteredStream:
    """Iterates over ``source``, and tells ``account`` when the answer ends.

    Args:
        source: The answer's chunks, bytes or text.
        meter: Reads usage out of the chunks.
        account: See :class:`Account`.
        length: The body's length in bytes, if it was announced.
    """

    def __init__(
        self,
        source: Iterable[bytes | str],
        meter: Meter,
        account: Account,
        *,
        length: int | None = None,
    ) -> None:
        self._source: Iterable[bytes | str] | None = source  # None: no further chunk is read.
        self._meter = meter
        self._account = account
        self._left = length
        self._next: bytes | str | Exception | None = None
        self._started = self._reading = False
        self._ended = False  # The account is. More may follow.
        self._closed = False
        self._gone = False  # The client is.
        self._ends_at_once = False
        self._on_close: Callable[[], None] | None = None
        self._lineage = lineage()
        # Another thread may end it. Made now: at import, gevent may not have put its own in its place yet.
        self._turn = mutex()
        self._chunks = iter(source)

    def __iter__(self) -> "MeteredStream":
        return self

    def __next__(self) -> bytes | str:
        if self._gone:
            self._leave()
            raise _cut()
        if self._source is None:
            raise StopIteration
        self._started = True
        if self._next is not None:
            chunk, self._next = self._next, None
            if isinstance(chunk, Exception):
                raise chunk
            return chunk
        chunk = self._read()
        if self._left is not None and not self._ended:
            self._left -= len(_bytes(chunk))
            if self._left <= 0:
                self._look_ahead()
        return chunk

    def __del__(self) -> None:
        """Nobody will close a stream that an app or a middleware has thrown away."""
        self._settle_up()

    def on_close(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called once, when the server closes the answer."""
        self._on_close = callback

    def close(self) -> None:
        """Close the source, so that the work ends, and then end the account if it has not ended."""
        try:
            if self._reading:
                self._gone = True  # A source can't be closed while another thread is in it. That one will.
            else:
                self._let_go()
        finally:
            callback, self._on_close = self._on_close, None
            is_child = self._lineage != lineage()  # There the socket is the parent's too.
            if callback is not None and not is_child:
                callback()

    def abandon(self, *, at_once: bool = False) -> None:
        """Read no further: the client is gone. Whoever reads lets go; the account ends then, or ``at_once``."""
        self._ends_at_once = at_once
        self._gone = True
        if at_once:
            self.end(Ending.ABANDONED)

    def end(self, ending: Ending) -> bool:
        """End the account if it has not ended. Answers whether it had not."""
        if self._lineage != lineage():
            return False
        return self._turn.run(lambda: self._end(ending))

    def drain(self) -> None:
        """Read to the end what nobody wants to have. What it raises ends the stream like any other."""
        with suppress(Exception):
            for _ in self:
                pass

    def _end(self, ending: Ending) -> bool:
        if self._ended:
            return False
        self._ended = True
        self._account.end(ending, self._meter)
        return True

    def _read(self) -> bytes | str:
        self._reading = True
        try:
            chunk = next(self._chunks)
        except StopIteration:
            self.end(Ending.ABANDONED if self._gone else Ending.COMPLETE)
            if self._gone:  # It may have ended because somebody told it so.
                raise _cut() from None
            raise
        except Exception as error:
            self.end(Ending.ABANDONED if self._gone else Ending.FAILED)
            if not self._gone:
                raise
            # Most likely what woke the view. Not its text, which may hold a prompt.
            _log.info("A stream ended by %s after its client had left.", type(error).__name__)
            raise _cut() from None
        except BaseException:  # SystemExit and GreenletExit: the worker is told to stop.
            self.end(Ending.ABANDONED)
            raise
        finally:
            self._reading = False
        self._take(_bytes(chunk))
        if self._gone:
            self._leave()
        return chunk

    def _take(self, chunk: bytes) -> None:
        """Meter a chunk before it leaves."""
        self._turn.run(lambda: self._metered(chunk))

    def _metered(self, chunk: bytes) -> None:
        ended = self._meter.feed(chunk)
        if self._ended and not ended and chunk:
            self._account.resume()
            self._ended = False
        if ended:
            self._end(Ending.COMPLETE)
        elif self._gone and self._ends_at_once:
            self._end(Ending.ABANDONED)

    def _look_ahead(self) -> None:
        """Settle before the chunk that completes the announced length leaves. The source may not have ended yet."""
        try:
            self._next = self._read()
        except StopIteration:
            pass
        except Exception as error:  # noqa: BLE001  it is raised after the chunk
            self._next = error
        self.end(Ending.COMPLETE)

    def _leave(self) -> None:
        """Let go of a source that nobody wants to hear any more."""
        try:
            self._let_go()
        except Exception as error:  # noqa: BLE001  nobody is there whom it could be told
            _log.info("A stream's source raised %s when it was closed; its client had left.", type(error).__name__)

    def _let_go(self) -> None:
        source, self._source = self._source, None
        try:
            # An iterator may differ from its source, and either may have something to close.
            for each in () if source is None else {id(it): it for it in (self._chunks, source)}.values():
                close = getattr(each, "close", None)
                if close is not None:
                    close()
        finally:
            self._settle_up()

    def _settle_up(self) -> None:
        if self._closed or self._lineage != lineage():
            return  # A child process has a copy, and a lock that nobody there will give back.
        self._closed = True
        self._turn.run(self._closing)

    def _closing(self) -> None:
        self._end(Ending.ABANDONED if self._started or self._gone else Ending.NOT_STARTED)
        self._account.close(self._meter)


def _cut() -> BrokenPipeError:
    """What a server takes for a broken connection, and so closes it without the end of a complete answer.

    A client may have closed its half of the connection only, and still read.
    """
    return BrokenPipeError(EPIPE, "The client has left.")


def _bytes(chunk: bytes | str) -> bytes:
    return chunk.encode() if isinstance(chunk, str) else chunk
