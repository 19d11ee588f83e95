"""Answers that are encoded, passed through, cut to a range, said to be something else, or no text at all."""

import base64
import gzip
import importlib.util
import io
import json
import os
import tracemalloc

import pytest
from acceptance_apps import (
    ENCODERS,
    GIVEN,
    RESERVED,
    by_unit,
    charged,
    chat,
    chat_usage,
    document,
    event,
    events,
    lines,
    metered,
    pieces,
    send,
    streamed,
)
from flask import Response, request, send_file

HUNDRED = [f"w{i} " for i in range(100)]
SENT = [word.encode() for word in HUNDRED]
TEXT = "".join(HUNDRED)
USAGE = {"usage": {"prompt_tokens": 9, "completion_tokens": 1005, "total_tokens": 1014}}
CHATS = "".join(event(chat(word)) for word in HUNDRED)
ANSWERS = {
    "events that report": (CHATS + "".join(events(chat_usage(9, 1005), "[DONE]")), "text/event-stream", (9, 1005)),
    "events": (CHATS + event("[DONE]"), "text/event-stream", (GIVEN, 100)),
    "document that reports": (
        json.dumps({"choices": [{"message": {"content": TEXT}}], **USAGE}),
        "application/json",
        (9, 1005),
    ),
    "document": (json.dumps({"choices": [{"message": {"content": TEXT}}]}), "application/json", (GIVEN, 100)),
    "lines": ("".join(lines(*({"text": word} for word in HUNDRED))), "application/x-ndjson", (GIVEN, 100)),
    "text": (TEXT, "text/plain", (GIVEN, 100)),
}


def encoded(text, mimetype, coding, size=None):
    """A view whose answer is in this coding: whole, or in pieces of so many bytes."""
    data = ENCODERS[coding](text.encode())
    header = {"Content-Encoding": coding.partition(",")[0]}
    body = data if size is None else None
    return lambda: Response(body or iter(pieces(data, size)), mimetype=mimetype, headers=header)


@pytest.mark.parametrize("coding", ENCODERS)
@pytest.mark.parametrize("size", [None, 50])
@pytest.mark.parametrize(("text", "mimetype", "usage"), ANSWERS.values(), ids=ANSWERS)
def test_encoded_answer_costs_what_it_would_without(text, mimetype, usage, size, coding):
    outcome = charged(encoded(text, mimetype, coding, size))
    assert outcome.usage == usage
    assert outcome.body == ENCODERS[coding](text.encode())
    assert outcome.used["concurrency"] == 0


@pytest.mark.parametrize("coding", ["gzip", "deflate, raw"])
def test_encoded_stream_may_come_byte_by_byte(coding):
    text, mimetype, usage = ANSWERS["events that report"]
    assert charged(encoded(text, mimetype, coding, 1)).usage == usage


OPTIONAL = {"br": ("brotli", "brotlicffi"), "zstd": ("zstandard", "pyzstd", "compression.zstd")}


@pytest.mark.parametrize("coding", [*OPTIONAL, "compress", "dcb", "aes128gcm", "rot13"])
@pytest.mark.parametrize("size", [None, 50])
def test_coding_that_nobody_decodes_leaves_the_reservation(coding, size):
    data = os.urandom(300)
    body = data if size is None else None
    answer = lambda: Response(  # noqa: E731
        body or iter(pieces(data, size)), mimetype="text/event-stream", headers={"Content-Encoding": coding}
    )
    outcome = charged(answer)
    assert outcome.used["tokens"] == RESERVED
    assert outcome.events[-1]["source"] == "reserved"
    assert outcome.body == data


@pytest.mark.parametrize(
    "coding", [name for name, modules in OPTIONAL.items() if any(map(importlib.util.find_spec, modules[:1]))]
)
def test_coding_whose_decoder_is_installed_is_decoded(coding):
    module = __import__(OPTIONAL[coding][0])
    text, mimetype, usage = ANSWERS["events"]
    data = module.compress(text.encode())
    answer = lambda: Response(iter(pieces(data, 50)), mimetype=mimetype, headers={"Content-Encoding": coding})  # noqa: E731
    assert charged(answer).usage == usage


TWICE = {
    "gzip, gzip": lambda data: gzip.compress(gzip.compress(data)),
    "deflate, gzip": lambda data: gzip.compress(ENCODERS["deflate"](data)),
    "identity, gzip": gzip.compress,
    "gzip, identity": gzip.compress,
}


@pytest.mark.parametrize("coding", TWICE)
@pytest.mark.parametrize("kind", ["events", "document that reports"])
def test_answer_encoded_twice_is_decoded_or_stays_reserved(coding, kind):
    text, mimetype, usage = ANSWERS[kind]
    data = TWICE[coding](text.encode())
    outcome = charged(lambda: Response(iter([data]), mimetype=mimetype, headers={"Content-Encoding": coding}))
    assert outcome.usage == usage or outcome.events[-1]["source"] == "reserved"
    assert outcome.used["tokens"] >= min(RESERVED, sum(usage))


BROKEN = {
    "no gzip at all": TEXT.encode(),
    "random": os.urandom(500),
    "gzip, then rubbish": gzip.compress(TEXT.encode()) + b"rubbish" * 20,
    "gzip with a flipped bit": bytes(b ^ (i == 60) for i, b in enumerate(gzip.compress(os.urandom(400)))),
    "gzip without its end": gzip.compress(TEXT.encode())[:-12],
    "gzip's head alone": gzip.compress(TEXT.encode())[:10],
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("mimetype", ["text/plain", "text/event-stream", "application/json"])
def test_coding_that_lies_costs_no_less_than_reserved(data, mimetype):
    outcome = charged(lambda: Response(iter(pieces(data, 40)), mimetype=mimetype, headers={"Content-Encoding": "gzip"}))
    assert outcome.body == data
    assert outcome.used["tokens"] >= RESERVED
    assert outcome.used["concurrency"] == 0


def test_encoded_stream_that_is_left_costs_what_was_seen():
    _, mimetype, _ = ANSWERS["events"]
    coder = __import__("zlib").compressobj(wbits=31)
    flushed = [coder.compress(event(chat(word)).encode()) + coder.flush(2) for word in HUNDRED]
    outcome = charged(
        lambda: Response(iter(flushed), mimetype=mimetype, headers={"Content-Encoding": "gzip"}), chunks=50
    )
    assert outcome.used["output"] == 50


@pytest.mark.parametrize("kind", ["events that report", "document that reports", "events", "text"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_answer_that_a_later_hook_encodes_costs_what_it_would_without(kind, when):
    """Flask-Compress is such a hook, and its client chooses whether it encodes."""
    text, mimetype, usage = ANSWERS[kind]

    def compress(response):
        if "gzip" in request.headers.get("Accept-Encoding", "").lower():
            response.direct_passthrough = False
            response.set_data(gzip.compress(response.get_data()))
            response.headers["Content-Encoding"] = "gzip"
        return response

    def setup(limits):
        hooks = limits.app.after_request_funcs.setdefault(None, [])
        hooks.insert(0 if when == "after" else len(hooks), compress)

    for accepted in ({}, {"Accept-Encoding": "gzip"}):
        outcome = charged(lambda: Response(text, mimetype=mimetype), setup=setup, request={"headers": accepted})
        assert outcome.usage == usage


@pytest.mark.parametrize(
    ("text", "mimetype", "size", "most"),
    [
        pytest.param(b"\0" * (32 << 20), "text/plain", 4096, 16 << 20, id="in pieces"),
        pytest.param(b"data: " + b"w " * (32 << 20), "text/event-stream", None, 40 << 20, id="in one piece"),
    ],
)
def test_bomb_is_passed_on_in_bounded_memory(text, mimetype, size, most):
    packed = gzip.compress(text)
    body = packed if size is None else iter(pieces(packed, size))
    limits = metered(lambda: Response(body, mimetype=mimetype, headers={"Content-Encoding": "gzip"}))
    tracemalloc.start()
    try:
        send(limits)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < most


# Passed through


@pytest.mark.parametrize(("text", "mimetype", "usage"), ANSWERS.values(), ids=ANSWERS)
def test_answer_that_is_passed_through_is_charged_like_every_other(text, mimetype, usage):
    slots = []

    def answer():
        def generate():
            for piece in pieces(text.encode(), 500):
                slots.append(by_unit(limits.used())["concurrency"])
                yield piece

        return Response(generate(), mimetype=mimetype, direct_passthrough=True)

    limits = metered(answer)
    outcome = send(limits)
    assert set(slots) == {1}
    assert outcome.usage == usage
    assert outcome.used["concurrency"] == 0
    assert outcome.body == text.encode()


@pytest.mark.parametrize(("text", "mimetype", "usage"), ANSWERS.values(), ids=ANSWERS)
def test_file_is_charged_what_it_reports_and_holds_its_slot_until_it_is_read(text, mimetype, usage):
    text += "\n" * 20_000  # The test client reads the first piece of 8 KB before it hands over the response.
    limits = metered(lambda: send_file(io.BytesIO(text.encode()), mimetype=mimetype))
    response = limits.client().post("/", json={"prompt": "one two three", "max_tokens": 40})
    early = by_unit(limits.used())
    assert (early["concurrency"], early["tokens"]) == (1, RESERVED)
    assert b"".join(response.response) == text.encode()
    response.close()
    used = by_unit(limits.used())
    assert used["concurrency"] == 0
    assert used["tokens"] == (sum(usage) if "usage" in text else RESERVED)


def test_forty_streams_that_are_passed_through_have_three_slots():
    limits = metered(lambda: Response(iter(SENT), mimetype="text/plain", direct_passthrough=True))
    answers = [limits.client().post("/", json={"prompt": "hi"}) for _ in range(40)]
    assert [each.status_code for each in answers].count(200) == 3
    for each in answers:
        each.close()
    assert by_unit(limits.used())["concurrency"] == 0


def test_stream_that_is_passed_through_and_left_is_abandoned():
    outcome = charged(lambda: Response(iter(SENT), mimetype="text/plain", direct_passthrough=True), chunks=30)
    assert outcome.usage == (GIVEN, 30)
    assert outcome.used["concurrency"] == 0


# Ranges and HEAD

LONG = " ".join(["word"] * 3000)


def conditional():
    response = Response(LONG, mimetype="text/plain")
    response.set_etag("v1")
    return response.make_conditional(request.environ, accept_ranges=True, complete_length=len(LONG))


RANGES = [
    "bytes=0-0",
    "bytes=-1",
    "bytes=0-99",
    "bytes=100-",
    "bytes=14998-",
    "bytes=0-0,5-5",
    "bytes=99999-",
    "bytes=x",
]


@pytest.mark.parametrize("span", RANGES)
def test_part_of_an_answer_costs_the_whole(span):
    outcome = charged(conditional, request={"headers": {"Range": span}, "method": "GET", "json": {"prompt": "hi"}})
    if outcome.status in (200, 206):
        assert outcome.used["output"] >= 1000


@pytest.mark.parametrize("span", ["bytes=0-0", "bytes=-1", "bytes=0-99"])
def test_part_of_a_reporting_answer_costs_what_was_used(span):
    text = json.dumps({"text": "a", **USAGE})

    def answer():
        response = Response(text, mimetype="application/json")
        return response.make_conditional(request.environ, accept_ranges=True, complete_length=len(text))

    outcome = charged(answer, request={"headers": {"Range": span}, "method": "GET", "json": {"prompt": "hi"}})
    assert outcome.status == 206
    assert outcome.used["tokens"] >= 1000


@pytest.mark.parametrize("span", ["bytes=0-0", "bytes=-1"])
def test_part_of_an_answer_costs_what_the_view_records(span):
    def answer(limiter):
        limiter.record_usage(input_tokens=1000, output_tokens=2000)
        return conditional()

    outcome = charged(answer, request={"headers": {"Range": span}, "method": "GET"})
    assert outcome.usage == (1000, 2000)


@pytest.mark.parametrize("tag", ['"v1"', "*"])
def test_answer_that_its_client_has_already_costs_what_the_view_records(tag):
    def answer(limiter):
        limiter.record_usage(output_tokens=2000)
        return conditional()

    outcome = charged(answer, request={"headers": {"If-None-Match": tag}, "method": "GET"})
    assert outcome.status == 304
    assert outcome.used["output"] == 2000


@pytest.mark.parametrize("kind", ANSWERS)
def test_head_costs_what_a_get_costs(kind):
    text, mimetype, usage = ANSWERS[kind]
    body = {"prompt": "one two three", "max_tokens": 40}
    whole = charged(lambda: Response(text, mimetype=mimetype), request={"method": "HEAD", "json": body})
    assert whole.body == b""
    assert whole.usage == usage
    # Nobody iterates over a stream whose head alone was asked for, so its view has generated nothing.
    stream = charged(streamed([text], mimetype), request={"method": "HEAD", "json": body})
    assert stream.body == b""
    assert stream.used["concurrency"] == whole.used["concurrency"] == 0


# Media types that lie

FIVES = {"usage": {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}}
DONE = {"prompt_eval_count": 5, "eval_count": 5}
BODIES = {
    "lines": "".join(lines(chat("a b "), chat("c"), {"id": "chatcmpl-1", "choices": [], **FIVES})),
    "lines of Ollama's": "".join(lines({"response": "a b ", "done": False}, {"response": "", "done": True, **DONE})),
    "events": "".join([event(chat("a b ")), *events(chat_usage(5, 5), "[DONE]")]),
    "events after a comment": ": hello\n\n" + "".join([event(chat("a b ")), *events(chat_usage(5, 5), "[DONE]")]),
    "events with names": "event: chunk\n" + "".join([event(chat("a b ")), *events(chat_usage(5, 5), "[DONE]")]),
    "events after a mark": "\ufeff" + "".join([event(chat("a b ")), *events(chat_usage(5, 5), "[DONE]")]),
    "events after their retry": "retry: 3000\n\n" + "".join([event(chat("a b ")), *events(chat_usage(5, 5), "[DONE]")]),
    "events after an id": "id: 1\n" + "".join([event(chat("a b ")), *events(chat_usage(5, 5), "[DONE]")]),
    "events after line feeds": "\n\n" + "".join([event(chat("a b ")), *events(chat_usage(5, 5), "[DONE]")]),
    "document": json.dumps({"choices": [{"message": {"content": "a b"}}], **FIVES}),
    "indented document": json.dumps({"choices": [{"message": {"content": "a b"}}], **FIVES}, indent=2),
    "document after white space": "\r\n  " + json.dumps({"choices": [{"message": {"content": "a b"}}], **FIVES}),
}
TYPES = [
    "application/json",
    "application/stream+json",
    "application/x-ndjson",
    "application/jsonl",
    "text/event-stream",
    "text/plain",
    "text/html",
    "application/octet-stream",
    "application/x-json-stream",
    "text/x-unknown",
]


@pytest.mark.parametrize("mimetype", TYPES)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_first_bytes_decide_what_the_media_type_does_not_say(body, mimetype):
    assert charged(streamed(pieces(body.encode(), 11), mimetype)).used["tokens"] == 10


@pytest.mark.parametrize("mimetype", ["application/json", "text/plain", "application/octet-stream"])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_first_bytes_decide_for_a_plain_answer_too(body, mimetype):
    assert charged(lambda: Response(body, mimetype=mimetype)).used["tokens"] == 10


ANYONE_S_LINES = "".join(lines({"text": "a b "}, {"text": "c"}, {"id": "1", "choices": [], **FIVES}))
USED_BY_LINES = {
    **dict.fromkeys(["application/json", "application/x-ndjson", "application/jsonl"], 10),
    **dict.fromkeys(["text/plain", "text/html", "text/x-unknown"], GIVEN + len(ANYONE_S_LINES.split())),
    **dict.fromkeys(["application/octet-stream", "application/x-json-stream"], RESERVED),
}


@pytest.mark.parametrize(("mimetype", "used"), USED_BY_LINES.items(), ids=USED_BY_LINES)
def test_lines_that_any_model_could_write_are_lines_only_if_json_was_promised(mimetype, used):
    assert charged(streamed(pieces(ANYONE_S_LINES.encode(), 11), mimetype)).used["tokens"] == used
    assert charged(lambda: Response(ANYONE_S_LINES, mimetype=mimetype)).used["tokens"] == used


# JSON that is no text

PICTURE = base64.b64encode(os.urandom(90_000)).decode()
HEX = os.urandom(50_000).hex()
VECTOR = [i / 1024 for i in range(1024)]


NO_TEXT = {
    "picture": ({"created": 1, "data": [{"b64_json": PICTURE}]}, 0),
    "picture as an address": ({"data": [{"url": "data:image/png;base64," + PICTURE}]}, 0),
    "picture with a prompt made better": ({"data": [{"b64_json": PICTURE, "revised_prompt": "a b c"}]}, 3),
    "picture of Gemini's": (
        {"candidates": [{"content": {"parts": [{"inlineData": {"mimeType": "i", "data": PICTURE}}]}}]},
        0,
    ),
    "picture of Stability's": ({"artifacts": [{"base64": PICTURE, "finishReason": "SUCCESS"}]}, 0),
    "pictures of Titan's": ({"images": [PICTURE], "error": None}, 0),
    "picture of a response": ({"output": [{"type": "image_generation_call", "id": "1", "result": PICTURE}]}, 0),
    "sound in a chat": (
        {"choices": [{"message": {"content": None, "audio": {"id": "a", "data": PICTURE, "transcript": "a b c"}}}]},
        3,
    ),
    "sound of one's own": ({"audio": PICTURE, "format": "wav"}, 0),
    "sound in letters of addresses": ({"audio": PICTURE.replace("+", "-").replace("/", "_")}, 0),
    "sound in lines": ({"audio": "\n".join(PICTURE[i : i + 76] for i in range(0, 100_000, 76))}, 0),
    "bytes in hexadecimal": ({"audio": HEX}, 0),
    "embedding": ({"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": VECTOR}]}, 0),
    "embedding in base64": ({"data": [{"embedding": PICTURE[:8192]}]}, 0),
    "embeddings of Ollama's": ({"model": "m", "embeddings": [VECTOR, VECTOR]}, 0),
    "embeddings of Gemini's": ({"embeddings": [{"values": VECTOR}]}, 0),
    "embeddings of Cohere's": ({"id": "1", "embeddings": {"float": [VECTOR]}, "texts": ["a b"]}, 0),
    "embeddings alone": ([VECTOR, VECTOR], 0),
    "numbers alone": (VECTOR, 0),
    "error with status 200": ({"error": {"message": " ".join(["w"] * 30), "type": "server_error", "code": None}}, 0),
    "error of Claude's": ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, 0),
    "queued response": (
        {
            "id": "resp_1",
            "object": "response",
            "status": "queued",
            "background": True,
            "output": [],
            "instructions": " ".join(["w"] * 300),
            "model": "gpt-5",
            "tools": [{"type": "function", "name": "f", "description": " ".join(["w"] * 300)}],
            "usage": None,
            "metadata": {"a": "b"},
        },
        0,
    ),
    "batch": ({"id": "batch_1", "object": "batch", "endpoint": "/v1/x", "status": "validating", "errors": None}, 0),
    "list of models": ({"object": "list", "data": [{"id": f"model-{i}", "object": "model"} for i in range(200)]}, 0),
    "moderation": (
        {"id": "modr-1", "results": [{"flagged": False, "categories": {"a": False}, "category_scores": {"a": 0.1}}]},
        0,
    ),
    "ranking": ({"results": [{"index": i, "relevance_score": 0.5} for i in range(500)]}, 0),
    "token ids": ({"tokens": list(range(5000)), "count": 5000}, 0),
    "log probabilities": (
        {
            "choices": [
                {
                    "message": {"content": "a b c"},
                    "logprobs": {
                        "content": [
                            {
                                "token": t,
                                "logprob": -0.1,
                                "bytes": [97],
                                "top_logprobs": [{"token": "x", "bytes": [1]}] * 20,
                            }
                            for t in "abc" * 10
                        ]
                    },
                }
            ]
        },
        3,
    ),
    "thinking that is encrypted": (
        {"content": [{"type": "redacted_thinking", "data": PICTURE[:40_000]}, {"type": "text", "text": "a b c"}]},
        3,
    ),
    "signature of a thought": (
        {"content": [{"type": "thinking", "thinking": "a b", "signature": PICTURE[:40_000]}]},
        2,
    ),
    "reasoning that is encrypted": (
        {"output": [{"type": "reasoning", "id": "1", "summary": [], "encrypted_content": PICTURE[:40_000]}]},
        0,
    ),
    "transcription in words": (
        {
            "text": "a b c",
            "words": [{"word": w, "start": 0.1, "end": 0.2} for w in "abc"],
            "segments": [{"id": 0, "text": "a b c", "tokens": list(range(400)), "avg_logprob": -0.2}],
        },
        3,
    ),
    "null": (None, 0),
    "true": (True, 0),
    "number": (7, 0),
    "empty": ({}, 0),
}


@pytest.mark.parametrize(("payload", "text"), NO_TEXT.values(), ids=NO_TEXT)
def test_json_that_is_no_text_costs_at_most_what_was_reserved(payload, text):
    outcome = charged(document(payload), token_counter="estimate")
    assert outcome.used["tokens"] <= outcome.reserved["tokens"] + 2 * text
    assert outcome.used["output"] >= min(text, 1)


@pytest.mark.parametrize("name", ["embedding", "ranking", "queued response", "error with status 200", "empty"])
def test_answer_without_any_output_is_charged_no_output(name):
    payload, _ = NO_TEXT[name]
    assert charged(document(payload)).usage == (GIVEN, 0)


@pytest.mark.parametrize("name", ["picture", "sound in a chat", "embedding", "queued response"])
def test_json_that_is_no_text_costs_at_most_what_was_reserved_in_pieces_too(name):
    payload, text = NO_TEXT[name]
    outcome = charged(streamed(pieces(json.dumps(payload).encode(), 60_000), "application/json"))
    assert outcome.used["tokens"] <= RESERVED + text


PICTURES_IN_EVENTS = {
    "partial picture": {"type": "response.image_generation_call.partial_image", "partial_image_b64": PICTURE},
    "sound of a response": {"type": "response.audio.delta", "delta": PICTURE},
    "sound of the realtime API": {"type": "response.output_audio.delta", "item_id": "1", "delta": PICTURE},
    "sound of a chat": {"choices": [{"index": 0, "delta": {"audio": {"data": PICTURE}}}]},
    "sound of one's own": {"type": "audio", "audio": PICTURE},
    "picture of Gemini's": {"candidates": [{"content": {"parts": [{"inlineData": {"data": PICTURE}}]}}]},
}


@pytest.mark.parametrize("payload", PICTURES_IN_EVENTS.values(), ids=PICTURES_IN_EVENTS)
def test_picture_or_sound_in_events_costs_at_most_what_was_reserved(payload):
    outcome = charged(streamed(events(payload, payload)), token_counter="estimate")
    assert outcome.used["tokens"] <= outcome.reserved["tokens"]


@pytest.mark.parametrize("size", [1 << 20, 3 << 20])
@pytest.mark.parametrize("how", ["stream", "whole"])
def test_large_document_is_charged_what_it_reports_at_its_end(size, how):
    text = json.dumps({"data": [{"b64_json": "QUJD" * (size // 4)}], **FIVES})
    answer = streamed(pieces(text.encode(), 65536), "application/json") if how == "stream" else document(text)
    assert charged(answer).usage == (5, 5)


def test_large_document_of_text_is_charged_what_it_reports_at_its_end():
    text = json.dumps({"choices": [{"message": {"content": "word " * 300_000}}], **FIVES})
    outcome = charged(streamed(pieces(text.encode(), 65536), "application/json"), token_counter="estimate")
    assert outcome.used["output"] >= 300_000 // 4  # The report is below what was certainly seen.
    assert outcome.used["output"] <= 600_000
