"""The usage that a model server reports in its JSON answers and events.

Each row of :data:`SHAPES` is one shape of a report, with the page that defines it. A member that is null is one that is
not there; a number that is negative, fractional or otherwise absurd makes the whole report worthless.
"""

from typing import Any, Final, NamedTuple

from .usage import MAX_TOKENS, Usage


class Shape(NamedTuple):
    """Where a report stands, and what its members are called.

    Attributes:
        places: Where the report's object may be in an answer or event; of a list on the way, each item has one.
        inputs: Members whose sum is the input. Without the first of them the report says nothing of the input.
        outputs: Members whose sum is the output.
        total: The member with input and output together.
        cached: Members with the input that was read from a cache, which is a part of the input.
        page: What defines it.
        fractional: Whether whole numbers may be written as ``5.0``.
        listed: Whether a member may be a list of tokens in place of their number.
        parts: Members that are parts of the output and have nothing in common, so that their sum is none above it.
    """

    places: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    page: str
    total: str = ""
    cached: tuple[str, ...] = ()
    fractional: bool = False
    listed: bool = False
    parts: tuple[str, ...] = ()

    @property
    def members(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.inputs, *self.outputs, *self.parts, *((self.total,) if self.total else ()), *self.cached)


_OF_OUTPUT = ("reasoning_tokens", "text_tokens", "audio_tokens", "image_tokens")
_ANYWHERE = ("usage", "response.usage", "message.usage", "choices.usage", "x_groq.usage", "result.usage", "delta.usage")

SHAPES: Final = (
    Shape(  # With DeepSeek's two members, and in the places of Groq, of Moonshot's choices, of Workers AI.
        _ANYWHERE,
        ("prompt_tokens",),
        ("completion_tokens",),
        "https://platform.openai.com/docs/api-reference/chat/object",
        total="total_tokens",
        cached=("prompt_tokens_details.cached_tokens", "prompt_cache_hit_tokens"),
        parts=tuple(f"completion_tokens_details.{name}" for name in _OF_OUTPUT),
    ),
    Shape(
        ("usage", "choices.usage"),
        ("prompt_cache_miss_tokens", "prompt_cache_hit_tokens"),
        ("completion_tokens",),
        "https://api-docs.deepseek.com/guides/kv_cache",
        cached=("prompt_cache_hit_tokens",),
    ),
    Shape(  # Responses, images and audio of OpenAI, and Anthropic's Messages, whose three numbers add up.
        _ANYWHERE,
        ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"),
        ("output_tokens",),
        "https://platform.openai.com/docs/api-reference/responses/object, "
        "https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching",
        total="total_tokens",
        cached=("cache_read_input_tokens", "input_tokens_details.cached_tokens"),
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
        cached=("cachedContentTokenCount",),
    ),
    Shape(  # As Google's SDK for Python writes it.
        ("usage_metadata",),
        ("prompt_token_count", "tool_use_prompt_token_count"),
        ("candidates_token_count", "thoughts_token_count"),
        "https://ai.google.dev/api/generate-content#UsageMetadata",
        total="total_token_count",
        cached=("cached_content_token_count",),
    ),
    Shape(
        ("usage", "metadata.usage"),
        ("inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens"),
        ("outputTokens",),
        "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html",
        total="totalTokens",
        cached=("cacheReadInputTokens",),
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
        cached=("cache_n",),
    ),
)

_PLACES: Final[dict[str, list[tuple[Shape, str]]]] = {}
"""Each place of each shape, by the names of which the answer or event must have one: most have none."""

for _shape in SHAPES:
    for _place in _shape.places:
        for _name in [_place.partition(".")[0]] if _place else _shape.members:
            _PLACES.setdefault(_name, []).append((_shape, _place))

FIRST_MEMBERS: Final = frozenset(_PLACES)
"""Members of which every answer or event that reports has one."""

_MOST_ITEMS = 1000


class Report(NamedTuple):
    """The numbers of one report; None is what it doesn't say."""

    input: int | None
    output: int | None
    cached: int
    total: int | None


Members = dict[str, int]
"""The numbers of a report, by the names of its shape."""


def find_reports(payload: object) -> dict[Shape, Members]:
    """The members of each shape of report in a decoded JSON answer or event. Empty if there is none. Never raises."""
    if not isinstance(payload, dict):
        return {}
    found: dict[Shape, Members] = {}
    try:
        for name in FIRST_MEMBERS.intersection(payload):
            for shape, place in _PLACES[name]:
                for report in _objects(payload, place):
                    members = _members(shape, report)
                    if members:
                        found[shape] = merged(found.get(shape, {}), members)
        if found:
            said = read_reports(found)
            Usage.checked(said.cached if said.input is None else said.input, said.output or 0, said.cached)
    except ValueError:
        return {}
    return found


def merged(older: Members, newer: Members) -> Members:
    """The largest of each member, since reports within a message are repeated and cumulative."""
    return {name: max(older.get(name, 0), newer.get(name, 0)) for name in {**older, **newer}}


def read_reports(found: dict[Shape, Members]) -> Report:
    """What the reports say together: the largest that any says of each number."""
    said = [_summed(shape, members) for shape, members in found.items()]
    return Report(
        max((each.input for each in said if each.input is not None), default=None),
        max((each.output for each in said if each.output is not None), default=None),
        max((each.cached for each in said), default=0),
        max((each.total for each in said if each.total is not None), default=None),
    )


def read_usage(payload: object) -> Usage | None:
    """The usage in a decoded JSON answer, or None if it reports none that can be believed. Never raises.

    A report with a negative, fractional or otherwise absurd number in it is worth nothing as a whole. An explicit
    zero is a report, and so is one that says nothing of the input or of the output. Of a total and its parts the larger
    counts; a total alone is taken for the input, as in answers with embeddings that say nothing else.
    """
    report = read_reports(find_reports(payload))
    if report.input is None and report.output is None:
        return None if report.total is None else Usage.clamped(report.total, 0, report.cached)
    return Usage.clamped(report.input or 0, report.output or 0, report.cached)


def _objects(payload: dict[str, Any], place: str) -> list[dict[str, Any]]:
    found: list[Any] = [payload]
    for name in place.split(".") if place else ():
        inner = [node.get(name) for node in found if isinstance(node, dict)]
        found = [item for node in inner for item in (node[:_MOST_ITEMS] if isinstance(node, list) else [node])]
        if found == [None]:
            return []
    return [node for node in found if isinstance(node, dict)]


def _members(shape: Shape, report: dict[str, Any]) -> Members:
    named = {name: _value(report, name) for name in shape.members}
    if shape.listed:  # An empty list of tokens was not asked for.
        named = {name: value or None for name, value in named.items()}
    return {name: _count(value, shape) for name, value in named.items() if value is not None}


def _value(report: dict[str, Any], name: str) -> Any:
    first, _, second = name.partition(".")
    value = report.get(first)
    if not second or value is None:
        return value
    if not isinstance(value, dict):
        raise ValueError("no object of details")  # noqa: TRY004  it makes the report worthless
    return value.get(second)


def _count(value: Any, shape: Shape) -> int:
    if shape.listed and isinstance(value, list):
        return len(value)
    if shape.fractional and type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 <= value <= MAX_TOKENS:
        raise ValueError("no number of tokens")
    return value


def _summed(shape: Shape, members: Members) -> Report:
    given = sum(members.get(name, 0) for name in shape.inputs) if shape.inputs[0] in members else None
    outputs = [members[name] for name in shape.outputs if name in members]
    parts = sum(members.get(name, 0) for name in shape.parts)  # Some report reasoning beside the output.
    made = max(sum(outputs), parts) if outputs or parts else None
    total = members.get(shape.total)
    if given is None and made is None and total is None:
        return Report(None, None, 0, None)  # What was cached says nothing without the rest.
    if total is not None and given is not None:
        made = max(made or 0, total - given)
    elif total is not None and made is not None:
        given = max(total - made, 0)
    return Report(given, made, max((members[name] for name in shape.cached if name in members), default=0), total)
