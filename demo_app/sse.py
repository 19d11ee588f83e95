"""Answers that are sent token by token, as server-sent events, with their usage told to the limiter."""

import json
from collections.abc import Callable, Generator, Iterator
from itertools import chain

from flask import Response, stream_with_context

from flask_ailimit import AILimiter

from .errors import from_model
from .model import Delta, ModelError, Usage

DONE = "data: [DONE]\n\n"


def event(data: object, name: str | None = None) -> str:
    """One event. ASCII JSON has no line breaks, not even those exotic ones at which some clients split lines."""
    label = "" if name is None else f"event: {name}\n"
    return f"{label}data: {json.dumps(data, separators=(',', ':'))}\n\n"


def stream(limiter: AILimiter, deltas: Generator[Delta], write: Callable[[Iterator[Delta]], Iterator[str]]) -> Response:
    """Send what ``write`` makes of the deltas.

    The first delta is awaited before the answer starts, so that what the model can't take is an ordinary error
    with a status and costs no tokens.
    """
    source = metered(limiter, next(deltas), deltas)
    response = Response(
        stream_with_context(_told_of_failure(write(source))),
        mimetype="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
    response.call_on_close(deltas.close)  # Ends the model's work, also if nobody ever asked for an event.
    return response


def metered(limiter: AILimiter, first: Delta, rest: Iterator[Delta]) -> Iterator[Delta]:
    """Pass deltas on, each recorded before it leaves: wherever the stream breaks off, the count is exact."""
    recorded = Usage(0, 0)
    for delta in chain((first,), rest):
        record(limiter, delta.usage - recorded)
        recorded = delta.usage
        yield delta


def record(limiter: AILimiter, usage: Usage) -> None:
    """Tell the limiter what was used beyond what it knows."""
    limiter.record_usage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)


def _told_of_failure(events: Iterator[str]) -> Iterator[str]:
    try:
        yield from events
    except ModelError as error:
        # The status is sent already. Both SDKs raise at such an event.
        yield event(from_model(error).body(), name="error")
