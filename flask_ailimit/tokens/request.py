"""From a decoded JSON request body to the tokens it will use, before it is served.

Bodies of OpenAI's chat completions, completions, embeddings and Responses and of Anthropic's Messages are understood,
and whatever else uses their field names.
"""

from dataclasses import dataclass
from typing import Any, Final

from .counter import TokenCounter
from .output import json_text
from .usage import MAX_TOKENS, Usage

MESSAGE_TOKENS: Final = 3
"""What each message adds to its text, and what priming the reply adds once; a name adds 1 more. From the OpenAI
cookbook, "How to count tokens with tiktoken" (gpt-4o, gpt-4, gpt-3.5-turbo)."""

IMAGE_TOKENS: Final = 1600
"""For an image, a file or a sound, whose size is not looked at. Our choice: the most that an image costs with Claude
(Anthropic's "Vision" page: width x height / 750, scaled down to some 1600), and more than the 1105 of gpt-4o's largest
(OpenAI's "Images and vision" page: 85 + 170 for each of six tiles)."""

LOW_DETAIL_IMAGE_TOKENS: Final = 85
"""For an image with ``detail: low`` (OpenAI's "Images and vision" page, gpt-4o)."""

_MAX_OUTPUT = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_CHOICES = ("best_of", "n")
_PROMPT = ("input", "instructions", "messages", "prompt", "suffix", "system")
_SCHEMAS = ("functions", "response_format", "tools")
# The last first, because a stack is read from its end.
_INSIDE = (
    "tool_calls",
    "title",
    "thinking",
    "text",
    "summary",
    "role",
    "refusal",
    "reasoning_content",
    "output",
    "name",
    "function_call",
    "function",
    "context",
    "content",
    "arguments",
)
_IMAGES = ("image", "image_url", "input_image")
_ATTACHMENTS = ("audio", "document", "file", "input_audio", "input_file", "input_video", "video", "video_url")

_INTEGERS = frozenset({int})

# A certain share of an estimated count: no text was found whose estimate is four times its tokens, save for
# characters repeated on and on.
_CERTAIN_SHARE = 4


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a request may use.

    Attributes:
        usage: What to reserve.
        least: What it asks for even if every guess was too high. If this doesn't fit a limit, it never will.
    """

    usage: Usage
    least: Usage


def estimate_request(body: object, *, counter: TokenCounter, default_output_tokens: int) -> Estimate:
    """Estimate what a request with this body will use. Never raises, whatever JSON the body is.

    The output is the largest valid of ``max_tokens``, ``max_completion_tokens`` and ``max_output_tokens``, for each of
    ``n`` (or ``best_of``) choices and for each prompt in a list of them. Values that are no whole number from 1 to
    2**53 - 1 are passed over: it is the app that refuses them.

    Args:
        body: The decoded body; anything but a dict has no text and no options.
        counter: Counts the text. An inexact counter gets all texts in one, joined by line breaks.
        default_output_tokens: Output of a choice if the body names no maximum. An embedding generates nothing, and its
            body can't be told from others for sure, so pass 0 on its route.

    Returns:
        In ``least`` are exact counts, token ids and the client's own maximum; of an estimated count a quarter, and
        of defaults and flat prices nothing.
    """
    fields = body if isinstance(body, dict) else {}
    prompt = _Prompt()
    for name in _PROMPT:
        if name in fields:
            prompt.add(fields[name])
    prompt.texts += [json_text(fields[name]) for name in _SCHEMAS if fields.get(name)]
    overhead = _overhead(fields.get("messages")) + _overhead(fields.get("input"))

    counted = sum(map(counter, prompt.texts)) if counter.exact else counter("\n".join(prompt.texts))
    certain = counted if counter.exact else counted // _CERTAIN_SHARE
    choices = max(_valid(fields, _CHOICES), 1) * _prompts(fields.get("prompt"))
    maximum = _valid(fields, _MAX_OUTPUT)
    return Estimate(
        usage=Usage.clamped(
            counted + prompt.token_ids + prompt.flat + overhead, (maximum or default_output_tokens) * choices
        ),
        least=Usage.clamped(certain + prompt.token_ids, maximum * choices),
    )


class _Prompt:
    """The texts of a prompt, and what is in it besides text."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.token_ids = 0
        self.flat = 0

    def add(self, value: object) -> None:
        # A stack and not recursion, because JSON may be nested deeper than Python's stack.
        stack = [value]
        while stack:
            node: Any = stack.pop()
            if isinstance(node, str):
                self.texts.append(node)
            elif not node:
                continue
            elif isinstance(node, dict):
                stack.extend(self._part(node))
            elif isinstance(node, list):
                if type(node[0]) is int and set(map(type, node)) == _INTEGERS:
                    self.token_ids += len(node)
                else:
                    stack.extend(reversed(node))

    def _part(self, part: dict[str, Any]) -> list[Any]:
        """Count what a message, an item or a part of one is besides text. Answers where its texts are."""
        kind = part.get("type")
        if kind is None:
            pass
        elif kind in _IMAGES:
            self.flat += LOW_DETAIL_IMAGE_TOKENS if _detail(part) == "low" else IMAGE_TOKENS
        elif kind in _ATTACHMENTS:
            source = part.get("source")
            if isinstance(source, dict) and source.get("type") in ("content", "text"):
                return [part.get("title"), part.get("context"), source.get("content"), source.get("data")]
            self.flat += IMAGE_TOKENS
        elif kind == "tool_use":
            self.texts.append(json_text(part.get("input")))
        return [part[name] for name in _INSIDE if name in part]


def _detail(image: dict[str, Any]) -> object:
    nested = image.get("image_url")
    return nested.get("detail") if isinstance(nested, dict) else image.get("detail")


def _overhead(messages: object) -> int:
    if not isinstance(messages, list):
        return 0
    each = [MESSAGE_TOKENS + ("name" in message) for message in messages if isinstance(message, dict)]
    return sum(each) + MESSAGE_TOKENS if each else 0


def _prompts(prompt: object) -> int:
    """How many prompts a completion is asked for: a list of texts, or of lists of token ids, is so many."""
    return max(1, sum(isinstance(each, str | list) for each in prompt)) if isinstance(prompt, list) else 1


def _valid(fields: dict[Any, Any], names: tuple[str, ...]) -> int:
    """The largest of the fields that is a whole number from 1 to 2**53 - 1; 0 if none is."""
    largest = 0
    for name in names:
        value = fields.get(name)
        if type(value) is int and largest < value <= MAX_TOKENS:
            largest = value
    return largest
