import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit.tokens import MAX_TOKENS, Usage, read_usage
from flask_ailimit.tokens.tier import find_tier

CHAT = {"object": "chat.completion", "choices": []}
REPORTS = {
    "chat": (
        {**CHAT, "usage": {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}},
        Usage(19, 10),
    ),
    "chat with cached tokens and details": (
        {
            **CHAT,
            "usage": {
                "prompt_tokens": 2006,
                "completion_tokens": 300,
                "total_tokens": 2306,
                "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 128},
            },
            "service_tier": "default",
        },
        Usage(2006, 300, 1920, reasoning_tokens=128, service_tier="default"),
    ),
    "chat of a server that leaves details null": (
        {**CHAT, "usage": {"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": None}},
        Usage(1, 2),
    ),
    "chat with null cached tokens": (
        {
            **CHAT,
            "usage": {"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": None}},
        },
        Usage(1, 2),
    ),
    "embeddings": ({"object": "list", "usage": {"prompt_tokens": 8, "total_tokens": 8}}, Usage(8, 0)),
    "responses": (
        {
            "object": "response",
            "usage": {
                "input_tokens": 36,
                "input_tokens_details": {"cached_tokens": 12},
                "output_tokens": 87,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": 123,
            },
        },
        Usage(36, 87, 12),
    ),
    "messages": ({"type": "message", "usage": {"input_tokens": 12, "output_tokens": 6}}, Usage(12, 6)),
    "messages with cache": (
        {
            "type": "message",
            "usage": {
                "input_tokens": 21,
                "cache_creation_input_tokens": 188086,
                "cache_read_input_tokens": 1000,
                "output_tokens": 393,
            },
        },
        Usage(21 + 188086 + 1000, 393, 1000, cache_write_tokens=188086),
    ),
    "messages with null cache": (
        {
            "type": "message",
            "usage": {
                "input_tokens": 21,
                "cache_creation_input_tokens": None,
                "cache_read_input_tokens": None,
                "output_tokens": 3,
            },
        },
        Usage(21, 3),
    ),
    "a proxy that adds Anthropic's fields to OpenAI's": (
        {**CHAT, "usage": {"prompt_tokens": 30, "completion_tokens": 5, "cache_read_input_tokens": 10}},
        Usage(30, 5),
    ),
    "ollama": ({"done": True, "prompt_eval_count": 26, "eval_count": 298}, Usage(26, 298)),
    "ollama with the prompt in its cache": ({"done": True, "eval_count": 298}, Usage(0, 298)),
    "total alone": ({"usage": {"total_tokens": 5}}, Usage(5, 0)),
    "input alone": ({"usage": {"prompt_tokens": 5}}, Usage(5, 0)),
    "input alone, as Responses": ({"usage": {"input_tokens": 5, "output_tokens": None}}, Usage(5, 0)),
    "output alone": ({"usage": {"prompt_tokens": None, "completion_tokens": 5}}, Usage(0, 5)),
    "a total above its parts": (
        {"usage": {"prompt_tokens": 10, "completion_tokens": 6, "total_tokens": 206}},
        Usage(10, 196),
    ),
    "reasoning beside the output": (
        {
            "usage": {
                "prompt_tokens": 10,
                "completion_tokens": 6,
                "completion_tokens_details": {"reasoning_tokens": 190, "audio_tokens": None},
            }
        },
        Usage(10, 190, reasoning_tokens=190),
    ),
    "reasoning and text beside the output, as Responses": (
        {
            "usage": {
                "input_tokens": 10,
                "output_tokens": 6,
                "output_tokens_details": {"reasoning_tokens": 190, "text_tokens": 6},
            }
        },
        Usage(10, 196, reasoning_tokens=190),
    ),
    "a total below its parts": (
        {"usage": {"prompt_tokens": 10, "completion_tokens": 6, "total_tokens": 1}},
        Usage(10, 6),
    ),
    "explicit zero": ({**CHAT, "usage": {"prompt_tokens": 0, "completion_tokens": 0}}, Usage(0, 0)),
    "largest": ({**CHAT, "usage": {"prompt_tokens": MAX_TOKENS, "completion_tokens": 0}}, Usage(MAX_TOKENS, 0)),
}
ABSURD = [-1, True, False, 1.0, "5", [], {}, 2**53, float("nan")]


@pytest.mark.parametrize(("payload", "expected"), REPORTS.values(), ids=REPORTS)
def test_a_report_is_read_in_the_dialect_it_is_written_in(payload, expected):
    assert read_usage(payload) == expected


@pytest.mark.parametrize("absurd", ABSURD, ids=repr)
@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 0, "completion_tokens": 5},
        {"prompt_tokens": 5, "completion_tokens": 0},
        {"prompt_tokens": 5, "total_tokens": 0},
        {"input_tokens": 0, "output_tokens": 5},
        {"input_tokens": 5, "output_tokens": 0},
    ],
    ids="-".join,
)
def test_one_absurd_number_makes_a_report_worthless(usage, absurd):
    broken = {name: absurd if value == 0 else value for name, value in usage.items()}
    assert read_usage({"usage": broken}) is None


@pytest.mark.parametrize("cached", [-1, True, 1.5, "1", [], 101])
def test_an_absurd_number_of_cached_tokens_makes_a_report_worthless(cached):
    details = {"cached_tokens": cached}
    assert (
        read_usage({"usage": {"prompt_tokens": 100, "completion_tokens": 1, "prompt_tokens_details": details}}) is None
    )
    assert read_usage({"usage": {"input_tokens": 100, "output_tokens": 1, "input_tokens_details": details}}) is None


@pytest.mark.parametrize("absurd", [-1, True, 1.5, "1", [], 2**53])
@pytest.mark.parametrize(
    "report",
    [
        {"usage": {"prompt_tokens": 9, "prompt_tokens_details": {"audio_tokens": "absurd"}}},
        {"usage": {"prompt_tokens": 9, "prompt_tokens_details": {"cache_write_tokens": "absurd"}}},
        {"usage": {"prompt_tokens": 9, "completion_tokens_details": {"image_tokens": "absurd"}}},
        {"usage": {"input_tokens": 9, "cache_creation": {"ephemeral_1h_input_tokens": "absurd"}}},
        {"usage": {"input_tokens": 9, "output_tokens_details": {"thinking_tokens": "absurd"}}},
        {"usage": {"inputTokens": 9, "cacheDetails": [{"ttl": "1h", "inputTokens": "absurd"}]}},
        {
            "usageMetadata": {
                "promptTokenCount": 9,
                "promptTokensDetails": [
                    {"modality": "AUDIO", "tokenCount": 9},
                    {"modality": "AUDIO", "tokenCount": "absurd"},
                ],
            }
        },
        {"usageMetadata": {"promptTokenCount": 9, "promptTokensDetails": "absurd"}},
    ],
    ids=lambda report: json.dumps(report)[10:60],
)
def test_an_absurd_number_of_a_part_makes_a_report_worthless(report, absurd):
    text = json.dumps(report)
    if absurd == [] and '"promptTokensDetails": "absurd"' in text:
        absurd = {}
    assert read_usage(json.loads(text.replace('"absurd"', json.dumps(absurd)))) is None


@pytest.mark.parametrize(
    ("name", "report", "part"),
    [
        ("sound", {"prompt_tokens_details": {"audio_tokens": 30}}, {"audio_input_tokens": 9}),
        ("cache", {"prompt_tokens_details": {"cached_tokens": 9, "cache_write_tokens": 9}}, {"cache_write_tokens": 9}),
    ],
)
def test_parts_above_their_whole_are_cut(name, report, part):
    assert read_usage({"usage": {"prompt_tokens": 9, "completion_tokens": 5, **report}}) == Usage(9, 5, **part)


@pytest.mark.parametrize(
    ("answer", "tier"),
    [
        ({"service_tier": "flex"}, "flex"),
        ({"service_tier": None}, ""),
        ({"service_tier": "x" * 33}, ""),
        ({"service_tier": 5}, ""),
        ({"service_tier": ["flex"]}, ""),
        ({"service_tier": {"type": ["flex"]}}, ""),
        ({"usage": {"service_tier": "batch"}, "service_tier": "auto"}, "batch"),
        ({"usage": {"service_tier": "priority", "speed": "standard"}}, "priority"),
        ({"usage": {"service_tier": "standard", "speed": "fast"}}, "fast"),
        ({"response": {"service_tier": "flex", "usage": {}}, "service_tier": None}, "flex"),
        ({"message": {"usage": {"service_tier": "batch"}}}, "batch"),
        ({"metadata": {"serviceTier": {"type": "priority"}}}, "priority"),
        ({"usageMetadata": {"trafficType": "ON_DEMAND_PRIORITY"}}, "PRIORITY"),
        ({"usageMetadata": {"trafficType": "ON_DEMAND"}}, "ON_DEMAND"),
        ({"usage": "service_tier", "message": ["service_tier"]}, ""),
        (["service_tier"], ""),
        (None, ""),
    ],
    ids=repr,
)
def test_tier_is_found_where_each_provider_names_it(answer, tier):
    assert find_tier(answer) == tier


@pytest.mark.parametrize("name", ["cache_creation_input_tokens", "cache_read_input_tokens"])
@pytest.mark.parametrize("value", [-1, True, 1.5, "1", MAX_TOKENS])
def test_an_absurd_anthropic_cache_makes_a_report_worthless(name, value):
    assert read_usage({"usage": {"input_tokens": 1, "output_tokens": 1, name: value}}) is None


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        "usage",
        1,
        {},
        {"usage": None},
        {"usage": []},
        {"usage": {}},
        {"usage": {"prompt_tokens": 5, "completion_tokens": 5, "prompt_tokens_details": [1]}},
        {"eval_count": -1},
    ],
    ids=repr,
)
def test_what_reports_nothing_is_no_report(payload):
    assert read_usage(payload) is None


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "prompt_tokens",
                "completion_tokens",
                "total_tokens",
                "input_tokens",
                "output_tokens",
                "prompt_tokens_details",
                "input_tokens_details",
                "cache_read_input_tokens",
                "cache_creation_input_tokens",
            ]
        ),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.dictionaries(st.just("cached_tokens"), st.integers()),
    )
)
def test_whatever_is_reported_is_a_usage_that_can_be_charged_or_none(report):
    usage = read_usage({"usage": report})
    assert usage is None or usage == Usage.checked(**usage.counts, service_tier=usage.service_tier)


def test_real_sdks_see_the_same_numbers():
    anthropic = pytest.importorskip("anthropic")
    openai = pytest.importorskip("openai")
    chat = openai.types.CompletionUsage.model_validate(REPORTS["chat with cached tokens and details"][0]["usage"])
    ours = read_usage({"usage": json.loads(chat.model_dump_json())})
    assert ours == Usage(
        chat.prompt_tokens,
        chat.completion_tokens,
        chat.prompt_tokens_details.cached_tokens,
        reasoning_tokens=chat.completion_tokens_details.reasoning_tokens,
    )
    responses = openai.types.responses.ResponseUsage.model_construct(**REPORTS["responses"][0]["usage"])
    assert read_usage({"usage": responses.model_dump(warnings=False)}) == Usage(36, 87, 12)
    messages = anthropic.types.Usage.model_validate(REPORTS["messages with cache"][0]["usage"])
    ours = read_usage({"usage": json.loads(messages.model_dump_json())})
    assert ours == REPORTS["messages with cache"][1]
