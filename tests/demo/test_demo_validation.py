import gzip
import json

import pytest
from demo_doors import BODIES, CHAT

from demo_app.validation import MAX_BODY_BYTES, MAX_TEXT_BYTES

CANARY = "canary-d1f7"


def error(response):
    assert response.is_json, response.text
    return response.status_code, response.json["error"]["code"]


def send(client, path, raw, **headers):
    return client.post(path, data=raw, headers={"Content-Type": "application/json", **headers})


every_door = pytest.mark.parametrize("path", BODIES)


@every_door
@pytest.mark.parametrize("content_type", ["text/plain", "", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_only_json_is_taken(client, path, content_type):
    response = client.post(path, data=json.dumps(BODIES[path]), content_type=content_type)
    assert error(response) == (415, "unsupported_media_type")


@every_door
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip"])
def test_no_compressed_body_is_taken(client, path, encoding):
    raw = gzip.compress(json.dumps(BODIES[path]).encode())
    assert error(send(client, path, raw, **{"Content-Encoding": encoding})) == (415, "unsupported_encoding")


@every_door
@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"prompt": "x",}', "invalid_json"),
        (b"{'prompt': 'x'}", "invalid_json"),
        (b'{"prompt": "\xff"}', "invalid_json"),
        ('{"prompt": "x"}'.encode("utf-16"), "invalid_json"),
        (b'{"prompt": "x", "temperature": NaN}', "invalid_json"),
        (b'{"prompt": "x", "temperature": -Infinity}', "invalid_json"),
        (b'{"prompt": "x", "max_tokens": 1e999}', "invalid_number"),
        (b'{"prompt": "x", "max_tokens": 1' + b"0" * 5000 + b"}", "invalid_json"),
        (b"[" * 100_000, "json_too_deep"),
        (b"[" * 65 + b"]" * 65, "json_too_deep"),
        (b'{"prompt": "x", "max_tokens": 1, "max_tokens": 1000}', "duplicate_field"),
        (b'{"prompt": "\\ud800"}', "invalid_unicode"),
        (b"[]", "invalid_request"),
        (b'"text"', "invalid_request"),
        (b"null", "invalid_request"),
        (b"7", "invalid_request"),
    ],
)
def test_a_body_that_is_no_strict_json_object_is_refused(client, model, path, raw, code):
    assert error(send(client, path, raw)) == (400, code)
    assert model.calls == []


@every_door
def test_a_byte_order_mark_and_a_charset_do_no_harm(client, path):
    raw = b"\xef\xbb\xbf" + json.dumps(BODIES[path]).encode()
    assert send(client, path, raw, **{"Content-Type": "application/json; charset=utf-8"}).status_code == 200


@every_door
def test_a_body_is_refused_by_its_length_before_it_is_read(client, path):
    response = send(client, path, b"x" * (MAX_BODY_BYTES + 1))
    assert error(response) == (413, "request_too_large")
    assert response.headers["x-should-retry"] == "false"
    assert "Retry-After" not in response.headers


@every_door
@pytest.mark.parametrize(
    ("max_tokens", "code"),
    [
        (0, "max_tokens_out_of_range"),
        (-1, "max_tokens_out_of_range"),
        (1025, "max_tokens_out_of_range"),
        (10**399, "max_tokens_out_of_range"),
        (True, "max_tokens_type"),
        ("100", "max_tokens_type"),
        (1.5, "max_tokens_type"),
        (100.0, "max_tokens_type"),
        (-0.0, "max_tokens_type"),
        ([1], "max_tokens_type"),
    ],
)
def test_max_tokens_is_a_whole_number_in_range(client, model, path, max_tokens, code):
    response = client.post(path, json={**BODIES[path], "max_tokens": max_tokens})
    assert error(response) == (400, code)
    assert response.json["error"]["param"] == "max_tokens"
    assert model.calls == []


@every_door
@pytest.mark.parametrize(("extra", "expected"), [({}, 128), ({"max_tokens": None}, 128), ({"max_tokens": 7}, 7)])
def test_max_tokens_has_a_default(client, model, path, extra, expected):
    body = {name: value for name, value in BODIES[path].items() if name != "max_tokens"}
    assert client.post(path, json={**body, **extra}).status_code == 200
    assert model.calls[0].max_tokens == expected


@every_door
@pytest.mark.parametrize("stream", ["yes", 1, 0, [], {}])
def test_stream_is_a_boolean(client, path, stream):
    assert error(client.post(path, json={**BODIES[path], "stream": stream})) == (400, "stream_type")


@every_door
@pytest.mark.parametrize(
    ("temperature", "code"),
    [
        (-0.1, "temperature_out_of_range"),
        (2.1, "temperature_out_of_range"),
        (True, "temperature_type"),
        ("1", "temperature_type"),
    ],
)
def test_temperature_is_a_number_in_range(client, path, temperature, code):
    assert error(client.post(path, json={**BODIES[path], "temperature": temperature})) == (400, code)


@every_door
def test_a_field_that_would_be_ignored_is_refused(client, path):
    response = client.post(path, json={**BODIES[path], CANARY: 1})
    assert error(response) == (400, "unsupported_field")
    assert CANARY not in response.text


@every_door
@pytest.mark.parametrize("text", ["a" * 100_000, "漢" * 6000, "😀" * 5000, "\u200b" * 6000])
def test_a_text_too_long_to_count_is_refused_without_counting(client, model, path, text):
    body = {"prompt": text} if path == "/predict" else {**BODIES[path], "messages": [{"role": "user", "content": text}]}
    response = client.post(path, json=body)
    assert error(response) == (413, "request_too_large")
    assert model.calls == []


@every_door
def test_texts_add_up_to_the_longest_text(client, path):
    half = "a" * (MAX_TEXT_BYTES // 2)
    turns = [
        {"role": "user", "content": half},
        {"role": "assistant", "content": half},
        {"role": "user", "content": "b"},
    ]
    body = {"prompt": half * 2 + "b"} if path == "/predict" else {**BODIES[path], "messages": turns}
    assert client.post(path, json=body).status_code == 413


@every_door
def test_control_characters_in_a_text_are_taken(client, model, path):
    body = {"prompt": "a\x00b"} if path == "/predict" else {**CHAT, "messages": [{"role": "user", "content": "a\x00b"}]}
    assert client.post(path, json=body).status_code == 200
    assert model.calls[0].messages[0].text == "a\x00b"


@every_door
def test_too_much_for_the_context_is_named_as_the_sdks_know_it(client, model, path):
    model.context = 100
    response = client.post(path, json={**BODIES[path], "max_tokens": 98})
    assert error(response) == (400, "context_length_exceeded")
    assert "at most 100 tokens" in response.json["error"]["message"]
    assert client.post(path, json={**BODIES[path], "max_tokens": 97}).status_code == 200


@every_door
def test_too_much_for_the_context_is_an_ordinary_error_on_a_stream_too(client, model, path):
    model.context = 100
    response = client.post(path, json={**BODIES[path], "max_tokens": 98, "stream": True})
    assert error(response) == (400, "context_length_exceeded")


@pytest.mark.parametrize("prompt", [None, "", "  \n", 7, [], ["hi"], {"text": "hi"}])
def test_a_prompt_is_a_text_that_is_not_blank(client, prompt):
    assert error(client.post("/predict", json={"prompt": prompt})) == (400, "invalid_prompt")


chat_doors = pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])


@chat_doors
@pytest.mark.parametrize(
    ("name", "status"),
    [
        (None, 400),
        ("gpt-4o", 404),
        (f"{CANARY}" * 1000, 404),
        ("../scripted", 404),
        ("scripted\r\nX-Evil: 1", 404),
        ("", 404),
        (7, 404),
        (["scripted"], 404),
    ],
)
def test_only_the_served_model_is_found(client, path, name, status):
    response = client.post(path, json={**BODIES[path], "model": name})
    assert error(response) == (status, "model_not_found")
    assert CANARY not in response.text


def turn(content, role="user", **more):
    return {"role": role, "content": content, **more}


@chat_doors
@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (None, "messages"),
        ([], "messages"),
        ("hi", "messages"),
        ({"role": "user"}, "messages"),
        (["hi"], "messages[0]"),
        ([turn("hi"), {}], "messages[1].role"),
        ([turn("hi", role="tool")], "messages[0].role"),
        ([turn("hi", role="USER")], "messages[0].role"),
        ([turn("hi", role=["user"])], "messages[0].role"),
        ([turn(None)], "messages[0].content"),
        ([turn(7)], "messages[0].content"),
        ([turn([])], "messages[0].content"),
        ([turn(["hi"])], "messages[0].content[0]"),
        ([turn([{"type": "image_url"}])], "messages[0].content[0]"),
        ([turn([{"type": "text"}])], "messages[0].content[0]"),
        ([turn("hi", tool_calls=[])], "messages[0]"),
        ([turn("hi"), turn("hello", role="assistant")], "messages[1].role"),
    ],
)
def test_a_broken_conversation_is_refused_where_it_is_broken(client, path, messages, param):
    response = client.post(path, json={**BODIES[path], "messages": messages})
    assert error(response) == (400, "invalid_messages")
    assert response.json["error"]["param"] == param


@chat_doors
def test_a_conversation_has_a_largest_number_of_messages(client, path):
    response = client.post(path, json={**BODIES[path], "messages": [turn("a")] * 129})
    assert error(response) == (400, "too_many_messages")


def test_a_million_messages_are_too_many_bytes_or_messages(client):
    response = send(client, "/v1/chat/completions", b'{"model":"scripted","messages":[' + b"0," * 400_000 + b"0]}")
    assert error(response) == (400, "too_many_messages")


@pytest.mark.parametrize("name", ["n", "best_of"])
@pytest.mark.parametrize("value", [0, 2, -1, "1", True, 1.0])
def test_there_is_one_answer_to_a_request(client, name, value):
    response = client.post("/v1/chat/completions", json={**CHAT, name: value})
    assert error(response) == (400, "n_out_of_range")


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        ({"max_tokens": 5, "max_completion_tokens": 6}, "conflicting_fields"),
        ({"max_completion_tokens": 0}, "max_tokens_out_of_range"),
        ({"max_completion_tokens": "5"}, "max_tokens_type"),
        ({"stream_options": {"include_usage": True}}, "conflicting_fields"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "include_usage_type"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "invalid_stream_options"),
        ({"stream": True, "stream_options": True}, "invalid_stream_options"),
        ({"stop": ""}, "invalid_stop"),
        ({"stop": ["a"] * 5}, "invalid_stop"),
        ({"stop": [1]}, "invalid_stop"),
        ({"stop": "s" * 65}, "invalid_stop"),
        ({"seed": -1}, "seed_out_of_range"),
        ({"seed": 2**32}, "seed_out_of_range"),
        ({"seed": True}, "seed_out_of_range"),
        ({"top_p": 1.1}, "top_p_out_of_range"),
        ({"tools": []}, "unsupported_field"),
        ({"response_format": {"type": "json_object"}}, "unsupported_field"),
    ],
)
def test_chat_options_are_checked(client, extra, code):
    assert error(client.post("/v1/chat/completions", json={**CHAT, **extra})) == (400, code)


def test_chat_options_reach_the_model(client, model):
    options = {
        "max_completion_tokens": 9,
        "max_tokens": 9,
        "temperature": 1,
        "top_p": 0.5,
        "seed": 3,
        "stop": ["x", "y"],
    }
    messages = [turn("be kind", role="developer"), turn([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])]
    assert (
        client.post("/v1/chat/completions", json={**CHAT, **options, "messages": messages, "n": 1}).status_code == 200
    )
    call = model.calls[0]
    assert (call.max_tokens, call.temperature, call.top_p, call.seed, call.stop) == (9, 1.0, 0.5, 3, ("x", "y"))
    assert [(message.role, message.text) for message in call.messages] == [("system", "be kind"), ("user", "ab")]


@pytest.mark.parametrize("system", [7, [], [{"type": "image"}], {"text": "x"}])
def test_a_system_prompt_is_a_text(client, system):
    response = client.post("/v1/messages", json={**BODIES["/v1/messages"], "system": system})
    assert error(response) == (400, "invalid_messages")
    assert response.json["error"]["param"].startswith("system")


def test_a_system_prompt_counts_as_text(client):
    body = {**BODIES["/v1/messages"], "system": "s" * MAX_TEXT_BYTES}
    assert error(client.post("/v1/messages", json=body)) == (413, "request_too_large")


def test_a_system_prompt_is_the_first_message(client, model):
    body = {**BODIES["/v1/messages"], "system": [{"type": "text", "text": "be kind"}], "metadata": {"user_id": "u"}}
    assert client.post("/v1/messages", json=body).status_code == 200
    assert [message.role for message in model.calls[0].messages] == ["system", "user"]
