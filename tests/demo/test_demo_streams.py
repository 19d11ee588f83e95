import json
from pathlib import Path

import pytest
from demo_doors import BODIES

from demo_app.model import Usage
from demo_app.scripted import ScriptedModel

every_door = pytest.mark.parametrize("path", BODIES)
TEXT = "All good things come in threes."


def events(response):
    """The events of a whole stream, as (name, JSON or text)."""
    read = []
    for block in response.text.removesuffix("\n\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        data = fields["data"]
        read.append((fields.get("event"), data if data == "[DONE]" else json.loads(data)))
    return read


def ask(client, path, **more):
    return client.post(path, json={**BODIES[path], "stream": True, **more})


def test_a_prediction_streams_texts_then_usage_then_done(client):
    assert events(ask(client, "/predict", max_tokens=2)) == [
        (None, {"text": "All"}),
        (None, {"text": " good"}),
        (None, {"finish_reason": "length", "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}}),
        (None, "[DONE]"),
    ]


def test_a_chat_streams_chunks_and_shows_no_usage_unasked(client):
    *chunks, done = events(ask(client, "/v1/chat/completions"))
    assert done == (None, "[DONE]")
    assert len({chunk["id"] for _, chunk in chunks}) == 1
    assert not any("usage" in chunk for _, chunk in chunks)
    assert chunks[0][1]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for _, chunk in chunks) == TEXT
    assert [chunk["choices"][0]["finish_reason"] for _, chunk in chunks] == [None] * 7 + ["stop"]


def test_a_chat_streams_usage_last_when_asked(client):
    *chunks, usage, done = events(ask(client, "/v1/chat/completions", stream_options={"include_usage": True}))
    assert done == (None, "[DONE]")
    assert usage[1]["choices"] == []
    assert usage[1]["usage"] == {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9}
    assert all(chunk["usage"] is None for _, chunk in chunks)


def test_a_message_streams_named_events_in_order(client):
    read = events(ask(client, "/v1/messages"))
    assert all(name == data["type"] for name, data in read)
    assert [name for name, _ in read] == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 6,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert read[0][1]["message"]["usage"] == {"input_tokens": 3, "output_tokens": 0}
    assert read[-2][1]["usage"] == {"input_tokens": 3, "output_tokens": 6}
    assert read[-2][1]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}


@every_door
def test_a_stream_is_not_to_be_cached_or_buffered(client, path):
    response = ask(client, path)
    assert response.mimetype == "text/event-stream"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Accel-Buffering"] == "no"
    response.close()


def total(recorded):
    return tuple(map(sum, zip(*recorded, strict=True)))


@every_door
@pytest.mark.parametrize("stream", [True, False])
def test_usage_is_recorded_exactly(client, recorded, path, stream):
    client.post(path, json={**BODIES[path], "stream": stream}).get_data()
    assert total(recorded) == (3, 6)


@every_door
def test_usage_is_recorded_before_the_text_leaves(client, recorded, path):
    response = ask(client, path)
    recorded_at = {}
    for chunk in response.iter_encoded():
        for count, word in enumerate(TEXT.split(), start=1):
            if f'"{word}"' in chunk.decode() or f'" {word}"' in chunk.decode():
                recorded_at[count] = total(recorded)
    assert recorded_at == {count: (3, count) for count in range(1, 7)}


@pytest.fixture
def kept(model, monkeypatch):
    """Keeps the model's streams alive, so that only who closes them ends them."""
    streams, stream = [], model.stream

    def keep(call):
        streams.append(stream(call))
        return streams[-1]

    monkeypatch.setattr(model, "stream", keep)


@every_door
@pytest.mark.usefixtures("kept")
def test_a_reader_who_leaves_ends_the_work_and_pays_for_what_was_written(client, model, recorded, path):
    response = ask(client, path)
    chunks = response.iter_encoded()
    while b" good" not in next(chunks):
        pass
    response.close()
    assert (model.finished, model.abandoned) == (0, 1)
    assert total(recorded) == (3, 2)


@every_door
@pytest.mark.usefixtures("kept")
def test_a_stream_that_nobody_reads_ends_the_work(app, client, model, path):
    with app.test_request_context(
        path, method="POST", json={**BODIES[path], "stream": True}, headers={"x-api-key": "key-for-tests"}
    ):
        response = app.full_dispatch_request()
        response.close()
    assert (model.finished, model.abandoned) == (0, 1)


@every_door
def test_a_model_that_breaks_in_a_stream_is_told_in_the_stream(client, model, recorded, path):
    model.breaks_after = 2
    response = ask(client, path)
    assert response.status_code == 200
    name, error = events(response)[-1]
    assert (name, error["error"]["code"]) == ("error", "model_failed")
    assert error["request_id"] == response.headers["x-request-id"]
    assert total(recorded) == (3, 2)


def test_exotic_line_breaks_in_a_text_stay_inside_their_event(client, model):
    model.words = ("a\u2028b\u0085c\rd\ne",)
    response = ask(client, "/predict")
    assert response.text.isascii()
    assert events(response)[0] == (None, {"text": "a\u2028b\u0085c\rd\ne"})


def test_total_tokens_is_the_sum():
    assert Usage(3, 4).total_tokens == 7


def test_only_tests_use_the_scripted_model():
    package = Path(__file__).parents[2] / "demo_app"
    users = [path.name for path in package.glob("*.py") if ScriptedModel.__name__ in path.read_text()]
    assert users == ["scripted.py"]
