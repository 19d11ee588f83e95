"""Only answers that are whole may stand for the same call made again."""

import json

import pytest
from cached_answers import EVENTS, JSON, chat
from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit.upstream.whole_answer import LONGEST_ANSWER, is_whole

MESSAGE = {
    "type": "message",
    "role": "assistant",
    "content": [{"type": "text", "text": "hi"}],
    "stop_reason": "end_turn",
}
RESPONSE = {
    "object": "response",
    "status": "completed",
    "error": None,
    "incomplete_details": None,
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "hi"}]}],
}
EMBEDDINGS = {"object": "list", "data": [{"object": "embedding", "embedding": [0.1]}, {"embedding": "AAAA"}]}
TEXT = {"object": "text_completion", "choices": [{"text": "hi", "index": 0, "finish_reason": "stop", "logprobs": None}]}


def whole(document, *, status=200, headers=JSON):
    return is_whole(status, headers, json.dumps(document).encode(), False)


def events(*data):
    lines = [each if isinstance(each, str) else json.dumps(each) for each in data]
    return "".join(f"data: {line}\n\n" for line in lines).encode()


def whole_stream(body, *, status=200, headers=EVENTS):
    return is_whole(status, headers, body, True)


def delta(content=None, finish=None, index=0, **members):
    said = {} if content is None else {"content": content}
    return {"choices": [{"index": index, "delta": {**said, **members}, "finish_reason": finish}]}


CHAT_STREAM = events(
    delta("", role="assistant"), delta("hi"), delta(finish="stop"), {"choices": [], "usage": {}}, "[DONE]"
)
TEXT_STREAM = events({"choices": [{"text": "hi", "index": 0, "finish_reason": "stop"}]}, "[DONE]")
MESSAGE_STREAM = events(
    {"type": "message_start", "message": {"stop_reason": None}},
    {"type": "ping"},
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "hi"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
    {"type": "message_stop"},
)
RESPONSE_STREAM = events({"type": "response.created"}, {"type": "response.completed", "response": RESPONSE})
STREAMS = [CHAT_STREAM, TEXT_STREAM, MESSAGE_STREAM, RESPONSE_STREAM]


@pytest.mark.parametrize(
    "document", [chat(), TEXT, MESSAGE, {**MESSAGE, "stop_reason": "stop_sequence"}, RESPONSE, EMBEDDINGS]
)
def test_answers_that_end_by_themselves_are_whole(document):
    assert whole(document)
    assert not whole(document, status=206)
    assert not whole(document, status=500)
    assert not whole(document, headers={})
    assert not whole(document, headers={"content-type": "text/html"})
    assert not is_whole(200, EVENTS, json.dumps(document).encode(), True)


@pytest.mark.parametrize(
    "document",
    [
        chat(finish_reason="length"),
        chat(finish_reason="content_filter"),
        chat(finish_reason="tool_calls"),
        chat(finish_reason=None),
        chat(finish_reason=["stop"]),
        chat(message={"content": None, "refusal": "I can't."}),
        chat(message={"content": None, "tool_calls": [{"id": "1"}]}),
        chat(error={"code": 502}),
        {**chat(), "error": {"message": "no"}},
        {**chat(), "choices": []},
        {**chat(), "choices": [*chat()["choices"], *chat(finish_reason="length")["choices"]]},
        {**chat(), "choices": [*chat()["choices"], 7]},
        {**MESSAGE, "stop_reason": "max_tokens"},
        {**MESSAGE, "stop_reason": "tool_use"},
        {**MESSAGE, "stop_reason": "refusal"},
        {**MESSAGE, "stop_reason": "pause_turn"},
        {**MESSAGE, "stop_reason": None},
        {**RESPONSE, "status": "incomplete"},
        {**RESPONSE, "status": "in_progress"},
        {**RESPONSE, "incomplete_details": {"reason": "max_output_tokens"}},
        {**RESPONSE, "error": {"code": "server_error"}},
        {**RESPONSE, "output": [{"content": [{"type": "refusal", "refusal": "I can't."}]}]},
        {**EMBEDDINGS, "data": []},
        {**EMBEDDINGS, "data": [{"embedding": [0.1]}, {"embedding": []}]},
        {"error": {"message": "no"}},
        {},
        [],
        None,
        "hi",
    ],
)
def test_answers_that_were_cut_or_refuse_or_fail_are_not(document):
    assert not whole(document)


@pytest.mark.parametrize("stream", STREAMS)
def test_streams_with_their_end_are_whole(stream):
    assert whole_stream(stream)
    assert whole_stream(stream.replace(b"\n", b"\r\n"))
    assert whole_stream(b": a comment\n\n" + stream)
    assert not whole_stream(stream, status=500)
    assert not whole_stream(stream, headers=JSON)
    assert not is_whole(200, JSON, stream, False)


@pytest.mark.parametrize("stream", STREAMS)
def test_stream_that_is_cut_anywhere_is_not(stream):
    end = len(stream.rstrip(b"\n"))
    assert [size for size in range(end) if whole_stream(stream[:size])] == []


@pytest.mark.parametrize("stream", STREAMS)
def test_stream_that_goes_on_after_its_end_is_not(stream):
    assert not whole_stream(stream + events(delta("more")))
    assert not whole_stream(stream + b"data: {\n\n")


@pytest.mark.parametrize(
    "stream",
    [
        events(delta("hi"), delta(finish="length"), "[DONE]"),
        events(delta("hi"), delta(finish="content_filter"), "[DONE]"),
        events(delta("hi"), "[DONE]"),
        events("[DONE]"),
        events(delta("hi"), delta(finish="stop"), delta("ho", index=1), "[DONE]"),
        events(delta(refusal="I can't."), delta(finish="stop"), "[DONE]"),
        events(delta(tool_calls=[{"index": 0}]), delta(finish="stop"), "[DONE]"),
        events(delta("hi"), {"error": {"message": "overloaded"}}, delta(finish="stop"), "[DONE]"),
        events(delta("hi", finish="stop"), "not json", "[DONE]"),
        events({"type": "message_delta", "delta": {"stop_reason": "max_tokens"}}, {"type": "message_stop"}),
        events({"type": "message_stop"}),
        events(
            {"type": "error", "error": {"type": "overloaded_error"}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
            {"type": "message_stop"},
        ),
        events({"type": "response.incomplete", "response": {**RESPONSE, "status": "incomplete"}}),
        events({"type": "response.completed"}),
        events({"type": "response.completed", "response": {**RESPONSE, "status": "failed"}}),
        b"",
        b"\n\n",
        b"data: \xff\n\n" + CHAT_STREAM,
    ],
)
def test_streams_that_were_cut_or_refuse_or_fail_are_not(stream):
    assert not whole_stream(stream)


def test_answer_that_is_still_compressed_or_too_long_is_not_looked_at():
    assert not is_whole(200, {**JSON, "content-encoding": "gzip"}, b"\x1f\x8b\x08\x00", False)
    assert not is_whole(200, JSON, json.dumps(chat()).encode() + b" " * LONGEST_ANSWER, False)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["stop", "message", "response", "completed", "[DONE]"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "message", "delta", "data", "embedding", "type", "object", "output", "index", "error"]
            ),
            inner,
            max_size=4,
        )
    ),
)


@given(st.lists(VALUES, max_size=4), st.binary(max_size=20))
def test_nothing_raises(values, noise):
    for each in values:
        whole(each)
    for body in (events(*map(json.dumps, values)), events(*map(json.dumps, values), "[DONE]"), noise):
        whole_stream(body)
        is_whole(200, JSON, body, False)
