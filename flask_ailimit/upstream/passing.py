"""An answer's body on its way to the caller: metered while it passes, and settled when it is closed."""

from flask_ailimit.engine.background import started
from flask_ailimit.engine.forking import lineage
from flask_ailimit.tokens import StreamMeter, TokenCounter

from .call import Accepted
from .held import Held

_EVENTS = "text/event-stream"


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
        self._lineage = lineage()
        self._whole = self._cut = self._ended = False

    def feed(self, chunk: bytes) -> bytes:
        """Note what passes."""
        self._meter.feed(chunk)
        if self._keeping is not None:
            self._keeping.feed(chunk)
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
        measure = self._meter.measure(self._held.known_input, complete=whole)
        if self._cut and not whole:
            self._held.broke_off(measure)
        else:
            self._held.finished(measure, whole=whole)
        if self._keeping is not None:
            self._keeping.end(whole=whole)

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
