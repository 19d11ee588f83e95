"""Workers that are timed out, told to stop, or killed while they stream."""

import os
import signal
import time
from contextlib import ExitStack

import pytest
from conftest import WORKER_CLASSES
from gunicorn_app import LEASE, event
from gunicorn_books import wait_for
from gunicorn_client import INPUT, RESERVED
from gunicorn_server import serving

SOON = 5.0
"""Seconds from an event to what follows it at once, on a machine that may be busy."""

every_class = pytest.mark.parametrize("worker_class", WORKER_CLASSES)


def begun(server, upstream, key):
    """A stream of which the client has read two tokens; who serves it."""
    call = server.call("/stream", key)
    conversation = upstream.called()
    conversation.say(event("one two "))
    assert call.chunk()
    (taken,) = server.books.entries("taken", key)
    return call, conversation, taken["pid"]


def timing_out(tmp_path, upstream):
    """A server whose worker times out. Only sync workers do: the others say from another thread that they are well.

    There is one worker. If two time out at once, gunicorn kills the second as soon as the first has ended.
    """
    # Longer than a busy machine takes to begin a worker, to which the time-out applies, too.
    return serving(tmp_path, "sync", "--timeout", "6", workers=1, upstream_port=upstream.port)


def test_timed_out_worker_settles_the_view_that_it_was_in(upstream, tmp_path):
    with timing_out(tmp_path, upstream) as server:
        answer = server.call("/wait", "waits")
        upstream.called()
        assert answer.status == 500
        answered = time.monotonic()
        (settlement,) = server.books.wait_settled("waits")
        assert settlement["at"] <= answered
        assert server.books.used("waits", "wait") == {"requests": 1, "tokens": RESERVED, "concurrency": 0}


def test_timed_out_worker_settles_the_stream_that_it_was_sending(upstream, tmp_path):
    with timing_out(tmp_path, upstream) as server:
        stream, _, _ = begun(server, upstream, "streams")
        with pytest.raises(Exception, match=r"IncompleteRead|reset"):
            stream.rest()
        broken = time.monotonic()
        (settlement,) = server.books.wait_settled("streams")
        assert abs(settlement["at"] - broken) <= SOON
        assert server.books.used("streams") == {"requests": 1, "tokens": INPUT + 2, "concurrency": 0}


@every_class
def test_worker_that_may_finish_its_stream_settles_it(worker_class, upstream, tmp_path):
    with serving(tmp_path, worker_class, upstream_port=upstream.port) as server:
        call, conversation, _ = begun(server, upstream, "stops")
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "Handling signal: term" in server.log())
        conversation.say(event("three "))
        conversation.say("data: [DONE]\n\n")
        conversation.close()
        assert call.rest().endswith(b"data: [DONE]\n\n")
        server.books.wait_settled("stops")
        assert server.books.used("stops") == {"requests": 1, "tokens": INPUT + 3, "concurrency": 0}
        assert server.process.wait(20) == 0


@every_class
def test_stream_of_a_worker_that_may_not_finish_is_charged_as_reserved(worker_class, upstream, tmp_path):
    with serving(tmp_path, worker_class, "--graceful-timeout", "1", upstream_port=upstream.port) as server:
        begun(server, upstream, "stops")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert server.books.entries("settled", "stops") == []
        assert server.books.used("stops") == {"requests": 1, "tokens": RESERVED, "concurrency": 1}
        assert server.books.used("stops", ahead=LEASE) == {"requests": 1, "tokens": RESERVED, "concurrency": 0}


@pytest.mark.parametrize(
    "worker_class",
    # With --preload, gevent puts itself in the place of threads after the library has begun to use them.
    [["sync"], ["gthread"], ["gevent"], ["gevent", "--preload"]],
    ids=" ".join,
)
def test_silent_stream_keeps_its_slot_and_gives_it_back_when_its_client_and_then_its_upstream_goes(
    worker_class, upstream, tmp_path
):
    with serving(tmp_path, *worker_class, upstream_port=upstream.port) as server:
        began = time.monotonic()
        call, conversation, _ = begun(server, upstream, "silent")
        # As soon as the lease has been renewed, it is there longer than its first five seconds.
        after_first = began + LEASE + 0.5
        wait_for(lambda: server.books.used("silent", ahead=after_first - time.monotonic())["concurrency"] == 1)
        call.leave()
        assert conversation.client_gone()
        assert server.books.used("silent")["concurrency"] == 1
        ended = time.monotonic()
        conversation.close()
        (settlement,) = server.books.wait_settled("silent")
        assert settlement["at"] - ended <= SOON
        assert server.books.used("silent") == {"requests": 1, "tokens": INPUT + 2, "concurrency": 0}


def test_killed_worker_gives_its_slots_back_within_the_lease(upstream, tmp_path):
    """All three at once, since this is the one test that waits for a limit: a killed process can't be asked."""
    with ExitStack() as stack:
        servers = []
        for worker_class in WORKER_CLASSES:
            (tmp_path / worker_class).mkdir()
            server = serving(tmp_path / worker_class, worker_class, upstream_port=upstream.port)
            servers.append(stack.enter_context(server))
        killed_at = {}
        for server in servers:
            _, _, pid = begun(server, upstream, "killed")
            os.kill(pid, signal.SIGKILL)
            killed_at[server] = time.monotonic()
            assert server.call("/stream", "killed", method="HEAD").status == 429  # Another worker answers.
        for server in servers:
            wait_for(lambda server=server: server.books.used("killed")["concurrency"] == 0)
            took = time.monotonic() - killed_at[server]
            print(f"{server.worker_class}: slot back {took:.2f} s after kill -9")  # noqa: T201  with -rP
            assert took <= LEASE + SOON
            assert server.books.used("killed") == {"requests": 1, "tokens": RESERVED, "concurrency": 0}
            assert server.call("/stream", "killed", method="HEAD").status == 200
