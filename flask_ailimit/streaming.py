"""A streamed answer that is settled when it ends, however it ends, and passes through unchanged.

A slot must be free, and tokens settled, before the client can know that the answer is complete: else a client that
sends one request after the other meets its own shadow. Three things tell a client so: the terminal event of an event
stream, the end of the chunks, and the last byte of a body whose length was announced. In the first case settling comes
before the chunk that carries the event, in the second before the end is reported, and in the third the chunk with the
last byte is held until the source has ended. No other chunk is held.
"""

from collections.abc import Callable, Iterator
from enum import Enum, auto

from .tokens import StreamMeter


class Ending(Enum):
    """How a stream ended."""

    COMPLETE = auto()
    NOT_STARTED = auto()  # Nobody asked for a first chunk: HEAD, or a client that was gone.
    FAILED = auto()  # The source raised.
    ABANDONED = auto()  # The client left, or the worker was told to stop.


Settle = Callable[[Ending, StreamMeter], None]
"""Called once with the ending and with what was metered until then."""


class MeteredStream:
    """Iterates over ``source`` and calls ``settle`` exactly once.

    Args:
        source: The answer's chunks, bytes or text.
        meter: Reads usage out of the chunks.
        settle: See :data:`Settle`.
        length: The body's length in bytes, if it was announced.
    """

    def __init__(
        self, source: Iterator[bytes | str], meter: StreamMeter, settle: Settle, *, length: int | None = None
    ) -> None:
        self._source = source
        self._meter = meter
        self._settle: Settle | None = settle
        self._left = length
        self._next: bytes | str | Exception | None = None
        self._started = False
        self._closed = False
        self._on_close: Callable[[MeteredStream], None] | None = None

    def __iter__(self) -> Iterator[bytes | str]:
        return self

    def __next__(self) -> bytes | str:
        if self._closed:
            raise StopIteration
        self._started = True
        if self._next is not None:
            chunk, self._next = self._next, None
            if isinstance(chunk, Exception):
                raise chunk
            return chunk
        chunk = self._read()
        if self._left is not None and self._settle is not None:
            self._left -= len(_bytes(chunk))
            if self._left <= 0:
                self._look_ahead()
        return chunk

    def __del__(self) -> None:
        """Nobody will close a stream that an app or a middleware has thrown away."""
        self.end(Ending.ABANDONED if self._started else Ending.NOT_STARTED)

    def on_close(self, callback: Callable[["MeteredStream"], None]) -> None:
        """Have ``callback`` called once, with this stream, when the server closes the answer."""
        self._on_close = callback

    def close(self) -> None:
        """End it if it has not ended, and close the source."""
        self.end(Ending.ABANDONED if self._started else Ending.NOT_STARTED)
        self._closed = True
        callback, self._on_close = self._on_close, None
        if callback is not None:
            callback(self)
        close = getattr(self._source, "close", None)
        if close is not None:
            close()

    def end(self, ending: Ending) -> None:
        """Settle, if nobody has yet."""
        settle, self._settle = self._settle, None
        if settle is not None:
            settle(ending, self._meter)

    def stop(self) -> None:
        """End it from another thread: its client is gone. No further chunk is read."""
        self._closed = True
        self.end(Ending.ABANDONED)

    def _read(self) -> bytes | str:
        try:
            chunk = next(self._source)
        except StopIteration:
            self.end(Ending.COMPLETE)
            raise
        except Exception:
            self.end(Ending.FAILED)
            raise
        except BaseException:  # SystemExit and GreenletExit: the worker is told to stop.
            self.end(Ending.ABANDONED)
            raise
        if self._meter.feed(_bytes(chunk)):
            self.end(Ending.COMPLETE)
        return chunk

    def _look_ahead(self) -> None:
        """Settle before the chunk that completes the announced length leaves. The source may not have ended yet."""
        try:
            self._next = self._read()
        except StopIteration:
            self._left = None
        except Exception as error:  # noqa: BLE001  it is raised after the chunk
            self._next = error
        self.end(Ending.COMPLETE)


def _bytes(chunk: bytes | str) -> bytes:
    return chunk.encode() if isinstance(chunk, str) else chunk
