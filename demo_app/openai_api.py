"""``POST /v1/chat/completions`` and ``GET /v1/models`` as OpenAI's clients expect them.

Format: https://platform.openai.com/docs/api-reference/chat
"""

import secrets
import time
from collections.abc import Callable, Iterator, Sequence

from flask import Flask, jsonify
from flask.typing import ResponseReturnValue

from flask_ailimit import AILimiter

from . import sse
from .errors import ApiError
from .model import DEFAULT_TEMPERATURE, DEFAULT_TOP_P, Answer, Call, Delta, Model, Usage, names_of, whole
from .validation import (
    Body,
    read_flag,
    read_max_tokens,
    read_messages,
    read_model,
    read_number,
    read_one,
    refuse_unknown,
    takes,
)

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
FIELDS = (
    "model",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "best_of",
    "temperature",
    "top_p",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "user",
)
LARGEST_SEED = 2**32 - 1
MOST_STOPS = 4
LONGEST_STOP = 64


def register(app: Flask, limiter: AILimiter, model: Model) -> None:
    """Serve OpenAI's chat completions."""

    @app.post("/v1/chat/completions")
    @takes(reader(names_of(model)))
    @limiter.limit_by_plan()
    def chat_completions(call: Call) -> ResponseReturnValue:
        deltas = model.stream(call)
        if call.stream:
            return sse.stream(limiter, deltas, lambda metered: write(metered, call))
        answer = whole(deltas)
        sse.record(limiter, answer.usage)
        return jsonify(completion(answer, call.model))

    @app.get("/v1/models")
    def models() -> ResponseReturnValue:
        return jsonify(
            object="list",
            data=[
                {"id": name, "object": "model", "created": 0, "owned_by": "HuggingFaceTB"} for name in names_of(model)
            ],
        )


def reader(served: Sequence[str]) -> Callable[[Body], Call]:
    """Reads the body of a chat completion for one of the ``served`` models."""

    def read(body: Body) -> Call:
        refuse_unknown(body, FIELDS)
        model = read_model(body, served)
        read_one(body, "n", "best_of")
        return Call(
            model=model,
            messages=read_messages(body, ROLES),
            max_tokens=read_max_tokens(body, "max_completion_tokens", "max_tokens"),
            temperature=read_number(body, "temperature", low=0, high=2, default=DEFAULT_TEMPERATURE),
            top_p=read_number(body, "top_p", low=0, high=1, default=DEFAULT_TOP_P),
            seed=read_seed(body),
            stop=read_stop(body),
            stream=read_flag(body, "stream"),
            include_usage=read_include_usage(body),
        )

    return read


def read_seed(body: Body) -> int | None:
    """A whole number from 0 to ``LARGEST_SEED``, None if not there."""
    seed = body.get("seed")
    if seed is not None and (type(seed) is not int or not 0 <= seed <= LARGEST_SEED):
        raise ApiError(400, "seed_out_of_range", f"seed must be a whole number from 0 to {LARGEST_SEED}.", param="seed")
    return seed


def read_stop(body: Body) -> tuple[str, ...]:
    """The texts that end the answer: one, or a list of some."""
    stop = body.get("stop")
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if isinstance(stops, list) and len(stops) <= MOST_STOPS and all(_is_stop(one) for one in stops):
        return tuple(stops)
    message = f"stop must be up to {MOST_STOPS} texts of 1 to {LONGEST_STOP} characters."
    raise ApiError(400, "invalid_stop", message, param="stop")


def read_include_usage(body: Body) -> bool:
    """Whether the stream shall end with the counts."""
    options = body.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict) or not options.keys() <= {"include_usage"}:
        raise ApiError(
            400, "invalid_stream_options", 'stream_options must be {"include_usage": true}.', param="stream_options"
        )
    if not read_flag(body, "stream"):
        raise ApiError(400, "conflicting_fields", "stream_options needs stream: true.", param="stream_options")
    return read_flag(options, "include_usage", where="stream_options.")


def completion(answer: Answer, model_name: str) -> dict[str, object]:
    """A whole answer."""
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    return {
        **_head("chat.completion", model_name),
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}],
        "usage": _usage_json(answer.usage),
    }


def write(deltas: Iterator[Delta], call: Call) -> Iterator[str]:
    """Write chunks. Only a client that asked for the usage gets it, last and in a chunk without choices."""
    head = _head("chat.completion.chunk", call.model)
    no_usage: dict[str, object] = {"usage": None} if call.include_usage else {}

    def chunk(delta: dict[str, str], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return sse.event({**head, "choices": [choice], **no_usage})

    yield chunk({"role": "assistant", "content": ""})
    for delta in deltas:
        if delta.text:
            yield chunk({"content": delta.text})
        if delta.finish_reason is not None:
            yield chunk({}, delta.finish_reason)
            if call.include_usage:
                yield sse.event({**head, "choices": [], "usage": _usage_json(delta.usage)})
    yield sse.DONE


def _head(kind: str, model_name: str) -> dict[str, object]:
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": model_name,
    }


def _is_stop(text: object) -> bool:
    return isinstance(text, str) and 1 <= len(text) <= LONGEST_STOP


def _usage_json(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }
