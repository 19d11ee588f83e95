"""``POST /predict``: the plainest door to the model, one prompt in and one text out."""

from collections.abc import Iterator

from flask import Flask, jsonify
from flask.typing import ResponseReturnValue

from flask_ailimit import AILimiter

from . import sse
from .errors import ApiError
from .model import DEFAULT_TEMPERATURE, Call, Delta, Message, Model, Usage, whole
from .validation import Body, read_flag, read_max_tokens, read_number, refuse_unknown, require_short, takes

FIELDS = ("prompt", "max_tokens", "temperature", "stream")


def register(app: Flask, limiter: AILimiter, model: Model) -> None:
    """Serve ``POST /predict``."""

    @app.post("/predict")
    @takes(read)
    @limiter.limit_by_plan()
    def predict(call: Call) -> ResponseReturnValue:
        deltas = model.stream(call)
        if call.stream:
            return sse.stream(limiter, deltas, write)
        answer = whole(deltas)
        sse.record(limiter, answer.usage)
        return jsonify(text=answer.text, finish_reason=answer.finish_reason, usage=usage_json(answer.usage))


def read(body: Body) -> Call:
    """Read ``{"prompt": "...", "max_tokens": 64, "temperature": 0.2, "stream": false}``; only the prompt is needed."""
    refuse_unknown(body, FIELDS)
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise ApiError(400, "invalid_prompt", "prompt must be a text that isn't blank.", param="prompt")
    messages = (Message("user", prompt),)
    require_short(messages, "prompt")
    return Call(
        messages=messages,
        max_tokens=read_max_tokens(body, "max_tokens"),
        temperature=read_number(body, "temperature", low=0, high=2, default=DEFAULT_TEMPERATURE),
        stream=read_flag(body, "stream"),
    )


def write(deltas: Iterator[Delta]) -> Iterator[str]:
    """Write ``{"text": ...}`` events, one with the finish reason and the usage, then ``[DONE]``."""
    for delta in deltas:
        if delta.text:
            yield sse.event({"text": delta.text})
        if delta.finish_reason is not None:
            yield sse.event({"finish_reason": delta.finish_reason, "usage": usage_json(delta.usage)})
    yield sse.DONE


def usage_json(usage: Usage) -> dict[str, int]:
    """The counts by their plain names."""
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }
