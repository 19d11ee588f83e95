"""Which answers are whole: the model said all that it wanted to, and all of it has come."""

from collections.abc import Mapping
from typing import Any, Final

from flask_ailimit.tokens.media import is_json
from flask_ailimit.tokens.payload import DONE, decode_json
from flask_ailimit.tokens.splitting import LONGEST, EventStream

LONGEST_ANSWER: Final = LONGEST
"""Bytes. A longer answer is not looked at."""

_OK = 200
_FINISHED = "stop"
_STOPPED: Final = frozenset({"end_turn", "stop_sequence"})
_REFUSED_OR_ASKED_FOR_TOOLS = ("refusal", "tool_calls", "function_call")


def is_whole(status: int, headers: Mapping[str, str], body: bytes, is_stream: bool) -> bool:
    """Whether an answer may stand for the same call made again. Never raises.

    It was not cut by a limit, a filter or the network, nor does it refuse, fail or ask for a tool.

    Args:
        status: The HTTP status.
        headers: By names in lower case.
        body: All that has come, decoded.
        is_stream: Whether an event stream was asked for.
    """
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if status != _OK or len(body) > LONGEST_ANSWER:
        return False
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return False
    if is_stream:
        return media_type == "text/event-stream" and _is_whole_stream(body)
    return is_json(media_type) and _is_whole_document(decode_json(text))


def _is_whole_document(answer: object) -> bool:
    if not isinstance(answer, dict) or answer.get("error"):
        return False
    if "choices" in answer:
        choices = _objects(answer["choices"])
        return bool(choices) and all(each.get("finish_reason") == _FINISHED and _says(each) for each in choices)
    if answer.get("type") == "message":
        return _is_stopped(answer.get("stop_reason"))
    if answer.get("object") == "response":
        return _is_completed(answer)
    embeddings = _objects(answer.get("data"))
    return bool(embeddings) and all(each.get("embedding") for each in embeddings)


def _is_whole_stream(body: bytes) -> bool:
    *data, last = EventStream().split(body + b"\n\n") or [b""]  # The blank line after the last may have been left out.
    events = [decode_json(each.decode()) for each in data]
    if last != DONE:
        events.append(decode_json(last.decode()))
    if not all(isinstance(event, dict) and _is_no_failure(event) for event in events):
        return False
    some = _objects(events)
    if last == DONE:
        return _all_finish(some)
    end = some[-1].get("type") if some else None
    if end == "message_stop":
        deltas = [_object(event.get("delta")) for event in some if event.get("type") == "message_delta"]
        return bool(deltas) and _is_stopped(deltas[-1].get("stop_reason"))
    return end == "response.completed" and _is_completed(_object(some[-1].get("response")))


def _is_no_failure(event: dict[str, Any]) -> bool:
    return not event.get("error") and event.get("type") not in ("error", "response.failed", "response.incomplete")


def _all_finish(events: list[dict[str, Any]]) -> bool:
    """Whether each choice that has begun has finished."""
    finished: dict[object, object] = {}
    for event in events:
        for choice in _objects(event.get("choices")):
            index, reason = repr(choice.get("index", 0)), choice.get("finish_reason")
            finished[index] = reason or finished.get(index)
            if not _says(choice):
                return False
    return bool(finished) and all(reason == _FINISHED for reason in finished.values())


def _says(choice: dict[str, Any]) -> bool:
    """Whether a choice, or a part of one, neither fails nor refuses nor asks for a tool."""
    said = {**_object(choice.get("message")), **_object(choice.get("delta"))}
    return not choice.get("error") and not any(said.get(name) for name in _REFUSED_OR_ASKED_FOR_TOOLS)


def _is_stopped(reason: object) -> bool:
    return isinstance(reason, str) and reason in _STOPPED


def _is_completed(response: dict[str, Any]) -> bool:
    parts = [part for item in _objects(response.get("output")) for part in _objects(item.get("content"))]
    return (
        response.get("status") == "completed"
        and not response.get("error")
        and not response.get("incomplete_details")
        and all(part.get("type") != "refusal" for part in parts)
    )


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> list[dict[str, Any]]:
    """The items of a list; an item that is no object is an empty one."""
    return [_object(each) for each in value] if isinstance(value, list) else []
