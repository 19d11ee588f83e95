"""Which objects are an answer or an event of a provider's API, and not what a model or an app wrote."""

from typing import Any, Final

_OBJECTS = ("chat.completion", "embedding", "list", "response", "text_completion", "thread.")
_TYPES = frozenset(
    {
        "citation-end",
        "citation-start",
        "content-delta",
        "content-end",
        "content-start",
        "content_block_delta",
        "content_block_start",
        "content_block_stop",
        "error",
        "message-end",
        "message-start",
        "message_delta",
        "message_start",
        "message_stop",
        "ping",
        "tool-call-delta",
        "tool-call-end",
        "tool-call-start",
        "tool-plan-delta",
    }
)
_FAMILIES = ("image_edit.", "image_generation.", "response.", "speech.audio.", "transcript.text.")

# Members that are found together in the answers and events of one API and hardly anywhere else.
_TOGETHER: Final = tuple(
    map(
        frozenset,
        (
            ("candidates", "usageMetadata"),  # Gemini
            ("candidates", "responseId"),
            ("candidates", "modelVersion"),
            ("modelVersion", "usageMetadata"),
            ("responseId", "usageMetadata"),
            ("candidates", "usage_metadata"),
            ("details", "generated_text"),  # Text Generation Inference
            ("details", "token"),
            ("generated_text", "token"),
            ("content", "stop", "timings"),  # llama.cpp
            ("content", "stop", "tokens_predicted"),
            ("metrics", "output", "stopReason"),  # Bedrock Converse
            ("output", "stopReason", "usage"),
            ("generation", "generation_token_count"),  # Llama on Bedrock
            ("finish_reason", "message", "usage"),  # Cohere
            ("generation_id", "meta"),
            ("embeddings", "meta"),
            ("embeddings", "response_type"),
            ("meta", "results"),
            ("generations", "meta"),
            ("event_type", "is_finished"),
            ("embeddings", "model"),  # Ollama's embed
            ("embedding", "model"),
            ("created", "data"),  # Images
            ("content", "role", "stop_reason", "type"),  # Messages
            ("completion", "stop_reason"),
        ),
    )
)
_BEDROCK_EVENTS = frozenset(
    {"contentBlockDelta", "contentBlockStart", "contentBlockStop", "messageStart", "messageStop", "metadata"}
)
_REPORTS: Final = frozenset({"amazon-bedrock-invocationMetrics", "usage", "usageMetadata", "usage_metadata"})
_OLLAMA_OUTPUT = frozenset({"embeddings", "message", "response"})
_OLLAMA_ORIGIN = frozenset({"created_at", "eval_count", "model", "prompt_eval_count"})


def is_known(payload: dict[str, Any]) -> bool:
    """Whether the object has the members by which a provider's API is known."""
    if isinstance(payload.get("choices"), list) or _is_gemini(payload.get("candidates")):
        return True
    kind = payload.get("type")
    if isinstance(kind, str) and (kind in _TYPES or kind.startswith(_FAMILIES)):
        return True
    name = payload.get("object")
    if isinstance(name, str) and name.startswith(_OBJECTS):
        return True
    members = payload.keys()
    if is_ollama(payload) or (len(payload) == 1 and not _BEDROCK_EVENTS.isdisjoint(members)):
        return True
    return any(together <= members for together in _TOGETHER)


def _is_gemini(candidates: object) -> bool:
    return (
        isinstance(candidates, list)
        and bool(candidates)
        and isinstance(candidates[0], dict)
        and not candidates[0].keys().isdisjoint(("content", "finishReason"))
    )


def is_ollama(payload: dict[str, Any]) -> bool:
    """Whether it is an answer of Ollama or one of its lines."""
    members = payload.keys()
    if not isinstance(payload.get("done"), bool) or _OLLAMA_OUTPUT.isdisjoint(members):
        return False
    return isinstance(payload.get("response"), str) or not _OLLAMA_ORIGIN.isdisjoint(members)


def may_report(payload: dict[str, Any]) -> bool:
    """Whether a line or an event is believed to report usage: in a known envelope, or if it holds nothing else."""
    return is_known(payload) or payload.keys() <= _REPORTS


def poses_as_report(payload: dict[str, Any]) -> bool:
    """Whether a line or an event has a report or an end in it without the envelope of an API: a model wrote it."""
    return (isinstance(payload.get("usage"), dict) or payload.get("done") is True) and not may_report(payload)
