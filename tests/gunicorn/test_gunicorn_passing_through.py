"""What a stream's client gets is what the view said, piece by piece, and no later."""

import random

import pytest
from gunicorn_app import event

STRANGE = (
    "\xff\xfe no UTF-8 \x80",
    'data: {"choices": [{"delta": {"content": "cut',
    ' here"}}]}\r\n\r\n',
    "\r",
    "\n\n\n: a comment\n",
    "data: not JSON\n\ndata:\n\n",
    event("\\u00e9"),
    "x" * 100_000,
    "data: [DONE]",
    "\n\ndata: after the end\n\n",
)


@pytest.mark.parametrize("mimetype", ["text/event-stream", "application/x-ndjson", "text/plain", "audio/wav"])
def test_each_piece_arrives_unchanged_while_the_next_is_not_known_yet(server, upstream, key, mimetype):
    call = server.call(f"/stream?type={mimetype}", key)
    conversation = upstream.called()
    for said in STRANGE:
        conversation.say(said)
        heard = b""
        while len(heard) < len(said):
            heard += call.chunk()
        assert heard == said.encode("latin-1")
    conversation.close()
    assert call.rest() == b""


def test_first_piece_of_an_announced_length_arrives_while_the_next_is_not_known_yet(server, upstream, key):
    call = server.call("/stream?length=6&type=text/plain", key)
    conversation = upstream.called()
    conversation.say("one ")
    assert call.chunk() == b"one "
    conversation.say("2\n")
    conversation.close()
    assert call.rest() == b"2\n"


def test_stream_cut_anywhere_is_passed_on_unchanged(server, upstream, key):
    whole = "".join(map(event, ("one ", "two ", "three "))) + "data: [DONE]\n\n"
    call = server.call("/stream", key)
    conversation = upstream.called()
    dice = random.Random(key)
    rest = whole
    while rest:
        cut = dice.randint(1, 9)
        conversation.say(rest[:cut])
        rest = rest[cut:]
    conversation.close()
    assert call.rest() == whole.encode()
    assert server.books.used(key)["tokens"] == 5 + 3


def test_limits_are_told_before_the_first_byte_of_a_stream(server, upstream, key):
    call = server.call("/stream", key)
    conversation = upstream.called()
    conversation.say(event("one "))
    headers = call.response.headers
    assert call.chunk() == event("one ").encode()  # Nothing more has been said yet.
    assert headers["x-ratelimit-limit-tokens"] == "1000000"
    assert headers["x-ratelimit-remaining-tokens"] == str(1_000_000 - 45)
    assert headers["x-ratelimit-remaining-requests"] == "99999"
    assert headers["X-RateLimit-Remaining"]
    assert headers["RateLimit"]
    assert "Retry-After" not in headers


def test_second_stream_is_told_to_wait_while_the_first_is_under_way(server, upstream, key):
    first = server.call("/stream", key)
    conversation = upstream.called()
    conversation.say(event("one "))
    first.chunk()
    second = server.call("/stream", key)
    assert second.status == 429
    assert second.response.headers["Retry-After"] == "1"
    conversation.close()
    first.rest()
    assert server.call("/stream", key, method="HEAD").status == 200
    assert server.books.used(key)["requests"] == 2
