import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_values import json_values

from flask_ailimit.tokens import MAX_TOKENS, Usage, estimate_request, open_counter
from flask_ailimit.tokens.prompt import IMAGE_TOKENS, LOW_DETAIL_IMAGE_TOKENS


class Letters:
    """A counter whose answers can be seen: a token for each character that is not white space."""

    def __init__(self, *, exact):
        self.exact = exact

    def __call__(self, text):
        return len("".join(text.split()))


def estimate(body, *, exact=True, default=100):
    return estimate_request(body, counter=Letters(exact=exact), default_output_tokens=default)


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
LOW = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
TOOL = {"type": "function", "function": {"name": "add"}}
INPUTS = {
    "prompt": ({"prompt": "abcde"}, 5),
    "several prompts": ({"prompt": ["abc", "de"]}, 5),
    "token ids": ({"prompt": [5, 6, 7]}, 3),
    "lists of token ids": ({"prompt": [[5, 6, 7], [8]]}, 4),
    "token ids of which one is a float": ({"prompt": [5, 6.0, 7]}, 3),
    "a mixed list": ({"prompt": [5, "abc"]}, 4),
    "prompt and suffix": ({"prompt": "abc", "suffix": "de"}, 5),
    "embedding": ({"input": "abcde"}, 5),
    "several embeddings": ({"input": ["abc", "de"]}, 5),
    "embedding of token ids": ({"input": [[1, 2], [3]]}, 3),
    # 3 for the message, 4 for its role, 3 for the reply
    "message": ({"messages": [{"role": "user", "content": "abcde"}]}, 5 + 4 + 3 + 3),
    "two messages": ({"messages": [{"role": "user", "content": "a"}] * 2}, 2 * (1 + 4 + 3) + 3),
    "message with a name": ({"messages": [{"role": "user", "name": "Al", "content": "a"}]}, 1 + 4 + 2 + 1 + 3 + 3),
    "message in parts": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "ab"}, {"type": "text", "text": "c"}]}]},
        3 + 4 + 3 + 3,
    ),
    "message without content": ({"messages": [{"role": "user", "content": None}]}, 4 + 3 + 3),
    "tool call": ({"messages": [{"role": "assistant", "tool_calls": [CALL]}]}, 9 + 3 + 7 + 3 + 3),
    "old function call": (
        {"messages": [{"role": "assistant", "function_call": {"name": "add", "arguments": "{}"}}]},
        9 + 3 + 2 + 3 + 3,
    ),
    "anthropic system": ({"system": "abc", "messages": []}, 3),
    "anthropic system blocks": ({"system": [{"type": "text", "text": "abc"}]}, 3),
    "anthropic tool use": (
        {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "name": "add", "input": {"a": 1}}]}]},
        9 + 3 + 7 + 3 + 3,
    ),
    "anthropic tool result": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": "ab"}]}]}
            ]
        },
        4 + 2 + 3 + 3,
    ),
    "anthropic text document": (
        {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "text", "data": "abc"}}]}]},
        4 + 3 + 3 + 3,
    ),
    "responses": ({"input": "abc", "instructions": "de"}, 5),
    "responses items": (
        {"input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "abc"}]}]},
        3 + 4 + 3 + 3,
    ),
    "responses function output": ({"input": [{"type": "function_call_output", "output": "abc"}]}, 3 + 3 + 3),
    "tools": ({"tools": [TOOL]}, len('[{"type":"function","function":{"name":"add"}}]')),
    "functions": ({"functions": [{"name": "add"}]}, len('[{"name":"add"}]')),
    "schema of the answer": ({"response_format": {"type": "json_object"}}, len('{"type":"json_object"}')),
    "image": ({"messages": [{"role": "user", "content": [IMAGE]}]}, IMAGE_TOKENS + 4 + 3 + 3),
    "small image": ({"messages": [{"role": "user", "content": [LOW]}]}, LOW_DETAIL_IMAGE_TOKENS + 4 + 3 + 3),
    "anthropic image": (
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": "iVBO"}}]}]},
        IMAGE_TOKENS + 4 + 3 + 3,
    ),
    "responses image, low": ({"input": [{"type": "input_image", "detail": "low"}]}, LOW_DETAIL_IMAGE_TOKENS + 3 + 3),
    "sound": ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, IMAGE_TOKENS + 4 + 3 + 3),
    "pdf": ({"input": [{"type": "input_file", "file_data": "JVBERi0"}]}, IMAGE_TOKENS + 3 + 3),
    "nothing": ({}, 0),
    "a list of texts": (["prompt"], 6),
    "a text": ("prompt", 6),
    "a number": (5, 0),
    "no body": (None, 0),
}


@pytest.mark.parametrize(("body", "expected"), INPUTS.values(), ids=INPUTS)
def test_input_is_the_text_wherever_an_api_keeps_it(body, expected):
    assert estimate(body).usage.input_tokens == expected


OUTPUTS = {
    "max_tokens": ({"max_tokens": 7}, 7),
    "max_completion_tokens": ({"max_completion_tokens": 7}, 7),
    "max_output_tokens": ({"max_output_tokens": 7}, 7),
    "the largest of several": ({"max_tokens": 7, "max_completion_tokens": 9}, 9),
    "one of several that is null": ({"max_tokens": None, "max_completion_tokens": 9}, 9),
    "choices": ({"max_tokens": 7, "n": 3}, 21),
    "candidates": ({"max_tokens": 7, "n": 2, "best_of": 5}, 35),
    "for each prompt": ({"max_tokens": 7, "prompt": ["a", "b", "c"]}, 21),
    "for each prompt of token ids": ({"max_tokens": 7, "prompt": [[1, 2], [3]], "n": 2}, 28),
    "token ids are one prompt": ({"max_tokens": 7, "prompt": [1, 2, 3]}, 7),
    "the largest count there is": ({"max_tokens": MAX_TOKENS, "n": MAX_TOKENS}, MAX_TOKENS),
}


@pytest.mark.parametrize(("body", "expected"), OUTPUTS.values(), ids=OUTPUTS)
def test_output_is_what_the_client_asks_for_and_that_is_certain(body, expected):
    found = estimate(body)
    reserved = min(expected, MAX_TOKENS - found.usage.input_tokens)
    assert (found.usage.output_tokens, found.least.output_tokens) == (reserved, reserved)


@pytest.mark.parametrize(
    "value", [None, True, False, "100", "", 1.5, 100.0, 0, -0.0, -1, "-5", "many", float("nan"), [], {}, [100]]
)
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
def test_a_maximum_that_is_none_leaves_the_default_which_is_not_certain(name, value):
    assert (estimate({name: value}).usage, estimate({name: value}).least) == (Usage(0, 100), Usage())


DOUBTFUL = {
    "a text": ("9000", 9000),
    "spaces around it": (" 9000 ", 9000),
    "with a point": ("9000.0", 9000),
    "with an exponent": ("9e3", 9000),
    "underscores, as int() takes them": ("9_000", 9000),
    "digits of another script": ("\uff19\uff10\uff10\uff10", 9000),
    "hexadecimal": ("0x2328", 9000),
    "what begins with a number": ("9000 tokens", 9000),
    "thousands": ("9,000", 9000),
    "a float": (9000.0, 9000),
    "a float between": (8999.5, 9000),
    "a small text": ("7", 100),
    "a small float": (7.0, 100),
    "beyond 2**53 - 1": (2**53, MAX_TOKENS),
    "far beyond": (10**400, MAX_TOKENS),
    "far beyond, as a text": ("9" * 5000, MAX_TOKENS),
    "with a sign and many zeros": ("+" + "0" * 500 + "9000", MAX_TOKENS),
    "infinite": (float("inf"), MAX_TOKENS),
}


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
@pytest.mark.parametrize(("value", "expected"), DOUBTFUL.values(), ids=DOUBTFUL)
def test_of_a_value_that_some_readers_take_the_larger_of_it_and_the_default_counts(name, value, expected):
    found = estimate({name: value})
    assert (found.usage, found.least, found.names_maximum) == (Usage(0, expected), Usage(), True)


@pytest.mark.parametrize("name", ["Max_Tokens", "MAX_TOKENS", "maxtokens", "max-tokens", "max_to\u212aen\u017f"])
@pytest.mark.parametrize(("value", "expected"), [(9000, 9000), (7, 100), ("9000", 9000), (-1, 100)])
def test_a_name_that_only_readers_without_regard_for_case_know_counts_as_a_doubtful_value(name, value, expected):
    assert estimate({name: value}).usage.output_tokens == expected


def test_a_name_in_another_case_may_make_a_maximum_void_for_one_reader():
    assert estimate({"max_tokens": 7, "MAX_TOKENS": -1}).usage.output_tokens == 100
    assert estimate({"max_tokens": 7, "MAX_TOKENS": 9000}).usage.output_tokens == 9000


def test_who_names_no_maximum_is_known():
    assert not estimate({"prompt": "a", "max_tokens": None}).names_maximum
    assert estimate({"prompt": "a", "max_tokens": 7}).names_maximum


@pytest.mark.parametrize(("value", "choices"), [("2", 2), (2.0, 2), (1.5, 2), (True, 1)])
@pytest.mark.parametrize("name", ["n", "best_of", "N"])
def test_a_number_of_choices_that_some_readers_take_is_taken(name, value, choices):
    found = estimate({"max_tokens": 7, name: value})
    assert (found.usage.output_tokens, found.least.output_tokens) == (7 * choices, 7)


@pytest.mark.parametrize("value", [None, True, 0, -1, "", "none", []])
@pytest.mark.parametrize("name", ["n", "best_of"])
def test_a_number_of_choices_that_is_none_is_one(name, value):
    assert estimate({"max_tokens": 7, name: value}).usage.output_tokens == 7


def test_default_is_for_each_choice():
    assert estimate({"n": 3}).usage == Usage(0, 300)


def test_no_output_is_reserved_where_nothing_is_generated():
    assert estimate({"input": "abc"}, default=0).usage == Usage(3, 0)


def test_an_exact_count_is_certain_but_overhead_and_images_are_not():
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "abcd"}, IMAGE]}]}
    assert estimate(body, exact=True).least == Usage(8, 0)


def test_of_an_estimated_count_a_quarter_is_certain():
    assert estimate({"prompt": "a" * 10}, exact=False).least == Usage(2, 0)


def test_token_ids_are_certain():
    assert estimate({"prompt": [1, 2, 3]}, exact=False).least == Usage(3, 0)


def test_a_body_with_nothing_but_tools_is_not_free():
    assert estimate_request({"tools": [TOOL]}, counter=open_counter(), default_output_tokens=9).usage.input_tokens > 5


@given(json_values, st.booleans(), st.integers(0, 2**31))
def test_no_json_makes_it_raise_and_what_is_certain_is_never_more_than_the_estimate(body, exact, default):
    found = estimate(body, exact=exact, default=default)
    for usage in (found.usage, found.least):
        assert usage == Usage.checked(usage.input_tokens, usage.output_tokens)
    for unit in ("tokens", "input_tokens", "output_tokens"):
        assert found.least.of(unit) <= found.usage.of(unit)


@given(json_values)
def test_no_json_makes_the_default_counter_raise(body):
    estimate_request(body, counter=open_counter(), default_output_tokens=1)


@pytest.mark.parametrize("levels", [64, 1000, 100_000])
def test_depth_is_no_matter(levels):
    value = "deep"
    for _ in range(levels):
        value = [{"content": value}]
    for name in ("prompt", "messages", "input", "system", "tools", "response_format"):
        assert estimate({name: value}).usage.input_tokens >= 4


def test_many_short_texts_are_counted_together():
    class Calls(Letters):
        calls = 0

        def __call__(self, text):
            self.calls += 1
            return super().__call__(text)

    counter = Calls(exact=False)
    body = {"prompt": ["a"] * 10_000}
    assert estimate_request(body, counter=counter, default_output_tokens=1).usage == Usage(10_000, 10_000)
    assert counter.calls == 1


@pytest.mark.parametrize("exact", [True, False])
def test_text_that_a_counter_raises_on_is_charged_by_its_length(exact, caplog):
    def counter(text):
        raise ValueError(text)  # As tiktoken does on "<|endoftext|>".

    counter.exact = exact
    found = estimate_request(
        {"prompt": "x <|endoftext|>" * 100, "max_tokens": 9000}, counter=counter, default_output_tokens=100
    )
    assert (found.usage, found.least) == (Usage(750, 9000), Usage(0, 9000))
    assert "endoftext" not in caplog.text


@pytest.mark.parametrize("kind", [[], {}, [1], None, 5])
@pytest.mark.parametrize("wrap", [lambda part: {"image": part}, lambda part: {"messages": [{"image_url": part}]}])
def test_type_of_a_medium_may_be_anything(kind, wrap):
    assert estimate({"max_tokens": 9000, **wrap({"type": kind})}).usage.output_tokens == 9000


@pytest.mark.parametrize(
    ("body", "answers", "least"),
    [
        ({"prompt": "a cat"}, 1, 1),
        ({"prompt": "a cat", "n": 4}, 4, 4),
        ({"prompt": "a cat", "n": "4"}, 4, 1),
        ({"prompt": ["a cat", "a dog"], "n": 2}, 4, 4),
        ({"prompt": "a cat", "n": 10**30}, MAX_TOKENS, 1),
        ([{"prompt": "a cat", "n": 2}, {"prompt": "a dog"}], 3, 3),
        ({"requests": [{"params": {"prompt": "a cat", "n": 2}}, {"params": {"prompt": "a dog", "n": 3}}]}, 5, 5),
        ({"instances": [{"prompt": "a cat"}, {"prompt": "a dog"}], "parameters": {"sampleCount": 4}}, 8, 4),
        ({"textToImageParams": {"text": "a cat"}, "imageGenerationConfig": {"numberOfImages": 3}}, 3, 3),
        ("a cat", 1, 1),
        (None, 1, 1),
    ],
)
def test_answers_are_counted_that_a_request_asks_for(body, answers, least):
    estimate = estimate_request(body, counter=Letters(exact=True), default_output_tokens=10)
    assert (estimate.answers, estimate.least_answers) == (answers, least)
