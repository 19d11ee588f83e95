"""The shapes of the reports of usage, each with the page that defines it."""

import re
from dataclasses import dataclass, field
from typing import Any, Final, Self

CACHED, WRITTEN, WRITTEN_1H = "cached_input_tokens", "cache_write_tokens", "cache_write_1h_tokens"
SOUND_IN, PICTURES_IN = "audio_input_tokens", "image_input_tokens"
THOUGHT, SOUND_OUT, PICTURES_OUT = "reasoning_tokens", "audio_output_tokens", "image_output_tokens"

_PATH = re.compile("[.:]")
_KINDS_OF_OUTPUT = (THOUGHT, SOUND_OUT, PICTURES_OUT)


@dataclass(frozen=True, eq=False)
class Shape:
    """Where a report stands, and what its members are called. Each is one of a kind, and so is a copy of it.

    Attributes:
        places: Where the report's object may be in an answer or event; of a list on the way, each item has one.
        inputs: Members whose sum is the input. Without the first of them the report says nothing of the input.
        outputs: Members whose sum is the output.
        total: The member with input and output together.
        kinds: Members with parts of the input or of the output, by the field of :class:`Usage`; of several the largest
            counts. What was written to a cache contains what was written for an hour. ``list:NAME`` are the items of
            a list that have this name, as Google lists modalities.
        page: What defines it.
        fractional: Whether whole numbers may be written as ``5.0``.
        listed: Whether a member may be a list of tokens in place of their number.
        parts: Members that are parts of the output and have nothing in common, so that their sum is none above it.
        members: All of them.
        kind_of: The field of those with a part.
        of_output: Those that say something of the output.
    """

    places: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    page: str
    total: str = ""
    kinds: tuple[tuple[str, tuple[str, ...]], ...] = ()
    fractional: bool = False
    listed: bool = False
    parts: tuple[str, ...] = ()

    members: tuple[str, ...] = field(init=False)
    kind_of: dict[str, str] = field(init=False)
    of_output: frozenset[str] = field(init=False)
    _found_in: dict[str, tuple[str, ...]] = field(init=False)
    """Members of objects and lists of details, by the name of the object or list; of the others none."""

    def __post_init__(self) -> None:
        kind_of = {name: kind for kind, names in self.kinds for name in names}
        of_output = {name for name, kind in kind_of.items() if kind in _KINDS_OF_OUTPUT}
        total = (self.total,) if self.total else ()
        members = tuple(dict.fromkeys((*self.inputs, *self.outputs, *self.parts, *total, *kind_of)))
        found_in: dict[str, tuple[str, ...]] = {}
        for name in members:
            first = _PATH.split(name)[0]
            found_in[first] = (*found_in.get(first, ()), name) if first != name else ()
        object.__setattr__(self, "members", members)
        object.__setattr__(self, "kind_of", kind_of)
        object.__setattr__(self, "of_output", frozenset(of_output.union(self.outputs, self.parts)))
        object.__setattr__(self, "_found_in", found_in)

    def values_in(self, report: dict[str, Any]) -> dict[str, Any]:
        """What a report says of each member.

        Raises:
            ValueError: Details are not in an object, or not in a list, or no numbers.
        """
        values = {}
        for first, names in self._found_in.items():
            value = report.get(first)
            if value is None:
                continue
            for name in names:
                values[name] = _in_details(value, name)
            if not names:
                values[first] = value
        return values

    def __deepcopy__(self, _: object) -> Self:
        return self


_OF_OUTPUT = ("reasoning_tokens", "text_tokens", "audio_tokens", "image_tokens")
_ANYWHERE = ("usage", "response.usage", "message.usage", "choices.usage", "x_groq.usage", "result.usage", "delta.usage")

SHAPES: Final = (
    Shape(  # With DeepSeek's two members, and in the places of Groq, of Moonshot's choices, of Workers AI.
        _ANYWHERE,
        ("prompt_tokens",),
        ("completion_tokens",),
        "https://platform.openai.com/docs/api-reference/chat/object",
        total="total_tokens",
        kinds=(
            (CACHED, ("prompt_tokens_details.cached_tokens", "prompt_cache_hit_tokens")),
            (WRITTEN, ("prompt_tokens_details.cache_write_tokens",)),
            (SOUND_IN, ("prompt_tokens_details.audio_tokens",)),
            (PICTURES_IN, ("prompt_tokens_details.image_tokens",)),
            (THOUGHT, ("completion_tokens_details.reasoning_tokens",)),
            (SOUND_OUT, ("completion_tokens_details.audio_tokens",)),
            (PICTURES_OUT, ("completion_tokens_details.image_tokens",)),
        ),
        parts=tuple(f"completion_tokens_details.{name}" for name in _OF_OUTPUT),
    ),
    Shape(
        ("usage", "choices.usage"),
        ("prompt_cache_miss_tokens", "prompt_cache_hit_tokens"),
        ("completion_tokens",),
        "https://api-docs.deepseek.com/guides/kv_cache",
        kinds=((CACHED, ("prompt_cache_hit_tokens",)),),
    ),
    Shape(  # Responses, images and audio of OpenAI, and Anthropic's Messages, whose three numbers add up.
        _ANYWHERE,
        ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"),
        ("output_tokens",),
        "https://platform.openai.com/docs/api-reference/responses/object, "
        "https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching",
        total="total_tokens",
        kinds=(
            (CACHED, ("cache_read_input_tokens", "input_tokens_details.cached_tokens")),
            (WRITTEN, ("cache_creation_input_tokens", "input_tokens_details.cache_write_tokens")),
            (WRITTEN_1H, ("cache_creation.ephemeral_1h_input_tokens",)),
            (SOUND_IN, ("input_tokens_details.audio_tokens", "input_token_details.audio_tokens")),
            (PICTURES_IN, ("input_tokens_details.image_tokens", "input_token_details.image_tokens")),
            (THOUGHT, ("output_tokens_details.reasoning_tokens", "output_tokens_details.thinking_tokens")),
            (SOUND_OUT, ("output_tokens_details.audio_tokens",)),
            (PICTURES_OUT, ("output_tokens_details.image_tokens",)),
        ),
        parts=tuple(f"output_tokens_details.{name}" for name in _OF_OUTPUT),
    ),
    Shape(
        (
            "usage.tokens",
            "usage.billed_units",
            "delta.usage.tokens",
            "delta.usage.billed_units",
            "meta.tokens",
            "meta.billed_units",
            "response.meta.tokens",
            "response.meta.billed_units",
        ),
        ("input_tokens",),
        ("output_tokens",),
        "https://docs.cohere.com/reference/chat",
        fractional=True,
    ),
    Shape(
        ("",),
        ("prompt_eval_count",),
        ("eval_count",),
        "https://github.com/ollama/ollama/blob/main/docs/api.md",
    ),
    Shape(
        ("usageMetadata",),
        ("promptTokenCount", "toolUsePromptTokenCount"),
        ("candidatesTokenCount", "thoughtsTokenCount"),
        "https://ai.google.dev/api/generate-content#UsageMetadata",
        total="totalTokenCount",
        kinds=(
            (CACHED, ("cachedContentTokenCount",)),
            (SOUND_IN, ("promptTokensDetails:AUDIO",)),
            (PICTURES_IN, ("promptTokensDetails:IMAGE",)),
            (THOUGHT, ("thoughtsTokenCount",)),
            (SOUND_OUT, ("candidatesTokensDetails:AUDIO",)),
            (PICTURES_OUT, ("candidatesTokensDetails:IMAGE",)),
        ),
    ),
    Shape(  # As Google's SDK for Python writes it.
        ("usage_metadata",),
        ("prompt_token_count", "tool_use_prompt_token_count"),
        ("candidates_token_count", "thoughts_token_count"),
        "https://ai.google.dev/api/generate-content#UsageMetadata",
        total="total_token_count",
        kinds=(
            (CACHED, ("cached_content_token_count",)),
            (SOUND_IN, ("prompt_tokens_details:AUDIO",)),
            (PICTURES_IN, ("prompt_tokens_details:IMAGE",)),
            (THOUGHT, ("thoughts_token_count",)),
            (SOUND_OUT, ("candidates_tokens_details:AUDIO",)),
            (PICTURES_OUT, ("candidates_tokens_details:IMAGE",)),
        ),
    ),
    Shape(
        ("usage", "metadata.usage"),
        ("inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens"),
        ("outputTokens",),
        "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html",
        total="totalTokens",
        kinds=(
            (CACHED, ("cacheReadInputTokens",)),
            (WRITTEN, ("cacheWriteInputTokens",)),
            (WRITTEN_1H, ("cacheDetails:1h",)),
        ),
    ),
    Shape(
        ("amazon-bedrock-invocationMetrics",),
        ("inputTokenCount",),
        ("outputTokenCount",),
        "https://docs.aws.amazon.com/bedrock/latest/userguide/inference-invoke.html",
    ),
    Shape(
        ("",),
        ("prompt_token_count",),
        ("generation_token_count",),
        "https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-meta.html",
    ),
    Shape(  # The prompt's tokens are a list, if they were asked for.
        ("details",),
        ("prefill",),
        ("generated_tokens",),
        "https://huggingface.co/docs/text-generation-inference/reference/api_reference",
        listed=True,
    ),
    Shape(
        ("details",),
        ("input_length",),
        ("generated_tokens",),
        "https://huggingface.co/docs/text-generation-inference/reference/api_reference",
    ),
    Shape(
        ("",),
        ("tokens_evaluated",),
        ("tokens_predicted",),
        "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
    ),
    Shape(
        ("timings",),
        ("prompt_n", "cache_n"),
        ("predicted_n",),
        "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
        kinds=((CACHED, ("cache_n",)),),
    ),
)

MOST_ITEMS: Final = 1000
"""Items of a list that are looked at."""

_ITEM_NUMBERS = ("tokenCount", "token_count", "inputTokens")


def _in_details(details: Any, name: str) -> Any:
    """A number in an object of details, or that of those items of a list that have a name: a modality, or a time."""
    if ":" not in name:
        if not isinstance(details, dict):
            raise ValueError("no object of details")
        return details.get(name.partition(".")[2])
    if not isinstance(details, list):
        raise ValueError("no list of details")  # noqa: TRY004  it makes the report worthless
    named, total = name.partition(":")[2], 0
    for item in details[:MOST_ITEMS]:
        if isinstance(item, dict) and named in (item.get("modality"), item.get("ttl")):
            numbers = [item[key] for key in _ITEM_NUMBERS if item.get(key) is not None]
            if not all(type(number) is int and number >= 0 for number in numbers):
                raise ValueError("no number of tokens")
            total += sum(numbers)
    return total
