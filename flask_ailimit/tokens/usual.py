"""The usual plain answer, one JSON object with OpenAI's or Anthropic's own report, read in a tenth of the time.

:class:`flask_ailimit.tokens.StreamMeter` reads every answer; this reads what most of them are, and says the same.
"""

from typing import Any

from .counter import CERTAIN_SHARE, TokenCounter, octets_of
from .messages import OCTETS_A_GUESSED_TOKEN
from .output import read_output_text
from .payload import decode_json
from .report import FIRST_MEMBERS
from .tier import TIER_BESIDE, tier_beside
from .transcript import TEXT_KEPT
from .usage import MAX_TOKENS, Usage

_CHAT = ("prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details")
_RESPONSES = ("input_tokens", "output_tokens", "input_tokens_details", "output_tokens_details")
_OF_INPUT = ("cached_tokens", "cache_write_tokens", "audio_tokens", "image_tokens")
_NO_INPUT = (0, 0, 0, 0)
_NOTHING: dict[str, Any] = {}
_TIERS = frozenset(TIER_BESIDE)
_UNUSUAL = FIRST_MEMBERS - {"usage", "choices"}


def read_usual(body: bytes, counter: TokenCounter) -> Usage | None:
    """The usage that a plain JSON answer reports; None if it takes a closer look to know. Never raises.

    Args:
        body: The whole body.
        counter: Counts the text seen, if it is exact.
    """
    answer = decode_json(body.decode("utf-8", "replace"))
    if not isinstance(answer, dict) or not _UNUSUAL.isdisjoint(answer):
        return None
    report, choices = answer.get("usage"), answer.get("choices", [])
    if not isinstance(report, dict) or not isinstance(choices, list):
        return None
    if any(not isinstance(choice, dict) or "usage" in choice for choice in choices):
        return None
    tier = "" if _TIERS.isdisjoint(answer) else tier_beside(answer)
    usage = _read(report, *(_CHAT if "prompt_tokens" in report else _RESPONSES), tier)
    if usage is None:
        return None
    covered = 0 if counter.exact else usage.output_tokens * CERTAIN_SHARE * OCTETS_A_GUESSED_TOKEN
    if len(body) <= covered or _covers(usage.output_tokens, covered, answer, counter):
        return usage
    return None


def _covers(output: int, octets: int, answer: dict[str, Any], counter: TokenCounter) -> bool:
    """Whether a report is certainly no less than the text seen."""
    text = read_output_text(answer)
    if not counter.exact:
        return octets >= octets_of(text)
    try:
        return len(text) <= TEXT_KEPT and counter(text) <= output
    except Exception:  # noqa: BLE001  an app's own counter
        return False


def _read(
    report: dict[str, Any], given: str, made: str, given_details: str, made_details: str, tier: str
) -> Usage | None:
    inputs, outputs = _count(report, given), _count(report, made)
    of_input, of_output = report.get(given_details), report.get(made_details)
    of_input, of_output = _NOTHING if of_input is None else of_input, _NOTHING if of_output is None else of_output
    if not isinstance(of_input, dict) or not isinstance(of_output, dict):
        return None
    cached, written, sound, pictures = [_count(of_input, name, 0) for name in _OF_INPUT] if of_input else _NO_INPUT
    parts = [_count(of_output, name, 0) for name in of_output]
    others = report.keys() - {given, made, given_details, made_details, "total_tokens"}
    if others or outputs < 1 or inputs < 0 or -1 in parts or sum(parts) > outputs:
        return None
    if cached < 0 or written < 0 or sound < 0 or pictures < 0 or cached + written > inputs or sound + pictures > inputs:
        return None
    total = inputs + outputs
    if not _count(report, "total_tokens", total) == total <= MAX_TOKENS:
        return None
    if not (of_input or of_output or tier):
        return Usage(inputs, outputs)
    get = of_output.get
    reasoning = max(get("reasoning_tokens") or 0, get("thinking_tokens") or 0)
    spoken, painted = get("audio_tokens") or 0, get("image_tokens") or 0
    # In the order of the fields, because keywords take twice as long.
    return Usage(inputs, outputs, cached, written, 0, sound, pictures, reasoning, spoken, painted, tier)


def _count(report: dict[str, Any], name: str, default: int = -1) -> int:
    """The number, the default if it isn't there, or -1 if it is none."""
    value = report.get(name)
    if value is None:
        return default
    return value if type(value) is int and value >= 0 else -1
