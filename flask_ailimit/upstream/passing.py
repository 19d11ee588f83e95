"""An answer's body on its way to the caller: metered while it passes, and settled when it is closed."""

import logging

from flask_ailimit.engine.background import started
from flask_ailimit.engine.forking import lineage
from flask_ailimit.tokens import Measure, StreamMeter, TokenCounter
from flask_ailimit.tokens.usual import read_usual

from .call import Accepted
from .held import Held

_log = logging.getLogger("flask_ailimit")

_EVENTS = "text/event-stream"
_DOCUMENT = "application/json"

_MOST_KEPT = 256 * 1024
"""Bytes of a document that are kept to be read at once, which takes a tenth of the time."""


class Passing:
    """Meters an answer's body while it passes, and ends what the call holds.

    Args:
        held: What the call holds.
        mimetype: The answer's.
        encoding: Its Content-Encoding.
        counter: Counts the output where the answer reports no usage.
    """

    def __init__(self, held: Held, mimetype: str, encoding: str, counter: TokenCounter) -> None:
        self._held = held
        self._is_stream = mimetype == _EVENTS and held.has_known_end
        self._meter = StreamMeter(mimetype, counter, encoding=encoding)
        self._keeping = held.keeping
        self._counter = counter
        self._kept: list[bytes] | None = [] if mimetype == _DOCUMENT and not encoding else None
        self._room = _MOST_KEPT
        self._lineage = lineage()
        self._whole = self._cut = self._ended = False

    def feed(self, chunk: bytes) -> bytes:
        """Note what passes."""
        if self._keeping is not None:
            self._keeping.feed(chunk)
        if self._kept is None:
            self._meter.feed(chunk)
            return chunk
        self._kept.append(chunk)
        self._room -= len(chunk)
        if self._room < 0:
            self._meter.feed(self._taken())
        return chunk

    def came_to_end(self) -> None:
        """Note that the body came to its end. A stream without its last event was cut."""
        self._whole = not self._is_stream or self._meter.ended
        self._cut = not self._whole

    def broke(self) -> None:
        """Note that reading failed."""
        self._cut = True

    @property
    def is_open(self) -> bool:
        """Whether it is still to be ended, by this process."""
        return not self._ended and self._lineage == lineage()

    def end(self) -> None:
        """Settle what the call used. It may block."""
        if not self.is_open:
            return
        self._ended = True
        whole = self._whole or (self._is_stream and self._meter.ended)
        measure = self._measure(whole)
        if self._cut and not whole:
            self._held.broke_off(measure)
        else:
            self._held.finished(measure, whole=whole)
        if self._keeping is not None:
            self._keeping.end(whole=whole)

    def _measure(self, whole: bool) -> Measure:
        try:
            return self._counted(whole)
        except Exception as error:  # noqa: BLE001  an app's own counter may fail on a text that it doesn't expect
            # Not the error's text or its traceback, which may hold the answer.
            _log.error("The tokens of an upstream's answer could not be counted: %s was raised.", type(error).__name__)
            return Measure(None, "reserved")

    def _counted(self, whole: bool) -> Measure:
        if self._kept is not None:
            body = self._taken()
            usage = read_usual(body, self._counter) if whole else None
            if usage is not None:
                return Measure(usage, "reported")  # As the meter would say.
            self._meter.feed(body)
        return self._meter.measure(self._held.known_input, complete=whole)

    def _taken(self) -> bytes:
        body, self._kept = b"".join(self._kept or ()), None
        return body

    def end_later(self) -> None:
        """Settle in a thread: for who must not block, or is about to be gone."""
        if self.is_open:
            started(self.end, "settlement of a call")


def passing_of(accepted: Accepted, counter: TokenCounter) -> Passing:
    """What meters the body of an answer. The answer gets its further headers here."""
    headers = accepted.response.headers
    for name, value in accepted.headers:
        headers[name] = value
    mimetype = headers.get("content-type", "").partition(";")[0].strip().lower()
    return Passing(accepted.held, mimetype, headers.get("content-encoding", ""), counter)
