"""One payload of a stream: an event's data, or a line."""

import json
import operator
import re
from typing import Any, Final

from .output import read_event_text

DONE: Final = b"[DONE]"
"""What OpenAI's chat and text completions send last."""

# A delta of plain text alone, as chat completions and Messages send it.
_PLAIN_DELTA = re.compile(
    rb'"delta": ?\{(?:(?:"role": ?"assistant", ?|"type": ?"text_delta", ?)?'
    rb'"(?:content|text)": ?"([^"\\]*+(?:\\.[^"\\]*+)*+)")?\}'
)
# A delta of text as the Responses API sends it.
_STRING_DELTA = re.compile(rb'"delta": ?"([^"\\]*+(?:\\.[^"\\]*+)*+)"')
_STRING_DELTA_TYPE = b'"response.output_text.delta"'

_has_delta = operator.methodcaller("__contains__", b'"delta"')


def decode(payload: bytes) -> dict[str, Any] | str:
    """The payload's JSON object or JSON string; if it is neither, the payload as text."""
    text = payload.decode("utf-8", "replace")
    if not text.lstrip().startswith(("{", '"')):
        return text
    value = decode_json(text)
    return value if isinstance(value, dict | str) else text


def decode_json(text: str) -> object:
    """The JSON value; None if the text is none, or nests deeper than Python's stack."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def events_text(payloads: list[bytes]) -> str:
    """The output in the data of events, or in JSON lines, one after the other."""
    pieces = _plain(payloads, b"".join(payloads))
    if pieces is not None and b"" in pieces:  # It may have text where no API has it.
        pieces = [piece or _escaped(_event_text(each)) for piece, each in zip(pieces, payloads, strict=True)]
    text = None if pieces is None else _text_of(pieces)
    if text is not None:
        return text
    texts = {payload: _event_text(payload) for payload in set(payloads)}  # Tiny ones are often alike.
    return "".join([texts[payload] for payload in payloads])


def plain_text(payloads: list[bytes], joined: bytes) -> str | None:
    """The output in payloads that each have one delta of text and nothing else; None if they are not all such."""
    pieces = _plain(payloads, joined)
    return None if pieces is None or b"" in pieces else _text_of(pieces)


def _plain(payloads: list[bytes], joined: bytes) -> list[bytes] | None:
    """The one delta of each payload, escaped as in JSON; None if they don't all have one delta and nothing else."""
    # Each must have exactly one delta, or what else is in it would be passed over.
    if joined.count(b'"delta"') != len(payloads) or not all(map(_has_delta, payloads)):
        return None
    strings = joined.count(_STRING_DELTA_TYPE) == len(payloads)
    pieces: list[bytes] = (_STRING_DELTA if strings else _PLAIN_DELTA).findall(joined)
    return pieces if len(pieces) == len(payloads) else None


def _text_of(pieces: list[bytes]) -> str | None:
    text = b"".join(pieces).decode("utf-8", "replace")
    decoded = text if "\\" not in text else decode_json(f'"{text}"')
    return decoded if isinstance(decoded, str) else None


def _escaped(text: str) -> bytes:
    return json.dumps(text).encode()[1:-1] if text else b""


def _event_text(payload: bytes) -> str:
    return "" if payload == DONE else read_event_text(decode(payload))
