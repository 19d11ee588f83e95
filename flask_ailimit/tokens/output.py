"""The text that a model generated, in the JSON answers and stream events of the common APIs."""

import json
from typing import Any

_GENERATED = frozenset(
    {
        "arguments",
        "choices",
        "content",
        "delta",
        "function",
        "function_call",
        "message",
        "output",
        "partial_json",
        "reasoning",
        "reasoning_content",
        "refusal",
        "response",
        "summary",
        "text",
        "thinking",
        "token",
        "tool_calls",
    }
)
_KNOWN_EVENT = ("choices", "done", "error", "object", "type", "usage")


def read_output_text(payload: object) -> str:
    """The generated text of a plain answer: what to count when it reports no usage. Empty if none. Never raises.

    Understood are the answers of OpenAI's chat completions, completions and Responses, Anthropic's Messages and
    Ollama, tool calls and reasoning included, and objects such as ``{"text": "..."}``, ``{"output": "..."}`` and
    ``{"response": "..."}``.
    """
    pieces: list[str] = []
    # A stack and not recursion, because JSON may be nested deeper than Python's stack.
    stack = [payload] if isinstance(payload, dict) else []
    while stack:
        node: Any = stack.pop()
        if isinstance(node, str):
            pieces.append(node)
        elif isinstance(node, list):
            stack.extend(reversed(node))
        elif isinstance(node, dict):
            if "name" in node:
                pieces += _call(node)
            if "reasoning_content" in node and node.get("reasoning"):
                node = {**node, "reasoning_content": None}  # Some servers send it under both names.
            stack += [value for key, value in reversed(node.items()) if key in _GENERATED and value]
    return "".join(pieces)


def read_event_text(event: object) -> str:
    """The text that one event of a stream adds. Empty if it adds none. Never raises.

    Events of the Responses API other than ``response.*.delta`` repeat what the deltas said. From an object of no known
    API every string on its top level is taken, so that output is never taken for nothing.
    """
    if isinstance(event, str):
        return event
    if not isinstance(event, dict):
        return ""
    kind = event.get("type")
    if isinstance(kind, str) and kind.startswith("response.") and not kind.endswith(".delta"):
        return ""
    text = read_output_text(event)
    if text or any(key in event for key in _KNOWN_EVENT):
        return text
    return "".join(value for value in event.values() if isinstance(value, str))


def _call(node: dict[str, Any]) -> list[str]:
    """What is generated of a call to a tool besides its ``arguments``."""
    if not isinstance(node["name"], str) or not ("arguments" in node or "input" in node):
        return []
    return [node["name"], json_text(node["input"])] if node.get("type") == "tool_use" else [node["name"]]


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
