"""Metering a streamed answer while it passes."""

from typing import Final

from .counter import TokenCounter
from .stream_format import format_of
from .stream_report import StreamReport
from .transcript import Transcript
from .usage import Usage

LONGEST_PEEK: Final = 16 * 1024
"""Bytes. An event whose line has not ended is looked at as chunks come only up to this size."""

# How a chunk ends that may bring a whole event without the blank line, or the line break, after it.
_MAY_END: Final = (b"]", b"}", b"]\n", b"}\n", b"]\r\n", b"}\r\n")


class StreamMeter:
    """Is fed a streamed body in chunks of any size, and knows at any time what it used. Never raises on any bytes.

    Understood are event streams, JSON lines, a JSON document that comes in pieces, and plain text. The output is
    decoded and counted only when somebody asks, or when 256 KB of payloads have come together.

    Args:
        mimetype: The answer's, without parameters, such as ``text/event-stream``.
        counter: Counts the output if the stream doesn't report it.
    """

    def __init__(self, mimetype: str, counter: TokenCounter) -> None:
        self._format = format_of(mimetype)
        self._splitter = self._format.splitter()
        self._transcript = Transcript(counter, self._format.reader())
        self._report = StreamReport()
        self._fed = False
        self._ended = False

    def feed(self, chunk: bytes) -> bool:
        """Take the next chunk. Answers whether it brings the terminal event; true once at most."""
        if chunk:
            self._fed = True
        terminal = False
        for payload in self._splitter.split(chunk):
            terminal = self._report.look_at(payload) or terminal
            self._transcript.add(payload)
        if not terminal and self._format.has_events and chunk.endswith(_MAY_END):
            terminal = self._report.look_at(self._splitter.peek(LONGEST_PEEK))
        if not terminal:
            return False
        first, self._ended = not self._ended, True
        return first

    @property
    def usage(self) -> Usage | None:
        """What the stream reported; None if it has not.

        Servers report at the end. Of an Anthropic stream that breaks off, the input was reported at its start, and
        the output is counted; None as long as there is none.
        """
        if self._report.usage is None:
            self._report.look_at(self._splitter.peek())
        started = self._report.started
        if self._report.usage is not None or started is None:
            return self._report.usage
        seen = self.output_tokens
        return Usage.clamped(started.input_tokens, seen, started.cached_input_tokens) if seen else None

    @property
    def output_tokens(self) -> int | None:
        """Tokens of the text so far, by the counter; None if the stream is of a kind that has no text to count."""
        if not self._format.has_text:
            return None
        return self._transcript.tokens(self._format.read_unfinished(self._splitter.peek()))

    @property
    def seen_anything(self) -> bool:
        """Whether any output has passed. Comments, pings, errors and events without text are none."""
        return bool(self.output_tokens) if self._format.has_text else self._fed
