"""A view that hears that its client is gone, and wakes itself from the read of a silent upstream."""

import time

import pytest
import trustme
from conftest import WORKER_CLASSES
from gunicorn_app import event
from gunicorn_books import wait_for
from gunicorn_client import INPUT, RESERVED
from gunicorn_model_api import WORDS, begin
from gunicorn_proxies import CERTIFICATE, WAYS
from gunicorn_server import serving

SOON = 5.0
"""Seconds from a client's leaving to the settlement: a look every 0.25 s, and what a busy machine takes."""

LONGEST_ABANDONED = 3.0


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module", params=WORKER_CLASSES)
def proxies(request, shared_upstream, authority, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    authority.cert_pem.write_to_path(directory / CERTIFICATE)
    with serving(directory, request.param, upstream_port=shared_upstream.port, workers=1) as server:
        yield server


@pytest.fixture
def called(upstream, authority):
    """Answers how to take a call that is made in one of the ways: the answer has begun, and nothing follows."""

    def take(way):
        conversation = upstream.called()
        begin(conversation, authority.issue_cert("127.0.0.1") if "tls" in way else None)
        return conversation

    return take


@pytest.mark.parametrize("way", WAYS)
def test_client_that_leaves_wakes_a_stream_that_waits_for_its_upstream(proxies, called, key, way):
    call = proxies.call(f"/proxy?by={way}", key)
    conversation = called(way)
    assert WORDS.encode() in call.chunk()
    assert proxies.books.used(key, "proxy")["concurrency"] == 1
    left = time.monotonic()
    call.leave()
    (settlement,) = proxies.books.wait_settled(key)
    assert settlement["at"] - left <= SOON
    used = proxies.books.used(key, "proxy")
    assert used["concurrency"] == 0
    assert INPUT < used["tokens"] < RESERVED
    assert conversation.hung_up()


@pytest.mark.parametrize("way", ["httpx", "openai", "anthropic"])
def test_client_that_leaves_wakes_a_view_that_gathers_its_upstream_and_pays_what_was_reserved(
    proxies, called, key, way
):
    call = proxies.call(f"/gather?by={way}", key)
    conversation = called(way)
    left = time.monotonic()
    call.leave()
    (settlement,) = proxies.books.wait_settled(key)
    assert settlement["at"] - left <= SOON
    assert proxies.books.used(key, "gather") == {"requests": 1, "tokens": RESERVED, "concurrency": 0}
    assert conversation.hung_up()


@pytest.mark.parametrize("worker_class", WORKER_CLASSES)
def test_view_that_never_lets_go_is_bounded(worker_class, upstream, tmp_path):
    bounded = {"longest_abandoned": LONGEST_ABANDONED}
    with serving(tmp_path, worker_class, workers=1, upstream_port=upstream.port, settings=bounded) as server:
        call = server.call("/stream", "bounded")
        conversation = upstream.called()
        conversation.say(event("one two "))
        assert call.chunk()
        left = time.monotonic()
        call.leave()
        assert conversation.client_gone()
        assert server.books.used("bounded") == {"requests": 1, "tokens": RESERVED, "concurrency": 1}
        (settlement,) = server.books.wait_settled("bounded")
        assert LONGEST_ABANDONED <= settlement["at"] - left <= LONGEST_ABANDONED + SOON
        assert server.books.used("bounded") == {"requests": 1, "tokens": INPUT + 2, "concurrency": 0}
        wait_for(lambda: "longest_abandoned" in server.log())
        assert server.log().count("longest_abandoned") == 1


@pytest.mark.parametrize("worker_class", WORKER_CLASSES)
def test_slot_can_end_with_the_client(worker_class, upstream, tmp_path):
    at_once = {"slot_ends": "client"}
    with serving(tmp_path, worker_class, workers=1, upstream_port=upstream.port, settings=at_once) as server:
        call = server.call("/stream", "at-once")
        conversation = upstream.called()
        conversation.say(event("one two "))
        assert call.chunk()
        left = time.monotonic()
        call.leave()
        (settlement,) = server.books.wait_settled("at-once")
        assert settlement["at"] - left <= SOON
        assert server.books.used("at-once") == {"requests": 1, "tokens": INPUT + 2, "concurrency": 0}


def test_clients_that_open_and_leave_have_no_more_generators_than_slots(server, upstream, key):
    """One slot, as everywhere here. The model is silent, and its client comes back again and again."""
    call = server.call("/stream", key)
    conversation = upstream.called()
    call.leave()
    assert conversation.client_gone()
    for _ in range(40):
        call = server.call("/stream", key)
        assert call.status == 429
        call.leave()
    conversation.close()
    server.books.wait_settled(key)


def test_client_that_is_there_is_never_taken_for_gone(server, upstream, key):
    """Not one that keeps its connection, nor one that sends its next request before it has the last answer."""
    call = server.call("/story?ends=event", key)
    call.rest()
    call.send("/stream", key)
    conversation = upstream.called()
    call.send_ahead("/answer", key)
    for _ in range(8):
        conversation.say(event("word "))
        assert call.chunk()
        time.sleep(0.15)  # Longer in all than the watch takes to look.
    assert server.books.used(key)["concurrency"] == 1
    conversation.say("data: [DONE]\n\n")
    conversation.close()
    assert call.rest() == b"data: [DONE]\n\n"
    assert server.books.used(key)["tokens"] == INPUT + 8
