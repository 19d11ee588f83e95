"""One payload of a stream: an event's data, a line, a block."""

import json
import re
from typing import Any, Final

from .output import read_event_text, read_output_text

DONE: Final = b"[DONE]"
"""What OpenAI's chat and text completions send last."""


# A delta of plain text alone, as chat completions and Messages send it, in a string that needs no decoding.
_PLAIN_DELTA = re.compile(
    rb'"delta": ?\{(?:"role": ?"assistant", ?|"type": ?"text_delta", ?)?"(?:content|text)": ?"([^"\\]*)"\}'
)


def decode(payload: bytes) -> dict[str, Any] | str:
    """The payload's JSON object or JSON string; if it is neither, the payload as text."""
    text = payload.decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict | str) else text


def event_text(payload: bytes) -> str:
    """The output in the data of one event, or in one JSON line."""
    plain = _PLAIN_DELTA.findall(payload)
    if plain and len(plain) == payload.count(b'"delta"'):
        return b"".join(plain).decode("utf-8", "replace")
    return "" if payload.startswith(DONE) else read_event_text(decode(payload))


def unfinished_event_text(payload: bytes) -> str:
    """The output in an event that lacks its end mark, if it lacks nothing else."""
    event = decode(payload)
    return read_event_text(event) if isinstance(event, dict) else ""


def document_text(payload: bytes) -> str:
    """The output in a JSON document; all of a document, or a part of one, that can't be understood."""
    return read_output_text(decode(payload)) or payload.decode("utf-8", "replace")
