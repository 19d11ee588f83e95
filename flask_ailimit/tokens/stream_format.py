"""What kind of stream an answer is: by its mimetype, and by its first bytes, since a mimetype may lie."""

import re
from enum import Enum, auto
from typing import Final

from .envelope import is_known
from .media import JSON_LINES, is_json, is_text
from .payload import decode_json

LONGEST_HEAD: Final = 8 * 1024
"""Bytes. Text in which no event with JSON has begun by then is text."""

_BREAK = re.compile(rb"[\r\n]")
_LONGEST_FIELD = 64
_MOST_BLANK = 256
_BLANK = b" \t\r\n\xef\xbb\xbf"
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")


class Kind(Enum):
    """How a body is cut into payloads, and what is in them."""

    EVENTS = auto()  # text/event-stream
    LINES = auto()  # a JSON value a line
    DOCUMENT = auto()  # a JSON document
    TEXT = auto()
    BYTES = auto()  # nothing that can be counted


def kind_of(promised: Kind, head: bytes, *, whole: bool = False) -> Kind | None:
    """What kind a body is that begins so; None if that can't be told yet. Depends on the bytes, not on the chunks.

    Args:
        promised: What its mimetype says; see :func:`promised_by`.
        head: The body so far.
        whole: Whether no more comes, so that an answer is needed.
    """
    start = head.lstrip(_BLANK)
    if len(head) - len(start) > _MOST_BLANK:
        return promised
    if not start or (len(start) < len(b"event:") and any(field.startswith(start) for field in _FIELDS)):
        return promised if whole else None
    if start.startswith((b"{", b"[")):
        return _kind_of_json(promised, start, whole)
    return _kind_of_events(promised, start, whole)


def promised_by(mimetype: str) -> Kind:
    """What kind a body of that mimetype should be. Without one it is text, as long as it is valid UTF-8."""
    mimetype = mimetype.lower()
    if mimetype == "text/event-stream":
        return Kind.EVENTS
    if mimetype in JSON_LINES:
        return Kind.LINES
    if is_json(mimetype):
        return Kind.DOCUMENT
    return Kind.TEXT if not mimetype or is_text(mimetype) else Kind.BYTES


def may_begin_field(start: bytes) -> bool:
    """Whether a field of an event that somebody knows, or a comment, may begin so."""
    return start.startswith(_FIELDS) or any(field.startswith(start) for field in _FIELDS)


def _is_field(start: bytes) -> bool:
    """Whether it is a field of an event, be it one that nobody knows, or a comment."""
    name = start[:_LONGEST_FIELD].splitlines()[0].partition(b":")[0]
    return not name or (name.isalpha() and name.islower())


def _kind_of_json(promised: Kind, start: bytes, whole: bool) -> Kind | None:
    """Lines if the first one is a whole object and another follows, else a document.

    Where no JSON was promised, it must have a provider's members besides: what a model writes may be JSON as well.
    """
    ends = _BREAK.search(start)
    line, rest = (start[: ends.start()], start[ends.end() :]) if ends else (start, b"")
    alone = not rest.strip(_BLANK)
    if not whole and not ends:
        return None
    if alone and promised is Kind.DOCUMENT:  # Most answers: nobody needs to look inside to tell.
        return Kind.DOCUMENT if whole else None
    first = decode_json(line.decode("utf-8", "replace"))
    if not isinstance(first, dict):
        return Kind.LINES if promised is Kind.LINES and not ends else Kind.DOCUMENT
    if promised in (Kind.TEXT, Kind.BYTES) and not is_known(first):
        return promised
    if not alone or promised is Kind.LINES:
        return Kind.LINES
    return Kind.DOCUMENT if whole else None


def _kind_of_events(promised: Kind, start: bytes, whole: bool) -> Kind | None:
    """Events, or what was promised."""
    if promised is Kind.EVENTS:
        if not whole and len(start) < _LONGEST_FIELD and start.isalpha() and start.islower():
            return None
        return Kind.EVENTS if _is_field(start) else Kind.TEXT
    if not start.startswith(_FIELDS):
        return promised
    if promised in (Kind.LINES, Kind.DOCUMENT):
        return Kind.EVENTS
    return _kind_of_text(promised, start, whole)


def _kind_of_text(promised: Kind, start: bytes, whole: bool) -> Kind | None:
    """Events, if the first data is a JSON object; else text that looks so."""
    lines = start[:LONGEST_HEAD].splitlines(keepends=True)
    for line in lines:
        if line.startswith(b"data:") and line[5:].strip():
            if not line.endswith((b"\n", b"\r")) and not whole and len(start) < LONGEST_HEAD:
                return None
            data = decode_json(line[5:].decode("utf-8", "replace"))
            return Kind.EVENTS if isinstance(data, dict) else promised
        if line.strip() and not line.startswith(_FIELDS):
            complete = line.endswith((b"\n", b"\r")) or whole or len(line) >= len(b"event:")
            return promised if complete else None
    return promised if whole or len(start) >= LONGEST_HEAD else None
