import json

import pytest
from hypothesis import given
from token_values import json_values

from flask_ailimit.tokens import read_output_text
from flask_ailimit.tokens.output import json_text, read_event_text
from flask_ailimit.tokens.payload import events_text

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

BASE64 = "QUJD" * 300
NO_TEXT = {
    "picture of Responses": {"output": [{"type": "image_generation_call", "result": BASE64, "size": "1024x1024"}]},
    "picture of a known Responses": {
        "object": "response",
        "output": [{"type": "image_generation_call", "status": "completed", "result": BASE64, "quality": "high"}],
    },
    "encrypted reasoning": {"output": [{"type": "reasoning", "id": "1", "summary": [], "encrypted_content": BASE64}]},
    "redacted thinking": {"type": "message", "content": [{"type": "redacted_thinking", "data": BASE64[:80]}]},
    "redacted thinking, as it begins": {
        "type": "content_block_start",
        "content_block": {"type": "redacted_thinking", "data": BASE64[:80]},
    },
    "signature, as an event": {
        "type": "content_block_delta",
        "delta": {"type": "signature_delta", "signature": BASE64[:80]},
    },
    "citation, as an event": {
        "type": "content_block_delta",
        "delta": {"type": "citations_delta", "citation": {"cited_text": "from elsewhere"}},
    },
    "thought signature": {"candidates": [{"content": {"parts": [{"thoughtSignature": BASE64[:80]}]}}]},
    "inline data": {"candidates": [{"content": {"parts": [{"inlineData": {"data": BASE64[:80]}}]}}]},
    "sound": {"choices": [{"message": {"content": None, "audio": {"id": "a", "data": BASE64[:80]}}}]},
    "sound, as an event": {"choices": [{"delta": {"audio": {"id": "a", "data": BASE64[:80]}}}]},
    "encrypted reasoning of a gateway": {
        "choices": [{"delta": {"content": "", "reasoning_details": [{"type": "reasoning.encrypted", "data": "QUJD"}]}}]
    },
    "picture of code": {
        "object": "response",
        "output": [{"type": "code_interpreter_call", "code": "", "outputs": [{"type": "image", "url": "https://x"}]}],
    },
    "files found": {"output": [{"type": "file_search_call", "results": [{"text": "in a file", "filename": "f"}]}]},
    "what a tool answered": {"output": [{"type": "mcp_call", "output": "from elsewhere"}]},
    "what a tool of Anthropic's answered": {
        "type": "message",
        "content": [{"type": "mcp_tool_result", "content": [{"type": "text", "text": "from elsewhere"}]}],
    },
    "a search of Anthropic's, as it begins": {
        "type": "content_block_start",
        "content_block": {"type": "web_search_tool_result", "content": [{"title": "t", "url": "https://x"}]},
    },
    "vectors in base64": {"data": [{"embedding": BASE64}]},
    "picture": {"data": [{"b64_json": BASE64}]},
    "first event of Messages": {
        "type": "message_start",
        "message": {"id": "m", "type": "message", "role": "assistant", "model": "c", "usage": {"service_tier": "std"}},
    },
    "a chat's role": {
        "id": "c",
        "model": "m",
        "system_fingerprint": "fp",
        "service_tier": "default",
        "obfuscation": "xyz",
        "choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None, "logprobs": None}],
    },
    "a chat's end": {"choices": [{"delta": {}, "finish_reason": "stop"}], "x_groq": {"id": "req"}},
    "filters of Azure's": {"choices": [], "prompt_filter_results": [{"content_filter_results": {"severity": "safe"}}]},
    "Gemini's end": {
        "candidates": [{"content": {"role": "model"}, "finishReason": "STOP", "safetyRatings": [{"category": "C"}]}],
        "modelVersion": "g",
    },
    "padding of Bedrock's": {"messageStart": {"role": "assistant", "p": "abcdef"}},
    "a citation of Cohere's": {
        "type": "citation-start",
        "delta": {"message": {"citations": {"text": "cited", "sources": [{"document": {"title": "t"}}]}}},
    },
    "sources of Perplexity's": {
        "citations": ["https://a"],
        "search_results": [{"title": "t"}],
        "choices": [{"delta": {"role": "assistant", "content": ""}, "message": {"role": "assistant", "content": ""}}],
    },
    "a chunk of a gateway": {
        "provider": "OpenAI",
        "choices": [{"delta": {"content": ""}, "finish_reason": "stop", "native_finish_reason": "completed"}],
    },
    "llama.cpp's end": {
        "content": "",
        "stop": True,
        "timings": {},
        "prompt": "mine",
        "generation_settings": {"a": "b"},
    },
    "Ollama's end": {"model": "m", "created_at": "now", "response": "", "done": True, "done_reason": "stop"},
    "an Assistant's run": {"object": "thread.run", "instructions": "Be brief.", "status": "queued"},
    "an Assistant's message once more": {"object": "thread.message", "content": [{"text": {"value": "again"}}]},
    "an item of Responses": {"type": "response.output_item.added", "item": {"type": "message", "role": "assistant"}},
    "a response's state": {"type": "response.in_progress", "response": {"instructions": "Be brief."}},
}
ELSEWHERE = {
    "beside no choices": {"choices": [], "value": "word"},
    "beside an empty delta": {"choices": [{"index": 0, "delta": {}}], "value": "word"},
    "in a chat's delta": {"choices": [{"index": 0, "delta": {"poem": "word"}}]},
    "in an object in a chat's delta": {"choices": [{"index": 0, "delta": {"content": {"value": "word"}}}]},
    "in Anthropic's delta": {"type": "content_block_delta", "delta": {"type": "poem_delta", "poem": "word"}},
    "in Anthropic's block": {"type": "content_block_start", "content_block": {"type": "poem", "poem": "word"}},
    "in an object of Responses": {"type": "response.thing.delta", "delta": {"value": "word"}},
    "in another event of Responses": {"type": "response.piece", "text": "word"},
    "in a part of Gemini's": {"candidates": [{"content": {"parts": [{"poem": "word"}]}}]},
    "in Bedrock's delta": {"contentBlockDelta": {"delta": {"poem": "word"}}},
    "in Cohere's delta": {"type": "content-delta", "delta": {"message": {"poem": "word"}}},
    "in an Assistant's delta": {"object": "thread.message.delta", "delta": {"content": [{"text": {"value": "word"}}]}},
}


@pytest.mark.parametrize("payload", NO_TEXT.values(), ids=NO_TEXT)
def test_what_no_model_wrote_or_nobody_can_read_is_no_text(payload):
    assert read_event_text(payload) == ""


@pytest.mark.parametrize("payload", ELSEWHERE.values(), ids=ELSEWHERE)
@pytest.mark.parametrize("times", [1, 3, 100])
def test_text_in_an_unknown_place_of_a_known_event_is_text(payload, times):
    assert read_event_text(payload) == "word"
    assert events_text([json.dumps(payload).encode()] * times) == "word" * times


@pytest.mark.parametrize("message", [{"poem": "word"}, {"content": {"value": "word"}}, {"content": [{"poem": "word"}]}])
def test_text_in_an_unknown_place_of_a_known_answer_is_text(message):
    assert read_output_text({"choices": [{"message": {"role": "assistant", **message}}]}) == "word"


def test_sound_says_what_its_transcript_says():
    audio = {"id": "a", "data": BASE64, "transcript": "word"}
    assert read_output_text({"choices": [{"message": {"content": None, "audio": audio}}]}) == "word"


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
