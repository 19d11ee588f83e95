"""The kinds of streams by mimetype: how each is cut into payloads, and what text is in one."""

import codecs
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from .payload import document_text, event_text, unfinished_event_text
from .splitting import Blocks, EventStream, Lines, Nothing, Splitter


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of stream.

    Attributes:
        splitter: Makes what cuts the stream into payloads.
        reader: Makes what reads the text of each payload, in order.
        read_unfinished: Reads the text of a payload that may lack its end.
        has_events: Whether a payload can end the stream.
        has_text: Whether there is text to count.
    """

    splitter: Callable[[], Splitter]
    reader: Callable[[], Callable[[bytes], str]]
    read_unfinished: Callable[[bytes], str]
    has_events: bool = False
    has_text: bool = True


def format_of(mimetype: str) -> Format:
    """The format that a mimetype (without parameters) promises; of an unknown one nothing is read."""
    if mimetype in _FORMATS:
        return _FORMATS[mimetype]
    if mimetype.startswith("text/"):
        return _TEXT
    return _DOCUMENT if mimetype.endswith("+json") else _OTHER


def _decoder() -> Callable[[bytes], str]:
    # A character may be cut in two by the end of a block.
    return codecs.getincrementaldecoder("utf-8")("replace").decode


def _no_text(_: bytes) -> str:
    return ""


_EVENTS = Format(EventStream, lambda: event_text, unfinished_event_text, has_events=True)
_LINES = Format(Lines, lambda: event_text, unfinished_event_text, has_events=True)
_DOCUMENT = Format(partial(Blocks, 1024 * 1024), lambda: document_text, document_text)
_TEXT = Format(partial(Blocks, 16 * 1024), _decoder, lambda rest: rest.decode("utf-8", "replace"))
_OTHER = Format(Nothing, lambda: _no_text, _no_text, has_text=False)

_FORMATS = {
    "application/json": _DOCUMENT,
    "application/jsonl": _LINES,
    "application/jsonlines": _LINES,
    "application/ndjson": _LINES,
    "application/x-jsonlines": _LINES,
    "application/x-ndjson": _LINES,
    "text/event-stream": _EVENTS,
}
