"""Answers that Flask hands to the server as they are (direct_passthrough, files) hold their slots like all others."""

import time

from gunicorn_app import BIG_FILE, event
from gunicorn_books import wait_for
from gunicorn_client import INPUT, RESERVED, Crowd

CROWD = 40

SOON = 10.0
"""Seconds from a client's leaving to the end of its slot, on a machine that may be busy."""


def test_direct_stream_has_one_slot_though_forty_ask_at_once(server, upstream, key):
    crowd = Crowd(server.port, "/stream?direct", [key] * CROWD)
    crowd.ask()
    conversation = upstream.called()
    assert crowd.collect(CROWD - 1) == {429: CROWD - 1}
    assert server.books.used(key)["concurrency"] == 1
    conversation.say(event("one two "))
    conversation.say("data: [DONE]\n\n")
    conversation.close()
    assert crowd.collect() == {200: 1, 429: CROWD - 1}
    assert server.books.used(key) == {"requests": 1, "tokens": INPUT + 2, "concurrency": 0}


def test_direct_stream_is_settled_before_its_last_event_arrives(server, upstream, key):
    call = server.call("/stream?direct", key)
    conversation = upstream.called()
    conversation.say(event("one two "))
    assert call.chunk() == event("one two ").encode()
    assert server.books.used(key) == {"requests": 1, "tokens": RESERVED, "concurrency": 1}
    conversation.say("data: [DONE]\n\n")
    assert call.chunk() == b"data: [DONE]\n\n"
    assert server.books.used(key) == {"requests": 1, "tokens": INPUT + 2, "concurrency": 0}
    conversation.close()
    assert call.rest() == b""


def test_direct_stream_whose_client_leaves_ends_when_the_view_lets_go(server, upstream, key):
    call = server.call("/stream?direct", key)
    conversation = upstream.called()
    conversation.say(event("one two "))
    assert call.chunk()
    call.leave()
    assert conversation.client_gone()
    assert server.books.used(key)["concurrency"] == 1
    conversation.say(event("three "))
    server.books.wait_settled(key)
    assert server.books.used(key) == {"requests": 1, "tokens": INPUT + 3, "concurrency": 0}


def test_file_holds_its_slot_until_it_has_been_sent(server, key):
    call = server.call("/file", key, receive_buffer=4096)
    assert call.status == 200
    assert server.books.used(key, "file") == {"requests": 1, "tokens": RESERVED, "concurrency": 1}
    assert server.call("/file", key).status == 429
    assert len(call.rest()) == BIG_FILE
    assert server.books.used(key, "file") == {"requests": 1, "tokens": RESERVED, "concurrency": 0}
    assert server.call("/file", key, method="HEAD").status == 200


def test_part_of_a_file_arrives_and_stays_charged_as_reserved(server, key):
    call = server.call("/file", key, method="GET", headers={"Range": "bytes=3-8"})
    assert (call.status, call.rest()) == (206, b"\0" * 6)
    # A GET has no body to estimate.
    assert server.books.used(key, "file") == {"requests": 1, "tokens": 1024, "concurrency": 0}


def test_client_that_leaves_a_file_gives_its_slot_back(server, key):
    call = server.call("/file", key, receive_buffer=4096)
    assert call.status == 200
    left = time.monotonic()
    call.reset()
    wait_for(lambda: server.books.used(key, "file")["concurrency"] == 0)
    assert time.monotonic() - left < SOON
