"""A streamed answer, which is passed on unchanged, and settled when it ends or breaks.

The slot must be free, and the tokens settled, before the client can know that the answer is complete. Otherwise its
next request could be refused because of this one. A client knows it from the last event of an event stream, from the
end of the chunks, or from the last byte of a body whose length was announced. So the account is ended before the chunk
with the event leaves, or before the end is reported, or before the chunk with the last byte leaves. Only this last
chunk is held back, until the next read from the source returns.

If output follows the end (an agent's next message), the account is resumed before that output leaves, and ended again.

The slot belongs to the work. When the client is gone, the source may still wait for a model, so nothing is settled yet.
No further chunk is read, the thread that reads closes the source, and then the account is ended.
"""

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import Enum, auto
from errno import EPIPE
from typing import Protocol

from flask_ailimit.engine.forking import lineage
from flask_ailimit.engine.mutex import mutex
from flask_ailimit.tokens import Measure

_log = logging.getLogger("flask_ailimit")


class Ending(Enum):
    """How a stream ended."""

    COMPLETE = auto()
    NOT_STARTED = auto()  # Nobody asked for a first chunk: HEAD.
    FAILED = auto()  # The source raised.
    ABANDONED = auto()  # The client left, or the worker was told to stop.


class Meter(Protocol):
    """Measures what an answer has used so far; see :class:`flask_ailimit.tokens.StreamMeter`."""

    @property
    def ended(self) -> bool:
        """Whether the answer has ended, as far as is known."""

    @property
    def seen_anything(self) -> bool:
        """Whether any output has passed."""

    def feed(self, chunk: bytes, /) -> bool:
        """Read the next chunk. Returns whether the answer has ended."""

    def measure(self, known_input: int | None, /, *, complete: bool) -> Measure:
        """Return what was used so far."""


class Account(Protocol):
    """Settles what a stream used. Its methods are called one after the other, never two at once."""

    def end(self, ending: Ending, meter: Meter) -> None:
        """Settle what was used so far, and give the slot back. Called each time that the answer ends."""

    def resume(self) -> None:
        """Take the slot again, because output follows the end of the answer. :meth:`end` is called again later."""

    def close(self, meter: Meter) -> None:
        """Settle what was recorded or metered since the last end. Called once, as the last method."""


class MeteredStream:
    """Iterates over ``source``, and ends ``account`` when the answer ends.

    Args:
        source: The answer's chunks, bytes or text.
        meter: Reads the usage from the chunks.
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
        self._ended = False  # Whether the account is ended. It may be resumed.
        self._closed = False
        self._gone = False  # Whether the client is gone.
        self._ends_at_once = False
        self._on_close: Callable[[], None] | None = None
        self._lineage = lineage()
        # Another thread may end the account. Made now, because at import gevent may not have replaced the lock yet.
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
        """Settle a stream that the app or a middleware has dropped, because nobody will close it."""
        self._settle_up()

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once, when the server closes the answer."""
        self._on_close = callback

    def close(self) -> None:
        """Close the source, so that the work ends, and then end the account if it has not ended."""
        try:
            if self._reading:
                self._gone = True  # A source can't be closed while another thread reads it. That thread closes it.
            else:
                self._let_go()
        finally:
            callback, self._on_close = self._on_close, None
            is_child = self._lineage != lineage()  # The callback is about the socket, which the parent still uses.
            if callback is not None and not is_child:
                callback()

    def abandon(self, *, at_once: bool = False) -> None:
        """Stop reading: the client is gone. The account ends when the source is closed, or now if ``at_once``."""
        self._ends_at_once = at_once
        self._gone = True
        if at_once:
            self.end(Ending.ABANDONED)

    def end(self, ending: Ending) -> bool:
        """End the account, unless it has ended already. Returns whether this call ended it."""
        if self._lineage != lineage():
            return False
        return self._turn.run(lambda: self._end(ending))

    def drain(self) -> None:
        """Read the stream to its end, and drop the chunks. An exception ends the stream, and is not raised."""
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
            if self._gone:  # The source may have ended because it heard that the client is gone.
                raise _cut() from None
            raise
        except Exception as error:
            self.end(Ending.ABANDONED if self._gone else Ending.FAILED)
            if not self._gone:
                raise
            # Most likely the error that ended the view's wait. Its text is not logged, because it may hold a prompt.
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
        """Read once more, and settle, before the chunk that completes the announced length leaves."""
        try:
            self._next = self._read()
        except StopIteration:
            pass
        except Exception as error:  # noqa: BLE001  it is raised after the chunk
            self._next = error
        self.end(Ending.COMPLETE)

    def _leave(self) -> None:
        """Close the source after the client has left."""
        try:
            self._let_go()
        except Exception as error:  # noqa: BLE001  the client has left
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
            return  # A child process has only a copy, and its copy of the lock may stay locked.
        self._closed = True
        self._turn.run(self._closing)

    def _closing(self) -> None:
        self._end(Ending.ABANDONED if self._started or self._gone else Ending.NOT_STARTED)
        self._account.close(self._meter)


def _cut() -> BrokenPipeError:
    """An error after which the server closes the connection without the end of a complete answer.

    The client may still read, if it closed only its half of the connection.
    """
    return BrokenPipeError(EPIPE, "The client has left.")


def _bytes(chunk: bytes | str) -> bytes:
    return chunk.encode() if isinstance(chunk, str) else chunk
