"""Clients that open a stream and leave: what they hold, for how long, and what their view hears of it."""

import json
import socket
from contextlib import contextmanager
from threading import Event, Lock
from time import monotonic, sleep

import pytest
from acceptance_apps import BODY, by_unit, metered
from app_server import serving
from flask import Response, stream_with_context
from limited_apps import limited

from flask_ailimit import ConfigurationError, usage_settled

SOON = 60
"""Seconds until which something has to have happened; nothing waits as long if all is well."""


def until(condition, seconds=SOON):
    """Whether the condition comes true in time."""
    end = monotonic() + seconds
    while monotonic() < end:
        if condition():
            return True
        sleep(0.02)
    return bool(condition())


@contextmanager
def connection(address, path="/", key="alice", method="POST"):
    """A client that has sent its request, and leaves at the end of the context."""
    host, _, port = address.removeprefix("http://").partition(":")
    body = json.dumps(BODY).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=SOON) as client:
        client.sendall(head.encode() + body)
        yield client


class Silent:
    """A model that says so many words and then nothing, until it is let go."""

    def __init__(self, words=2):
        self.words = [f"w{i} ".encode() for i in range(words)]
        self.go, self.lock = Event(), Lock()
        self.running, self.most, self.begun, self.ended = 0, 0, 0, 0

    def __call__(self):
        with self.lock:
            self.running += 1
            self.begun += 1
            self.most = max(self.most, self.running)
        try:
            yield from self.words
            self.go.wait(2 * SOON)
        finally:
            with self.lock:
                self.running -= 1
                self.ended += 1


def hear_all(client):
    """Read until the model has said all that it will, so that no later write fails and ends the view.

    The end of a chunk is a write of its own.
    """
    hear(client, b"w1 \r\n")


def hear(client, last):
    """Read until these bytes have come."""
    received = b""
    while last not in received:
        piece = client.recv(1000)
        assert piece, received
        received += piece


def silent(mimetype="text/plain", **options):
    model = Silent()
    limits = metered(lambda: Response(model(), mimetype=mimetype, **options))
    return limits, model


def slots(limits, key="alice"):
    return by_unit(limits.used(key))["concurrency"]


def tokens(limits):
    return by_unit(limits.used())["tokens"]


def served_by(limits):
    return serving(limits.app)


@pytest.mark.parametrize("direct", [False, True], ids=["", "passed through"])
def test_slot_stays_while_the_view_waits_though_its_client_has_left(direct):
    limits, model = silent(direct_passthrough=direct)
    with served_by(limits) as address:
        with connection(address) as client:
            hear_all(client)
            assert until(lambda: model.running == 1)
        sleep(0.8)
        held, charged = slots(limits), tokens(limits)
        model.go.set()
        assert until(lambda: slots(limits) == 0)
    assert held == 1
    assert charged == 43
    assert tokens(limits) == 3 + 2


def test_client_that_opens_and_leaves_has_no_more_running_than_its_limit():
    limits, model = silent()
    with served_by(limits) as address:
        for i in range(8):
            with connection(address) as client:
                if i < 3:
                    hear_all(client)
                else:
                    assert b" 429 " in client.recv(100)
            sleep(0.3)
        most, begun = model.most, model.begun
        model.go.set()
        assert until(lambda: model.running == 0 and slots(limits) == 0)
    assert most <= 3
    assert begun == 3


def test_setting_frees_the_slot_as_soon_as_the_client_has_left():
    model = Silent()
    limits = metered(lambda: Response(model(), mimetype="text/plain"), slot_ends="client")
    with served_by(limits) as address:
        with connection(address) as client:
            hear_all(client)
            assert until(lambda: model.running == 1)
        assert until(lambda: slots(limits) == 0)
        assert model.running == 1
        model.go.set()


@pytest.mark.parametrize("value", ["never", "", None, True, 1, "Work", b"work"])
def test_setting_of_where_a_slot_ends_is_checked(value):
    with pytest.raises(ConfigurationError, match="slot_ends"):
        limited(slot_ends=value)


@pytest.mark.parametrize("value", [0, -1, "10", True, float("nan"), float("inf")])
def test_setting_of_the_longest_abandoned_view_is_checked(value):
    with pytest.raises(ConfigurationError, match="longest_abandoned"):
        limited(longest_abandoned=value)


def test_view_that_never_lets_go_is_bounded(caplog):
    model = Silent()
    limits = metered(lambda: Response(model(), mimetype="text/plain"), longest_abandoned=3)
    with served_by(limits) as address:
        with connection(address) as client:
            hear_all(client)
            assert until(lambda: model.running == 1)
        sleep(0.4)
        held = slots(limits)
        freed = until(lambda: slots(limits) == 0)
        model.go.set()
    assert held == 1
    assert freed
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


def test_view_hears_that_its_client_has_left():
    heard = []
    go = Event()

    def answer(limiter):
        def generate():
            yield b"w "
            heard.append(limiter.client_gone.is_set())
            heard.append(limiter.client_gone.wait(SOON))
            heard.append(limiter.client_gone.is_set())
            go.set()

        return Response(stream_with_context(generate()), mimetype="text/plain")

    limits = metered(answer)
    with served_by(limits) as address:
        with connection(address) as client:
            hear(client, b"w \r\n")
            assert until(lambda: heard == [False])
        assert go.wait(SOON)
        assert until(lambda: slots(limits) == 0)
    assert heard == [False, True, True]


def test_plain_view_hears_that_its_client_has_left():
    heard, go = [], Event()

    def answer(limiter):
        heard.append(limiter.client_gone.wait(SOON))
        go.set()
        return ""

    limits = metered(answer)
    with served_by(limits) as address:
        with connection(address):
            assert until(lambda: slots(limits) == 1)
        assert go.wait(SOON)
        assert until(lambda: slots(limits) == 0)
    assert heard == [True]


def test_callback_is_called_once_when_the_client_has_left():
    called = []
    model = Silent()

    def answer(limiter):
        limiter.client_gone.call(lambda: called.append(1))
        limiter.client_gone.call(lambda: (called.append(2), model.go.set()))
        return Response(model(), mimetype="text/plain")

    limits = metered(answer)
    with served_by(limits) as address:
        with connection(address) as client:
            hear_all(client)
        assert until(lambda: len(called) == 2)
        assert until(lambda: slots(limits) == 0)
        sleep(0.4)
    assert sorted(called) == [1, 2]


def test_callback_that_raises_stops_no_other(caplog):
    called = []
    model = Silent()

    def answer(limiter):
        limiter.client_gone.call(lambda: 1 / 0)
        limiter.client_gone.call(lambda: (called.append(1), model.go.set()))
        return Response(model(), mimetype="text/plain")

    limits = metered(answer)
    with served_by(limits) as address:
        with connection(address) as client:
            hear_all(client)
        assert until(lambda: called == [1] and slots(limits) == 0)
    assert "ZeroDivisionError" in caplog.text


def test_callback_is_not_called_for_a_client_that_stays():
    called = []

    def answer(limiter):
        limiter.client_gone.call(lambda: called.append(1))
        return Response(iter([b"w ", b"x"]), mimetype="text/plain")

    limits = metered(answer)
    with served_by(limits) as address, connection(address) as client:
        received = b""
        while b"x" not in received[-8:]:
            piece = client.recv(1000)
            if not piece:
                break
            received += piece
        assert until(lambda: slots(limits) == 0)
    sleep(0.4)
    assert called == []


def test_without_a_socket_nobody_is_gone():
    heard = []

    def answer(limiter):
        heard.append((limiter.client_gone.is_set(), limiter.client_gone.wait(0.01)))
        return ""

    metered(answer).client().post("/", json=BODY)
    assert heard == [(False, False)]


def test_stream_whose_client_left_is_told_once_when_its_view_lets_go():
    limits, model = silent()
    events = []

    def receive(sender, **event):
        events.append(event)

    with usage_settled.connected_to(receive, limits.app), served_by(limits) as address:
        with connection(address) as client:
            hear_all(client)
            assert until(lambda: model.running == 1)
        sleep(0.5)
        early = list(events)
        model.go.set()
        assert until(lambda: len(events) == 1)
    assert early == []
    assert (events[0]["ending"], events[0]["charged"]["tokens"]) == ("abandoned", 5)


def test_plain_view_keeps_its_slot_though_its_client_has_left():
    go = Event()

    def answer():
        go.wait(SOON)
        return "w"

    limits = metered(answer)
    with served_by(limits) as address:
        with connection(address):
            assert until(lambda: slots(limits) == 1)
        sleep(0.4)
        held = slots(limits)
        go.set()
        assert until(lambda: slots(limits) == 0)
    assert held == 1


@pytest.mark.parametrize("how", ["half closed", "reset"])
def test_slot_stays_however_the_client_leaves(how):
    limits, model = silent()
    with served_by(limits) as address:
        with connection(address) as client:
            hear_all(client)
            assert until(lambda: model.running == 1)
            if how == "half closed":
                client.shutdown(socket.SHUT_WR)
            else:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                client.close()
            sleep(0.6)
            held = slots(limits)
            model.go.set()
        assert until(lambda: slots(limits) == 0)
    assert held == 1
