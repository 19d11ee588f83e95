"""One payload of a stream: an event's data, a line, a block."""

import json
from typing import Any, Final

from .output import read_event_text, read_output_text

DONE: Final = b"[DONE]"
"""What OpenAI's chat and text completions send last."""


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
    return "" if payload.startswith(DONE) else read_event_text(decode(payload))


def unfinished_event_text(payload: bytes) -> str:
    """The output in an event that lacks its end mark, if it lacks nothing else."""
    event = decode(payload)
    return read_event_text(event) if isinstance(event, dict) else ""


def document_text(payload: bytes) -> str:
    """The output in a JSON document; all of a document, or a part of one, that can't be understood."""
    return read_output_text(decode(payload)) or payload.decode("utf-8", "replace")
