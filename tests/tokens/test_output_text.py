import pytest
from hypothesis import given
from token_values import json_values

from flask_ailimit.tokens import read_output_text
from flask_ailimit.tokens.output import json_text, read_event_text

CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
ANSWERS = {
    "chat": (
        {
            "id": "chatcmpl-1",
            "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi!"}}],
        },
        "Hi!",
    ),
    "two choices": ({"choices": [{"message": {"content": "a"}}, {"message": {"content": "b"}}]}, "ab"),
    "chat with parts": ({"choices": [{"message": {"content": [{"type": "text", "text": "Hi!"}]}}]}, "Hi!"),
    "tool call": ({"choices": [{"message": {"content": None, "tool_calls": [CALL]}}]}, 'weather{"city":"Oslo"}'),
    "reasoning": ({"choices": [{"message": {"reasoning_content": "Hm. ", "content": "Hi!"}}]}, "Hm. Hi!"),
    "reasoning under both names": (
        {"choices": [{"message": {"reasoning": "Hm. ", "reasoning_content": "Hm. ", "content": "Hi!"}}]},
        "Hm. Hi!",
    ),
    "reasoning null under one name": (
        {"choices": [{"message": {"reasoning": None, "reasoning_content": "Hm. ", "content": "Hi!"}}]},
        "Hm. Hi!",
    ),
    "refusal": ({"choices": [{"message": {"content": None, "refusal": "No."}}]}, "No."),
    "completion": ({"object": "text_completion", "choices": [{"text": "Hi!", "index": 0}]}, "Hi!"),
    "responses": (
        {
            "object": "response",
            "instructions": "Be brief.",
            "text": {"format": {"type": "text"}},
            "output": [
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm. "}]},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi!"}]},
                {"type": "function_call", "name": "weather", "arguments": "{}", "call_id": "call_1"},
            ],
        },
        "Hm. Hi!weather{}",
    ),
    "messages": (
        {
            "type": "message",
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm. ", "signature": "EqQB"},
                {"type": "text", "text": "Hi!"},
                {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}},
            ],
        },
        'Hm. Hi!weather{"city":"Oslo"}',
    ),
    "ollama generate": ({"model": "m", "response": "Hi!", "done": True}, "Hi!"),
    "ollama chat": ({"model": "m", "message": {"role": "assistant", "content": "Hi!"}, "done": True}, "Hi!"),
    "text": ({"text": "Hi!"}, "Hi!"),
    "output": ({"input": "Say hi.", "output": "Hi!"}, "Hi!"),
    "error": ({"error": {"message": "The model is away."}}, ""),
    "embeddings": ({"object": "list", "data": [{"embedding": [0.1, 0.2]}]}, ""),
}
EVENTS = {
    "chat": ({"choices": [{"delta": {"content": "Hi"}}]}, "Hi"),
    "chat role": ({"choices": [{"delta": {"role": "assistant", "content": ""}}]}, ""),
    "chat tool call": ({"choices": [{"delta": {"tool_calls": [{"function": {"arguments": '{"ci'}}]}}]}, '{"ci'),
    "chat usage": ({"choices": [], "usage": {"prompt_tokens": 1}}, ""),
    "messages text": ({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}}, "Hi"),
    "messages json": ({"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{"}}, "{"),
    "messages ping": ({"type": "ping"}, ""),
    "messages error": ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, ""),
    "messages start": ({"type": "message_start", "message": {"content": [], "role": "assistant"}}, ""),
    "responses delta": ({"type": "response.output_text.delta", "delta": "Hi"}, "Hi"),
    "responses arguments": ({"type": "response.function_call_arguments.delta", "delta": "{"}, "{"),
    "responses done": ({"type": "response.output_text.done", "text": "Hi there"}, ""),
    "responses completed": ({"type": "response.completed", "response": {"output": [{"text": "Hi there"}]}}, ""),
    "ollama": ({"model": "m", "response": "Hi", "done": False}, "Hi"),
    "text generation inference": ({"token": {"id": 5, "text": " Hi"}, "generated_text": None}, " Hi"),
    "an API nobody has heard of": ({"bit": "Hi", "nr": 3}, "Hi"),
    "an error of such": ({"error": "The model is away."}, ""),
    "plain text": ("Hi", "Hi"),
}


@pytest.mark.parametrize(("answer", "text"), ANSWERS.values(), ids=ANSWERS)
def test_text_of_a_plain_answer_is_what_was_generated(answer, text):
    assert read_output_text(answer) == text


@pytest.mark.parametrize(("event", "text"), EVENTS.values(), ids=EVENTS)
def test_text_of_an_event_is_what_it_adds(event, text):
    assert read_event_text(event) == text


@given(json_values)
def test_no_json_makes_it_raise(value):
    assert isinstance(read_output_text(value), str)
    assert isinstance(read_event_text(value), str)


def nested(levels, key):
    value = "deep"
    for _ in range(levels):
        value = {key: value}
    return value


def test_depth_is_no_matter():
    assert read_output_text(nested(100_000, "content")) == "deep"


def test_a_value_too_deep_to_write_still_gives_its_strings():
    assert "deep" in json_text(nested(100_000, "k")).split()
    assert json_text({"digits": 10**5000, "text": "Hi"}).split() == ["Hi", "text", "digits"]
