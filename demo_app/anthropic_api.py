"""``POST /v1/messages`` as Anthropic's clients expect it.

Format: https://docs.anthropic.com/en/api/messages and, for streams, /en/api/messages-streaming
"""

import secrets
from collections.abc import Callable, Iterator, Sequence

from flask import Flask, jsonify
from flask.typing import ResponseReturnValue

from flask_ailimit import AILimiter

from . import sse
from .model import DEFAULT_TEMPERATURE, DEFAULT_TOP_P, Call, Delta, Message, Model, Usage, names_of, whole
from .validation import (
    Body,
    read_flag,
    read_max_tokens,
    read_messages,
    read_model,
    read_number,
    read_text,
    refuse_unknown,
    require_short,
    takes,
)

ROLES = {"user": "user", "assistant": "assistant"}
FIELDS = ("model", "messages", "system", "max_tokens", "temperature", "top_p", "stream", "metadata")
STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}


def register(app: Flask, limiter: AILimiter, model: Model) -> None:
    """Serve Anthropic's messages."""

    @app.post("/v1/messages")
    @takes(reader(names_of(model)))
    @limiter.limit_by_plan()
    def messages(call: Call) -> ResponseReturnValue:
        deltas = model.stream(call)
        if call.stream:
            return sse.stream(limiter, deltas, lambda metered: write(metered, call.model))
        answer = whole(deltas)
        sse.record(limiter, answer.usage)
        content = [{"type": "text", "text": answer.text}]
        return jsonify(message(call.model, answer.usage, content, STOP_REASONS[answer.finish_reason]))


def reader(served: Sequence[str]) -> Callable[[Body], Call]:
    """Reads the body of a message for one of the ``served`` models."""

    def read(body: Body) -> Call:
        refuse_unknown(body, FIELDS)
        model = read_model(body, served)
        conversation = (*read_system(body), *read_messages(body, ROLES))
        require_short(conversation, "messages")
        return Call(
            model=model,
            messages=conversation,
            max_tokens=read_max_tokens(body, "max_tokens"),
            temperature=read_number(body, "temperature", low=0, high=1, default=DEFAULT_TEMPERATURE),
            top_p=read_number(body, "top_p", low=0, high=1, default=DEFAULT_TOP_P),
            stream=read_flag(body, "stream"),
        )

    return read


def read_system(body: Body) -> tuple[Message, ...]:
    """The system prompt, which stands beside the messages in this format."""
    system = body.get("system")
    return () if system is None else (Message("system", read_text(system, "system")),)


def message(model_name: str, usage: Usage, content: list[dict[str, str]], stop_reason: str | None) -> dict[str, object]:
    """An answer, whole or about to begin."""
    return {
        "id": f"msg_{secrets.token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "model": model_name,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens},
    }


def write(deltas: Iterator[Delta], model_name: str) -> Iterator[str]:
    """Write the events of one text block between the message's start and stop."""
    for count, delta in enumerate(deltas):
        if count == 0:
            yield _event("message_start", message=message(model_name, delta.usage, [], None))
            yield _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        if delta.text:
            yield _event("content_block_delta", index=0, delta={"type": "text_delta", "text": delta.text})
        if delta.finish_reason is not None:
            stop = {"stop_reason": STOP_REASONS[delta.finish_reason], "stop_sequence": None}
            usage = {"input_tokens": delta.usage.input_tokens, "output_tokens": delta.usage.output_tokens}
            yield _event("content_block_stop", index=0)
            yield _event("message_delta", delta=stop, usage=usage)
    yield _event("message_stop")


def _event(kind: str, **fields: object) -> str:
    return sse.event({"type": kind, **fields}, name=kind)
