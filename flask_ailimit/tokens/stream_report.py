"""The usage that a stream reports in its events, and the event that ends it."""

from typing import TYPE_CHECKING, Any, Final

from .payload import DONE, decode
from .report import read_usage

if TYPE_CHECKING:
    from .usage import Usage

TERMINAL_EVENTS: Final = frozenset({"message_stop", "response.completed", "response.failed", "response.incomplete"})
"""Types of the events after which nothing comes (Anthropic Messages, OpenAI Responses). Besides these, ``[DONE]``
(OpenAI's chat and text completions) and ``"done": true`` (Ollama) end a stream. An ``error`` event does not."""

_LAST_TYPES = tuple(b'"%b"' % name.encode() for name in sorted(TERMINAL_EVENTS))


class StreamReport:
    """Looks at the payloads of a stream for what they report.

    Attributes:
        usage: What was reported last of the whole request; None as long as nothing was.
        started: What Anthropic's ``message_start`` reported of the input; None without one.
    """

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.started: Usage | None = None
        self._start: dict[str, Any] = {}

    def look_at(self, payload: bytes) -> bool:
        """Take the next payload, or one that may yet lack its end. Answers whether it ends the stream."""
        if payload.startswith(DONE):
            return True
        if not _may_matter(payload):
            return False
        event = decode(payload)
        if not isinstance(event, dict):
            return False
        self._note(event)
        kind = event.get("type")
        return event.get("done") is True or (isinstance(kind, str) and kind in TERMINAL_EVENTS)

    def _note(self, event: dict[str, Any]) -> None:
        kind = event.get("type")
        if kind == "message_start":
            message = event.get("message")
            usage = message.get("usage") if isinstance(message, dict) else None
            self._start = usage if isinstance(usage, dict) else {}
            self.started = read_usage({"usage": self._start})
        elif kind == "message_delta" and isinstance(event.get("usage"), dict):
            # The output so far, and what has changed of the rest.
            changed = {name: value for name, value in event["usage"].items() if value is not None}
            self.usage = read_usage({"usage": {**self._start, **changed}}) or self.usage
        else:
            self.usage = read_usage(event) or read_usage(event.get("response")) or self.usage


def _may_matter(payload: bytes) -> bool:
    """Whether the payload is worth decoding. Few searches, because every payload that passes is searched."""
    if b'"usage"' in payload and b'"usage":null' not in payload and b'"usage": null' not in payload:
        return True
    if b'"done"' in payload:
        return True
    if b'"type"' in payload:
        for last in _LAST_TYPES:
            if last in payload:
                return True
    return False
