"""Good answers as OpenAI's API writes them; Azure's are the same."""

import struct
from base64 import b64encode
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

from .server_sent import event
from .words import Piece, Said

_FINISH = {"stop": "stop", "length": "length", "filter": "content_filter"}
_USUAL_DIMENSIONS = 8
_MOST_DIMENSIONS = 4096
_DONE = Piece(b"data: [DONE]\n\n")


def chat(said: Said, body: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG001  as all answers
    """Answer ``/chat/completions``."""
    message = {"role": "assistant", "content": "".join(said.words), "refusal": None}
    choices = [
        {"index": index, "message": message, "logprobs": None, "finish_reason": _FINISH[said.finish]}
        for index in range(said.asked.many)
    ]
    usage = _chat_usage(said)
    return _completion(said, "chat.completion") | {"choices": choices} | ({} if usage is None else {"usage": usage})


def chat_events(said: Said, body: Mapping[str, Any]) -> list[Piece]:
    """Answer ``/chat/completions`` as a stream, an event a word."""
    options = body.get("stream_options")
    with_usage = isinstance(options, dict) and options.get("include_usage") is True
    common = _completion(said, "chat.completion.chunk") | ({"usage": None} if with_usage else {})

    def chunk(index: int, delta: dict[str, str], finish: str | None = None, tokens: int = 0) -> Piece:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return event(common | {"choices": [choice]}, tokens=tokens)

    answers = range(said.asked.many)
    pieces = [chunk(index, {"role": "assistant", "content": ""}) for index in answers]
    pieces += [chunk(index, {"content": word}, tokens=1) for word in said.words for index in answers]
    pieces += [chunk(index, {}, _FINISH[said.finish]) for index in answers]
    usage = _chat_usage(said)
    if with_usage and usage is not None:
        pieces.append(event(common | {"choices": [], "usage": usage}))
    return [*pieces, _DONE]


def response(said: Said, body: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Answer ``/responses``."""
    content = {"type": "output_text", "text": "".join(said.words), "annotations": [], "logprobs": []}
    is_whole = said.finish == "stop"
    status = "completed" if is_whole else "incomplete"
    reason = {"length": "max_output_tokens", "filter": "content_filter"}.get(said.finish)
    message = {"type": "message", "id": f"msg_{said.number}", "status": status, "role": "assistant"}
    return _response(said, status) | {
        "incomplete_details": None if is_whole else {"reason": reason},
        "output": [message | {"content": [content]}],
        "usage": _response_usage(said),
    }


def response_events(said: Said, body: Mapping[str, Any]) -> list[Piece]:
    """Answer ``/responses`` as a stream, an event a word."""
    whole = response(said, body)
    place = {"item_id": f"msg_{said.number}", "output_index": 0, "content_index": 0}
    told: list[tuple[str, dict[str, Any]]] = [("response.created", {"response": _response(said, "in_progress")})]
    told += [("response.output_text.delta", place | {"delta": word, "logprobs": []}) for word in said.words]
    told.append((f"response.{whole['status']}", {"response": whole}))
    return [
        event({"type": name, "sequence_number": number} | data, name, tokens=int(name.endswith("delta")))
        for number, (name, data) in enumerate(told)
    ]


def embeddings(said: Said, body: Mapping[str, Any]) -> dict[str, Any]:
    """Answer ``/embeddings``: equal texts have equal vectors, of length 1."""
    wanted = body.get("dimensions")
    dimensions = min(wanted, _MOST_DIMENSIONS) if type(wanted) is int and wanted > 0 else _USUAL_DIMENSIONS
    vectors = [_vector(" ".join(words), dimensions) for words in said.asked.inputs]
    is_packed = body.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if is_packed else vector}
        for index, vector in enumerate(vectors)
    ]
    told = said.usage
    usage = {} if told is None else {"usage": {"prompt_tokens": told[0], "total_tokens": told[0]}}
    return {"object": "list", "data": data, "model": said.asked.model} | usage


def models(names: Iterable[str], created: int) -> dict[str, Any]:
    """Answer ``/models``, to OpenAI's clients and to Anthropic's."""
    data = [{"id": name, "object": "model", "created": created, "owned_by": "fake", "type": "model"} for name in names]
    return {"object": "list", "data": data, "has_more": False}


def _completion(said: Said, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{said.number}", "object": kind, "created": said.created, "model": said.asked.model}


def _chat_usage(said: Said) -> dict[str, int] | None:
    told = said.usage
    if told is None:
        return None
    return {"prompt_tokens": told[0], "completion_tokens": told[1], "total_tokens": sum(told)}


def _response(said: Said, status: str) -> dict[str, Any]:
    return {
        "id": f"resp_{said.number}",
        "object": "response",
        "created_at": said.created,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": said.asked.model,
        "output": [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": None,
    }


def _response_usage(said: Said) -> dict[str, Any] | None:
    told = said.usage
    if told is None:
        return None
    return {
        "input_tokens": told[0],
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": told[1],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": sum(told),
    }


def _vector(text: str, dimensions: int) -> list[float]:
    digests = (blake2b(text.encode("utf-8", "replace"), salt=b"%d" % place) for place in range(-(-dimensions // 64)))
    numbers = [byte - 127.5 for byte in b"".join(each.digest() for each in digests)[:dimensions]]
    length = sum(number * number for number in numbers) ** 0.5
    return [number / length for number in numbers]


def _packed(vector: list[float]) -> str:
    return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
