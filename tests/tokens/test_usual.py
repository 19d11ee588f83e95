"""The short way to read a usual answer says what the long way says, or nothing."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_ailimit.tokens import Measure, StreamMeter, Usage, open_counter
from flask_ailimit.tokens.usual import read_usual

ESTIMATE = open_counter("estimate")


def words(text):
    return len(text.split())


words.exact = True
COUNTERS = {"estimated": ESTIMATE, "exact": open_counter(words)}


def long_way(body, counter):
    meter = StreamMeter("application/json", counter)
    meter.feed(body)
    return meter.measure(1000, complete=True)


numbers = st.one_of(st.integers(-2, 60), st.sampled_from([2**53 - 1, 2**53, 1.0, True, None, "5"]))
details = st.one_of(
    st.none(),
    st.dictionaries(
        st.sampled_from(
            [
                "cached_tokens",
                "cache_write_tokens",
                "reasoning_tokens",
                "thinking_tokens",
                "audio_tokens",
                "image_tokens",
                "text_tokens",
                "accepted_prediction_tokens",
            ]
        ),
        numbers,
    ),
    numbers,
    st.just([]),
)
tiers = st.one_of(
    st.sampled_from(["default", "flex", "PRIORITY", "", "x" * 32, "x" * 33, "a\nb", None, 5, []]),
    st.fixed_dictionaries({}, optional={"type": st.sampled_from(["flex", None, 5, ["flex"]])}),
)
reports = st.fixed_dictionaries(
    {},
    optional={
        name: numbers if "details" not in name else details
        for name in (
            "prompt_tokens",
            "completion_tokens",
            "input_tokens",
            "output_tokens",
            "total_tokens",
            "cache_read_input_tokens",
            "prompt_tokens_details",
            "completion_tokens_details",
            "input_tokens_details",
            "output_tokens_details",
            "input_token_details",
            "cache_creation",
            "tokens",
        )
    },
)
texts = st.text(st.sampled_from("ab \n\u6f22"), max_size=300)
choices = st.lists(
    st.one_of(
        st.builds(lambda text: {"message": {"role": "assistant", "content": text}}, texts),
        st.builds(lambda text, report: {"text": text, "usage": report}, texts, reports),
        st.builds(lambda text: {"delta": {"tool_calls": [{"function": {"name": "f", "arguments": text}}]}}, texts),
        texts,
    ),
    max_size=3,
)
answers = st.fixed_dictionaries(
    {"usage": reports},
    optional={
        "choices": choices,
        "object": st.sampled_from(["chat.completion", "list", "response"]),
        "text": texts,
        "output": st.lists(st.builds(lambda text: {"type": "message", "content": [{"text": text}]}, texts), max_size=2),
        "x_groq": st.builds(lambda report: {"usage": report}, reports),
        "usageMetadata": st.just({"promptTokenCount": 7, "candidatesTokenCount": 90}),
        "eval_count": numbers,
        "error": st.just({"message": "overloaded"}),
        "service_tier": tiers,
        "serviceTier": tiers,
        "status": st.sampled_from(["completed", "queued"]),
    },
)


@pytest.mark.parametrize("counter", COUNTERS.values(), ids=COUNTERS)
@settings(max_examples=500)
@given(answer=answers)
def test_short_way_agrees_with_the_long_way(counter, answer):
    body = json.dumps(answer).encode()
    usage = read_usual(body, counter)
    assert usage is None or Measure(usage, "reported") == long_way(body, counter)


@pytest.mark.parametrize(
    ("report", "usage"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}, Usage(9, 5)),
        ({"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}, Usage(9, 5, 4)),
        (
            {"input_tokens": 9, "output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 3}},
            Usage(9, 5, reasoning_tokens=3),
        ),
        (
            {
                "prompt_tokens": 90,
                "completion_tokens": 50,
                "prompt_tokens_details": {
                    "cached_tokens": 4,
                    "cache_write_tokens": 5,
                    "audio_tokens": 6,
                    "image_tokens": 7,
                },
                "completion_tokens_details": {"reasoning_tokens": 8, "audio_tokens": 9, "image_tokens": 10},
            },
            Usage(90, 50, 4, 5, 0, 6, 7, 8, 9, 10),
        ),
        ({"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": 0}, None),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "prompt_tokens_details": {"audio_tokens": 5, "image_tokens": 5},
            },
            None,
        ),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 5},
            },
            None,
        ),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": -1},
            },
            None,
        ),
        ({"prompt_tokens": 9, "completion_tokens": 0}, None),
        ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 200}, None),
        ({"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 10}}, None),
        ({"input_tokens": 9, "output_tokens": 5, "cache_read_input_tokens": 4}, None),
    ],
)
def test_usual_report_is_read(report, usage):
    answer = {"id": "1", "choices": [{"message": {"content": "four five"}}], "usage": report}
    assert read_usual(json.dumps(answer).encode(), ESTIMATE) == usage


@pytest.mark.parametrize("named", [{"service_tier": "flex"}, {"serviceTier": {"type": "flex"}}])
def test_tier_beside_the_report_is_read(named):
    answer = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 5}, **named}
    assert read_usual(json.dumps(answer).encode(), ESTIMATE) == Usage(9, 5, service_tier="flex")


def test_report_of_far_less_than_the_text_takes_the_long_way():
    answer = {"choices": [{"text": "word " * 100}], "usage": {"prompt_tokens": 9, "completion_tokens": 5}}
    body = json.dumps(answer).encode()
    assert read_usual(body, ESTIMATE) is None
    assert long_way(body, COUNTERS["exact"]).usage == Usage(9, 100)


@given(st.binary(max_size=50))
def test_no_bytes_make_it_raise(body):
    assert read_usual(body, ESTIMATE) is None
