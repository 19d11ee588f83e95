"""The usage that a model server reports in its JSON answer.

======================= ================================================================== =====================
API                     fields                                                             input means
======================= ================================================================== =====================
OpenAI chat, completion ``usage.prompt_tokens``, ``completion_tokens``,                    cached ones included
and embeddings          ``prompt_tokens_details.cached_tokens``
OpenAI Responses        ``usage.input_tokens``, ``output_tokens``,                         cached ones included
                        ``input_tokens_details.cached_tokens``
Anthropic Messages      ``usage.input_tokens``, ``cache_creation_input_tokens``,           cached ones apart
                        ``cache_read_input_tokens``, ``output_tokens``
Ollama                  ``prompt_eval_count``, ``eval_count``                              evaluated ones only
======================= ================================================================== =====================

Sources: the OpenAI API reference (objects chat.completion, completion, embeddings, response), Anthropic's "Prompt
caching" page (total input is the sum of the three), Ollama's ``docs/api.md``.
"""

from typing import Any

from .usage import MAX_TOKENS, Usage

_ANTHROPIC_CACHE = ("cache_creation_input_tokens", "cache_read_input_tokens")


def read_usage(payload: object) -> Usage | None:
    """The usage in a decoded JSON answer, or None if it reports none that can be believed. Never raises.

    A report with a negative, fractional or otherwise absurd number in it is worth nothing as a whole. An explicit
    zero is a report.
    """
    if not isinstance(payload, dict):
        return None
    try:
        if isinstance(payload.get("usage"), dict):
            return _read(payload["usage"])
        return _read_ollama(payload) if "eval_count" in payload else None
    except ValueError:
        return None


def _read(report: dict[str, Any]) -> Usage | None:
    if "prompt_tokens" in report:
        prompt = _count(report, "prompt_tokens")
        cached = _cached(report.get("prompt_tokens_details"))
        return _checked(report, prompt, "completion_tokens", cached)
    if "input_tokens" not in report:
        return None
    given = _count(report, "input_tokens")
    if not any(name in report for name in _ANTHROPIC_CACHE):
        return _checked(report, given, "output_tokens", _cached(report.get("input_tokens_details")))
    created, read = (0 if report.get(name) is None else _count(report, name) for name in _ANTHROPIC_CACHE)
    return _checked(report, given + created + read, "output_tokens", read)


def _read_ollama(payload: dict[str, Any]) -> Usage:
    prompt = _count(payload, "prompt_eval_count") if "prompt_eval_count" in payload else 0
    return Usage.checked(prompt, _count(payload, "eval_count"))


def _checked(report: dict[str, Any], inputs: int, outputs: str, cached: int) -> Usage | None:
    if outputs in report:
        return Usage.checked(inputs, _count(report, outputs), cached)
    # Embeddings generate nothing and say so by a total alone.
    return Usage.checked(inputs, _count(report, "total_tokens") - inputs, cached) if "total_tokens" in report else None


def _cached(details: object) -> int:
    if details is None:
        return 0
    if not isinstance(details, dict):
        raise ValueError("no object of details")  # noqa: TRY004  read_usage turns it into None
    return 0 if details.get("cached_tokens") is None else _count(details, "cached_tokens")


def _count(report: dict[str, Any], name: str) -> int:
    value = report[name]
    if type(value) is not int or not 0 <= value <= MAX_TOKENS:
        raise ValueError(name)
    return value
