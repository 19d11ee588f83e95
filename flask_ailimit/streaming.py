"""A streamed answer that is settled when it ends, however it ends, and passes through unchanged.

A slot must be free, and tokens settled, before the client can know that the answer is complete: else a client that
sends one request after the other meets its own shadow. Three things tell a client so: the terminal event of an event
stream, the end of the chunks, and the last byte of a body whose length was announced. In the first case settling comes
before the chunk that carries the event, in the second before the end is reported, and in the third the last chunk is
held until the source has ended.
"""

from collections.abc import Callable, Iterator
from enum import Enum, auto

from .tokens import StreamMeter, Usage


class Ending(Enum):
    """How a stream ended."""

    COMPLETE = auto()
    NOT_STARTED = auto()  # Nobody asked for a first chunk: HEAD, or a client that was gone.
    FAILED = auto()  # The source raised.
    ABANDONED = auto()  # The client left, or the worker was told to stop.


Settle = Callable[[Ending, Usage | None, int | None], None]
"""Called once with the ending, the usage that the stream reported (if it did), and the output tokens seen (None if the
stream is of a kind whose text can't be counted)."""


class MeteredStream:
    """Iterates over ``source`` and calls ``settle`` exactly once.

    Args:
        source: The answer's chunks, bytes or text.
        meter: Reads usage out of the chunks.
        settle: See :data:`Settle`.
        hold_last: The body's length was announced, so its last chunk must wait for the end of the source.
    """

    def __init__(
        self, source: Iterator[bytes | str], meter: StreamMeter, settle: Settle, *, hold_last: bool = False
    ) -> None:
        self._source = source
        self._meter = meter
        self._settle: Settle | None = settle
        self._hold_last = hold_last
        self._held: bytes | str | None = None
        self._started = False
        self._closed = False
        self._on_close: Callable[[], None] | None = None

    def __iter__(self) -> Iterator[bytes | str]:
        return self

    def __next__(self) -> bytes | str:
        if self._closed:
            raise StopIteration
        self._started = True
        if not self._hold_last:
            return self._read()
        if self._held is None:
            self._held = self._read()
        chunk = self._held
        try:
            self._held = self._read()
        except StopIteration:
            self._hold_last = False
            self._held = None
        return chunk

    def on_close(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called once, when the server closes the answer."""
        self._on_close = callback

    def close(self) -> None:
        """End it if it has not ended, and close the source."""
        self.end(Ending.ABANDONED if self._started else Ending.NOT_STARTED)
        self._closed = True
        callback, self._on_close = self._on_close, None
        if callback is not None:
            callback()
        close = getattr(self._source, "close", None)
        if close is not None:
            close()

    def end(self, ending: Ending) -> None:
        """Settle, if nobody has yet."""
        settle, self._settle = self._settle, None
        if settle is not None:
            settle(ending, self._meter.usage, self._meter.output_tokens)

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
        if self._meter.feed(chunk.encode() if isinstance(chunk, str) else chunk):
            self.end(Ending.COMPLETE)
        return chunk
