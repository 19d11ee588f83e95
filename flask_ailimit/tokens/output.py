"""The text that a model generated, in the JSON answers and stream events of the common APIs."""

import json
import re
from collections.abc import Set as AbstractSet
from typing import Any, Final

from .envelope import is_known, poses_as_report
from .text_places import (
    ANSWERS,
    BESIDE_TEXT,
    GENERATED,
    METADATA,
    NOT_WRITTEN,
    ONLY_OBJECTS,
    REPEATS,
    RESULTS,
    TOOL_CALLS,
    WITHOUT_TEXT,
)

_LONG: Final = 256
_BASE64 = re.compile(r"[A-Za-z0-9+/_=\r\n-]+")
_BYTES = re.compile(
    r"audio|b64|base64|blob|bytes|data|embedding|encrypted|file|image|mask|photo|picture|redacted|result$|signature"
    r"|thumbnail|vector|video"
)
# How PNG, JPEG, GIF, WebP and WAV, MP3, Ogg, FLAC, PDF, zip, MP4, TIFF and WebM begin in base64.
_MEDIA = (
    *("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "SUQz", "//u", "//M", "//I", "T2dnUw", "ZkxhQw", "JVBERi", "UEsDB"),
    *("AAAA", "SUkq", "TU0AK", "GkXfo"),
)


def read_output_text(payload: object) -> str:
    """The generated text of a plain answer: what to count when it reports no usage. Empty if none. Never raises.

    Understood are the answers of OpenAI's chat completions, completions, Responses, images and audio, Anthropic's
    Messages, Ollama, Gemini, Bedrock Converse, Cohere, Text Generation Inference and llama.cpp, tool calls and
    reasoning included, and objects such as ``{"text": "..."}``, ``{"output": "..."}`` and ``{"response": "..."}``.
    Where none of these has text, every string is taken: of an object of no known API all of them, of one that is
    known those in the members with its answer. Pictures, sound, embeddings, what is encrypted, what tools
    answered, and errors are no text.
    """
    if isinstance(payload, list):
        return "".join(read_output_text(item) for item in payload if isinstance(item, dict))
    if not isinstance(payload, dict):
        return ""
    pieces = _generated(payload)
    if is_known(payload):
        answer = {name: payload[name] for name in ANSWERS if name in payload}
        return "".join(pieces) if any(pieces) else _strings_of(answer, BESIDE_TEXT)
    if any(pieces):
        return "".join(piece for piece in pieces if not is_media(piece))
    return "" if payload.get("error") else _strings_of(payload)


def read_list_text(payload: list[Any]) -> str:
    """The strings in a list of no known API. Numbers, as in embeddings, are no text."""
    return _strings_of({"": payload})


def read_event_text(event: object) -> str:
    """The text that one event of a stream adds. Empty if it adds none. Never raises.

    Events of the Responses API such as ``response.*.done`` repeat what the deltas said. From an object of no known API,
    and from one of a known API that has no text where that API has it, every string is taken, so that output is never
    taken for nothing. If it has a report or an end in it that no provider writes there, the model wrote all of it.
    """
    if isinstance(event, str):
        return event
    if not isinstance(event, dict):
        return ""
    kind = event.get("type", event.get("event_type"))
    if isinstance(kind, str) and WITHOUT_TEXT.match(kind):
        return ""
    name = event.get("object")
    if isinstance(name, str) and REPEATS.match(name):
        return ""
    if poses_as_report(event):
        return json_text(event)
    if isinstance(event.get("token"), dict) and "generated_text" in event:
        event = {**event, "generated_text": None}  # Text Generation Inference ends with all of it once more.
    text = read_output_text(event)
    return text if text or not is_known(event) else _strings_of(event, BESIDE_TEXT)


def _generated(payload: dict[str, Any]) -> list[str]:
    """The strings in the places where the known APIs have a model's text."""
    pieces: list[str] = []
    # A stack and not recursion, because JSON may be nested deeper than Python's stack.
    stack: list[Any] = [payload]
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            pieces.append(node)
        elif isinstance(node, list):
            stack.extend(reversed(node))
        elif isinstance(node, dict):
            if "type" in node:
                node = _written(node)
            if "name" in node:
                pieces += _call(node)
            if "code" in node and isinstance(node["code"], str) and _is_code(node):
                pieces.append(node["code"])
            if "reasoning_content" in node and node.get("reasoning"):
                node = {**node, "reasoning_content": None}  # Some servers send it under both names.
            stack += [value for key, value in reversed(node.items()) if key in GENERATED and _may_hold(key, value)]
    return pieces


def _may_hold(name: str, value: object) -> bool:
    if not value or name not in ONLY_OBJECTS:
        return bool(value)
    if isinstance(value, list):
        return isinstance(value[0], dict)
    return isinstance(value, dict)


def _written(node: dict[str, Any]) -> dict[str, Any]:
    """The item without what a tool answered, and without what is encrypted: the model did not write these."""
    kind = node["type"]
    if not isinstance(kind, str):
        return node
    if NOT_WRITTEN.match(kind):
        return {}
    return {**node, **dict.fromkeys(RESULTS[kind])} if kind in RESULTS else node


def _is_code(node: dict[str, Any]) -> bool:
    """Whether it is code that a model has a provider run: OpenAI's code interpreter, Gemini's ``executableCode``."""
    return node.get("type") == "code_interpreter_call" or "language" in node


def _call(node: dict[str, Any]) -> list[str]:
    """What is generated of a call to a tool besides its ``arguments``."""
    if not isinstance(node["name"], str):
        return []
    given = node.get("args")  # Gemini's
    if node.get("type") in TOOL_CALLS or "toolUseId" in node:
        given = node.get("input")
    if given is not None:
        return [node["name"], given if isinstance(given, str) else json_text(given)]
    return [node["name"]] if "arguments" in node or "input" in node else []


def _strings_of(payload: dict[str, Any], without: AbstractSet[str] = METADATA) -> str:
    """Every string in an object, except in members of these names, and without bytes in base64."""
    found: list[str] = []
    stack: list[tuple[str, Any]] = [("", payload)]
    while stack:
        name, node = stack.pop()
        if isinstance(node, str):
            if not (is_media(node) or (_BYTES.search(name.lower()) and _is_base64(node))):
                found.append(node)
        elif isinstance(node, list):
            stack.extend((name, item) for item in reversed(node))
        elif isinstance(node, dict):
            if "type" in node:
                node = _written(node)
            stack += [(key, value) for key, value in reversed(node.items()) if key not in without]
    return "".join(found)


def is_media(text: str) -> bool:
    """Whether a string is a picture, a sound or a file: a data URL, or base64 that begins as one of them does.

    What follows must be base64 to its end, and 256 characters at least: so no text passes for a picture that only
    begins as one.
    """
    if len(text) < _LONG:
        return False
    if text.startswith("data:"):
        head = text.find(";base64,", 0, _LONG)
        return head > 0 and _BASE64.fullmatch(text, head + len(";base64,")) is not None
    return text.startswith(_MEDIA) and _is_base64(text)


def _is_base64(text: str) -> bool:
    return len(text) >= _LONG and _BASE64.fullmatch(text) is not None


def json_text(value: object) -> str:
    """The value as compact JSON; of a value too deep or too large to write, its strings."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (RecursionError, TypeError, ValueError):
        return " ".join(_strings(value))


def _strings(value: object) -> list[str]:
    found: list[str] = []
    stack = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            found.append(node)
        elif isinstance(node, list):
            stack.extend(node)
        elif isinstance(node, dict):
            stack.extend(node)
            stack.extend(node.values())
    return found
