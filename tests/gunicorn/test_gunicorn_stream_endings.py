"""Every way a stream can end, on every kind of worker: settled once, rightly, and soon."""

import http.client
import time
from contextlib import suppress

import pytest
from gunicorn_app import WRITE_TIMEOUT, event
from gunicorn_books import wait_for
from gunicorn_client import INPUT, RESERVED

SOON = 5.0
"""Seconds from an event to its settlement: at once, but for what a busy machine takes."""


def begun(server, upstream, key):
    """A stream of which the client has read two tokens, and whose upstream has fallen silent."""
    call = server.call("/stream", key)
    conversation = upstream.called()
    conversation.say(event("one two "))
    assert call.chunk() == event("one two ").encode()
    assert server.books.used(key) == {"requests": 1, "tokens": RESERVED, "concurrency": 1}
    return call, conversation


def settled_once(server, key, tokens, since, within=SOON):
    """The request is settled once, at so many tokens, soon after the event; the slot is free for the next one."""
    (settlement,) = server.books.wait_settled(key)
    assert server.books.used(key) == {"requests": 1, "tokens": tokens, "concurrency": 0}
    took = settlement["at"] - since
    print(f"{server.worker_class}: settled after {took:.3f} s, at {tokens} tokens")  # noqa: T201  with -rP
    assert took <= within
    assert server.call("/stream", key, method="HEAD").status == 200


def test_finished_stream_is_settled_before_its_last_event_arrives(server, upstream, key):
    call, conversation = begun(server, upstream, key)
    conversation.say(event("three "))
    assert call.chunk() == event("three ").encode()
    finished = time.monotonic()
    conversation.say("data: [DONE]\n\n")
    assert call.chunk() == b"data: [DONE]\n\n"
    assert server.books.used(key) == {"requests": 1, "tokens": INPUT + 3, "concurrency": 0}
    settled_once(server, key, INPUT + 3, finished)
    conversation.close()
    assert call.rest() == b""


def test_stream_without_a_last_event_is_settled_before_its_end_is_told(server, upstream, key):
    call, conversation = begun(server, upstream, key)
    finished = time.monotonic()
    conversation.close()
    assert call.rest() == b""
    assert server.books.used(key) == {"requests": 1, "tokens": INPUT + 2, "concurrency": 0}
    settled_once(server, key, INPUT + 2, finished)


def test_stream_of_a_known_length_is_settled_before_its_last_byte_arrives(server, upstream, key):
    chunks = [event(text) for text in ("one ", "two ", "three ")]
    call = server.call(f"/stream?length={sum(map(len, chunks))}", key)
    conversation = upstream.called()
    for chunk in chunks:
        conversation.say(chunk)
    finished = time.monotonic()
    conversation.close()
    assert call.rest() == "".join(chunks).encode()
    assert server.books.used(key) == {"requests": 1, "tokens": INPUT + 3, "concurrency": 0}
    settled_once(server, key, INPUT + 3, finished)


def test_usage_that_a_stream_reports_is_charged(server, upstream, key):
    call, conversation = begun(server, upstream, key)
    finished = time.monotonic()
    conversation.say('data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 4}}\n\n')
    conversation.say("data: [DONE]\n\n")
    conversation.close()
    call.rest()
    settled_once(server, key, 11, finished)


@pytest.mark.parametrize("goes", ["leave", "reset"])
def test_client_that_goes_from_a_silent_stream_holds_its_slot_until_the_view_lets_go(server, upstream, key, goes):
    call, conversation = begun(server, upstream, key)
    getattr(call, goes)()
    assert conversation.client_gone()
    assert server.books.used(key) == {"requests": 1, "tokens": RESERVED, "concurrency": 1}
    assert server.call("/stream", key).status == 429
    spoke = time.monotonic()
    conversation.say(event("three "))
    settled_once(server, key, INPUT + 3, spoke)
    assert conversation.hung_up()


def test_client_that_goes_before_any_output_pays_for_its_input(server, upstream, key):
    call = server.call("/stream", key)
    conversation = upstream.called()
    call.leave()
    assert conversation.client_gone()
    assert server.books.used(key) == {"requests": 1, "tokens": RESERVED, "concurrency": 1}
    ended = time.monotonic()
    conversation.close()
    settled_once(server, key, INPUT, ended)


@pytest.mark.parametrize("goes", ["leave", "reset"])
def test_client_that_goes_while_the_upstream_talks_pays_for_what_was_said(server, upstream, key, goes):
    call, conversation = begun(server, upstream, key)
    left = time.monotonic()
    getattr(call, goes)()
    said = 2

    def talk():
        nonlocal said
        if settled := server.books.entries("settled", key):
            return settled
        with suppress(ConnectionError):  # The app has hung up, and is about to settle.
            conversation.say(event("word "))
            said += 1
        return []

    (settlement,) = wait_for(talk)
    assert INPUT + 2 <= settlement["units"]["tokens"] <= INPUT + said
    settled_once(server, key, settlement["units"]["tokens"], left)


def test_client_that_half_closes_is_gone_and_its_stream_ends(server, upstream, key):
    call, conversation = begun(server, upstream, key)
    call.finish_writing()
    assert conversation.client_gone()
    assert server.books.used(key) == {"requests": 1, "tokens": RESERVED, "concurrency": 1}
    spoke = time.monotonic()
    conversation.say(event("more ") * 2)
    with pytest.raises(http.client.IncompleteRead) as cut:  # A client that still reads is not told that this was all.
        call.rest()
    assert cut.value.partial == event("more ").encode() * 2  # What the generator was waiting for, and no more.
    assert conversation.hung_up()
    settled_once(server, key, INPUT + 2 + 2, spoke)


def test_client_that_does_not_read_is_cut_off(server, upstream, key):
    server.call("/stream", key, receive_buffer=4096)
    conversation = upstream.called()
    conversation.say(event("one two "))
    began = time.monotonic()
    with suppress(ConnectionError):
        while True:  # Until the kernel keeps no more for the client, and the app hangs up.
            conversation.say(f": {'x' * 65_000}\n")
    # The kernel can let one blocked write pass after all, by its last buffer; then the next one is blocked.
    settled_once(server, key, INPUT + 2, began, within=2 * WRITE_TIMEOUT + SOON)


def test_generator_that_raises_after_some_output_is_charged_for_it(server, upstream, key):
    call, conversation = begun(server, upstream, key)
    failed = time.monotonic()
    conversation.fail()
    with pytest.raises(http.client.IncompleteRead):
        call.rest()
    settled_once(server, key, INPUT + 2, failed)


def test_generator_that_raises_before_any_output_costs_no_tokens(server, upstream, key):
    call = server.call("/stream", key)
    conversation = upstream.called()
    failed = time.monotonic()
    conversation.fail()
    assert call.status == 500
    settled_once(server, key, 0, failed)


def test_view_that_raises_costs_no_tokens(server, upstream, key):
    call = server.call("/wait", key)
    conversation = upstream.called()
    failed = time.monotonic()
    conversation.fail()
    assert call.status == 500
    assert server.books.used(key, "wait") == {"requests": 1, "tokens": 0, "concurrency": 0}
    (settlement,) = server.books.wait_settled(key)
    assert settlement["at"] - failed <= SOON


def test_client_that_goes_from_a_plain_answer_pays_for_it_when_it_is_there(server, upstream, key):
    call = server.call("/wait", key)
    conversation = upstream.called()
    call.leave()
    assert conversation.client_gone()
    assert server.books.used(key, "wait") == {"requests": 1, "tokens": RESERVED, "concurrency": 1}
    conversation.say("one two three")
    said = time.monotonic()
    conversation.close()
    (settlement,) = server.books.wait_settled(key)
    assert settlement["at"] - said <= SOON
    assert server.books.used(key, "wait") == {"requests": 1, "tokens": INPUT + 3, "concurrency": 0}


def test_error_that_the_upstream_tells_in_the_stream_costs_what_was_said_before(server, upstream, key):
    call, conversation = begun(server, upstream, key)
    failed = time.monotonic()
    conversation.say('data: {"error": {"message": "overloaded", "type": "server_error"}}\n\n')
    conversation.close()
    assert b"overloaded" in call.rest()
    settled_once(server, key, INPUT + 2, failed)


def test_stream_with_an_error_status_costs_no_tokens(server, upstream, key):
    call = server.call("/stream?status=503", key)
    conversation = upstream.called()
    conversation.say(event("overloaded "))
    failed = time.monotonic()
    conversation.close()
    assert call.rest() == event("overloaded ").encode()
    settled_once(server, key, 0, failed)


def test_head_of_a_stream_costs_no_tokens(server, key):
    asked = time.monotonic()
    call = server.call("/stream", key, method="HEAD")
    assert call.status == 200
    assert call.rest() == b""
    settled_once(server, key, 0, asked)


@pytest.mark.parametrize("status", [204, 304])
def test_stream_that_nobody_may_read_costs_no_tokens(server, key, status):
    asked = time.monotonic()
    assert server.call(f"/stream?status={status}", key).status == status
    settled_once(server, key, 0, asked)
