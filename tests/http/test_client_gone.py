"""A view hears that its client is gone: once, soon, and never while the client is there."""

import gc
import logging
import socket
import ssl
import threading
from contextlib import contextmanager
from types import SimpleNamespace
from weakref import ref

import httpx2
import pytest
import trustme
from app_server import serving
from flask import Request, Response, stream_with_context
from limited_apps import limited

from flask_ailimit.config import Settings
from flask_ailimit.engine import background
from flask_ailimit.request import client_gone as client_module
from flask_ailimit.request.client_gone import WatchedClient
from flask_ailimit.request.client_watch import Watch, end_with_client, is_client_gone, release, watch_client, watching
from flask_ailimit.request.streaming import MeteredStream

PATIENCE = 60
"""Seconds to wait for what must happen. Only a test that fails waits for so long."""


@pytest.fixture
def connection():
    """The server's end of a connection, and the client's."""
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


@pytest.fixture
def gone(connection):
    """Of a client that has left."""
    ours, theirs = connection
    theirs.close()
    return WatchedClient(ours)


class Clock:
    """Seconds that pass only when the test says so."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(client_module, "seconds_running", clock)
    return clock


class Unstarted(Watch):
    """A watch that looks only when the test does."""

    def forget(self):
        super().forget()
        self._thread = SimpleNamespace(ensure=lambda: True)


@pytest.fixture
def watch(clock, monkeypatch):
    """The one of the process, too: it would look in the middle of a test, and by another clock."""
    watch = Unstarted(clock)
    monkeypatch.setattr("flask_ailimit.request.client_watch.watching", watch)
    return watch


def test_client_that_left_is_gone(connection):
    ours, theirs = connection
    client = WatchedClient(ours)
    assert not client.is_set()
    assert not client.wait(0)
    theirs.close()
    assert client.is_set()
    assert client.wait()


def test_client_that_half_closed_is_gone(connection):
    ours, theirs = connection
    theirs.shutdown(socket.SHUT_WR)
    assert WatchedClient(ours).is_set()


def test_client_that_stays_is_not_gone(connection):
    """It may send its next request, and finish reading, and say nothing for long."""
    ours, theirs = connection
    client = WatchedClient(ours)
    theirs.sendall(b"GET / HTTP/1.1\r\n\r\n" * 1000)
    assert not client.is_set()
    theirs.shutdown(socket.SHUT_RD)
    assert not client.is_set()


def test_client_of_a_server_that_does_not_tell_is_never_gone():
    client = WatchedClient(None)
    heard = []
    client.call(lambda: heard.append(1))
    assert not client.is_set()
    assert not client.wait(0.01)
    assert not heard


def test_connection_that_the_server_closed_says_nothing_of_the_client(connection):
    """Its number may be another connection's by now."""
    ours, theirs = connection
    client = WatchedClient(ours)
    ours.close()
    theirs.close()
    assert not client.is_set()


def test_connection_that_serves_the_next_request_says_nothing_of_the_last(connection):
    ours, theirs = connection
    client = WatchedClient(ours)
    heard = []
    client.call(lambda: heard.append(1))
    client.release()
    theirs.close()
    assert not client.is_set()
    client.tell()
    assert not heard
    assert not client.wait()  # There is nothing more to wait for.


def test_wait_ends_when_the_answer_is_closed(connection):
    client = WatchedClient(connection[0])
    answers = []
    thread = threading.Thread(target=lambda: answers.append(client.wait()))
    thread.start()
    client.release()
    thread.join(PATIENCE)
    assert answers == [False]


def test_wait_ends_when_the_client_leaves_though_nobody_watches(connection):
    client = WatchedClient(connection[0])
    answers = []
    thread = threading.Thread(target=lambda: answers.append(client.wait(PATIENCE)))
    thread.start()
    connection[1].close()
    thread.join(PATIENCE)
    assert answers == [True]


def test_callbacks_are_called_once_when_the_watch_looks(connection, watch):
    client, heard = WatchedClient(connection[0]), []
    watch.add(client)
    for number in range(3):
        client.call(lambda number=number: heard.append(number))
    watch.look()
    assert heard == []
    connection[1].close()
    watch.look()
    watch.look()
    assert heard == [0, 1, 2]


def test_callback_for_a_client_that_is_gone_already_is_called_at_once(gone):
    heard = []
    gone.call(lambda: heard.append(threading.current_thread()))
    assert heard == [threading.current_thread()]
    gone.release()
    gone.call(lambda: heard.append("after the answer"))
    assert heard[1:] == ["after the answer"]


def test_callback_that_raises_is_logged_by_type_and_keeps_nobody_from_hearing(gone, watch, caplog):
    heard = []

    def fail():
        raise ZeroDivisionError("a secret prompt")

    gone.call(fail)
    watch.add(gone)
    gone.call(lambda: heard.append(1))
    watch.look()
    assert heard == [1]
    assert "ZeroDivisionError" in caplog.text
    assert "secret" not in caplog.text


def test_callbacks_are_called_once_though_many_threads_find_out(gone):
    heard = []
    for number in range(1000):
        gone._callbacks.append(lambda number=number: heard.append(number))
    threads = [threading.Thread(target=gone.tell) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(heard) == [*range(1000)]


def test_client_that_nobody_needs_is_watched_no_more(connection, watch):
    client = WatchedClient(connection[0])
    watch.add(client)
    assert len(watch) == 1
    del client
    gc.collect()
    assert len(watch) == 0


# Streams


class Account:
    """Notes the endings of a stream."""

    def __init__(self):
        self.told = []

    def end(self, ending, meter):
        self.told.append(ending.name)

    def resume(self):
        self.told.append("RESUMED")

    def close(self, meter):
        self.told.append("CLOSED")


class Nothing:
    """A meter of chunks that end nothing."""

    def feed(self, chunk):
        return False


@contextmanager
def streamed(ours, **settings):
    """A stream on a connection: its account, and what tells whether its client is gone."""
    request, account = Request({"werkzeug.socket": ours}), Account()
    stream = MeteredStream(iter([b"a", b"b"]), Nothing(), account)
    end_with_client(stream, request, Settings(**settings))
    client = watch_client(request)
    try:
        yield stream, account.told, client
    finally:
        stream.close()
        assert client._released


def test_stream_whose_client_is_gone_ends_when_it_is_read_next(connection, watch):
    with streamed(connection[0]) as (stream, told, client):
        watch.add(client)
        assert next(stream) == b"a"
        connection[1].close()
        watch.look()
        assert told == []
        with pytest.raises(BrokenPipeError):
            next(stream)
        assert told == ["ABANDONED", "CLOSED"]


@pytest.mark.parametrize("bound", [600, 0.25])
def test_view_that_never_lets_go_loses_its_slot_after_the_bound_and_that_is_logged_once(
    connection, watch, clock, caplog, bound
):
    with streamed(connection[0], longest_abandoned=bound) as (stream, told, client):
        watch.add(client)
        next(stream)
        connection[1].close()
        watch.look()
        clock.now += bound - 0.125
        watch.look()
        assert told == []
        clock.now += 0.125
        watch.look()
        watch.look()
        assert told == ["ABANDONED"]
        assert caplog.text.count("longest_abandoned") == 1


def test_view_that_let_go_in_time_is_not_logged(connection, watch, clock, caplog):
    with streamed(connection[0]) as (stream, told, client):
        watch.add(client)
        next(stream)
        connection[1].close()
        watch.look()
        with pytest.raises(BrokenPipeError):
            next(stream)
        clock.now += 601
        watch.look()
    assert told == ["ABANDONED", "CLOSED"]
    assert not caplog.records


def test_many_views_that_never_let_go_are_one_line_in_the_log(watch, clock, caplog):
    pairs = [socket.socketpair() for _ in range(20)]
    contexts = [streamed(ours) for ours, _ in pairs]
    streams = [context.__enter__() for context in contexts]
    for (_, theirs), (stream, _, client) in zip(pairs, streams, strict=True):
        watch.add(client)
        next(stream)
        theirs.close()
    watch.look()
    clock.now += 600
    watch.look()
    assert [told for _, told, _ in streams] == [["ABANDONED"]] * 20
    assert len(caplog.records) == 1
    for context, (ours, _) in zip(contexts, pairs, strict=True):
        context.__exit__(None, None, None)
        ours.close()


def test_view_need_not_be_bounded(connection, watch, clock, caplog):
    with streamed(connection[0], longest_abandoned=None) as (stream, told, client):
        watch.add(client)
        next(stream)
        connection[1].close()
        watch.look()
        clock.now += 10**9
        watch.look()
        assert told == []
    assert not caplog.records


def test_slot_can_end_with_the_client(connection, watch):
    with streamed(connection[0], slot_ends="client") as (stream, told, client):
        watch.add(client)
        next(stream)
        connection[1].close()
        watch.look()
        assert told == ["ABANDONED"]


def test_watch_goes_on_after_a_stream_that_cannot_be_ended(watch, caplog):
    first, second = socket.socketpair(), socket.socketpair()
    settings = {"slot_ends": "client"}
    with streamed(first[0], **settings) as (_, _, broken), streamed(second[0], **settings) as (_, told, client):
        broken.call_first(lambda: 1 / 0)
        for each in (broken, client):
            watch.add(each)
        for _, theirs in (first, second):
            theirs.close()
        watch.look()
        assert told == ["ABANDONED"]
    assert "ZeroDivisionError" in caplog.text
    for ours, _ in (first, second):
        ours.close()


def test_watch_goes_on_after_a_connection_that_cannot_be_looked_at(gone, watch, caplog):
    class Odd:
        def fileno(self):
            raise OSError("this server has its own idea of a socket")

    odd, heard = WatchedClient(Odd()), []
    watch.add(odd)
    watch.add(gone)
    gone._callbacks.append(lambda: heard.append(1))
    watch.look()
    assert heard == [1]
    assert not caplog.records


def test_stream_that_is_thrown_away_ends_though_its_request_goes_on(connection):
    request, account = Request({"werkzeug.socket": connection[0]}), Account()
    stream = MeteredStream(iter([b"a"]), Nothing(), account)
    end_with_client(stream, request, Settings())
    del stream
    gc.collect()
    assert account.told == ["NOT_STARTED", "CLOSED"]
    assert not is_client_gone(request)


def test_write_timeout_of_the_server_is_there_again_after_the_stream(connection):
    connection[0].settimeout(7)
    with streamed(connection[0], write_timeout=3):
        assert connection[0].gettimeout() == 3
    assert connection[0].gettimeout() == 7


# The thread


def require_heard(watch, connection):
    """The watch tells a client that is added to it that the connection's other end was closed."""
    heard = threading.Event()
    client = WatchedClient(connection[0])
    client.call(heard.set)
    watch.add(client)
    connection[1].close()
    assert heard.wait(PATIENCE)


def test_thread_that_cannot_start_is_tried_again_at_the_next_stream(connection, monkeypatch, caplog):
    """As under RLIMIT_NPROC. No request fails, and no lock is held."""

    def refuse(_):
        raise RuntimeError("can't start new thread")

    own = Watch()
    with monkeypatch.context() as without:
        without.setattr(background.Thread, "start", refuse)
        own.add(WatchedClient(connection[0]))
        assert "No thread for streams" in caplog.text
    require_heard(own, connection)


def test_interrupted_start_is_tried_again_at_the_next_stream(connection, monkeypatch):
    """As when a worker's time-out raises SystemExit there."""

    def interrupt(*_):
        raise SystemExit

    own = Watch()
    with monkeypatch.context() as interrupted:
        interrupted.setattr(background.Thread, "start", interrupt)
        with pytest.raises(SystemExit):
            own.add(WatchedClient(connection[0]))
    require_heard(own, connection)


def test_first_stream_without_a_thread_is_answered(monkeypatch):
    app = limited()

    @app.app.get("/", endpoint="answer")
    @app.limiter.limit_concurrency(1)
    def view():
        return Response(iter([b"one ", b"two"]), mimetype="text/plain")

    def refuse(_):
        raise RuntimeError("can't start new thread")

    ours, theirs = socket.socketpair()
    monkeypatch.setattr("flask_ailimit.request.client_watch.watching", Watch())
    monkeypatch.setattr(background.Thread, "start", refuse)
    with ours, theirs:
        environ = {"werkzeug.socket": ours}
        for _ in range(2):
            assert app.client(**environ).get("/", buffered=True).data == b"one two"


# In an app


def asks(view, **options):
    app = limited()
    app.app.add_url_rule("/", "answer", view(app.limiter), **options)
    return app


@contextmanager
def leaving(address):
    """A client that asks, and leaves at the end."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        yield connection


def test_plain_view_hears_that_its_client_is_gone():
    heard, asked = [], threading.Event()

    def view(limiter):
        def answer():
            called = threading.Event()
            limiter.client_gone.call(called.set)
            heard.append(limiter.client_gone.is_set())
            asked.set()
            heard.extend((limiter.client_gone.wait(PATIENCE), called.wait(PATIENCE)))
            done.set()
            return "nobody reads this"

        return answer

    done = threading.Event()
    with serving(asks(view).app) as address:
        with leaving(address):
            assert asked.wait(PATIENCE)
        assert done.wait(PATIENCE)
    assert heard == [False, True, True]


@pytest.mark.parametrize("in_context", [True, False])
@pytest.mark.parametrize("limit", [True, False])
def test_generator_hears_that_its_client_is_gone(in_context, limit):
    heard, done = [], threading.Event()

    def view(limiter):
        def answer():
            client = None if in_context else limiter.client_gone

            def generate():
                yield b"one "
                heard.append((client or limiter.client_gone).wait(PATIENCE))
                done.set()

            return Response(stream_with_context(generate()) if in_context else generate())

        return limiter.limit_concurrency(1)(answer) if limit else answer

    with serving(asks(view).app) as address:
        with leaving(address) as connection:
            received = b""
            while b"one \r\n" not in received:  # The end of a chunk is a write of its own, and is not to fail.
                received += connection.recv(4096)
        assert done.wait(PATIENCE)
    assert heard == [True]


def test_request_that_is_over_is_watched_no_more():
    kept = []

    def view(limiter):
        def answer():
            kept.append(limiter.client_gone)
            raise ZeroDivisionError

        return answer

    ours, theirs = socket.socketpair()
    with ours, theirs:
        app = asks(view)
        assert app.client(**{"werkzeug.socket": ours}).get("/", buffered=True).status_code == 500
        theirs.close()
        assert not kept[0].wait()
    assert ref(kept[0]) not in watching._watched


def test_who_makes_its_client_s_leaving_an_error_gets_no_tokens_back():
    def view(limiter):
        @limiter.limit_tokens("1000 per day")
        def answer():
            assert limiter.client_gone.wait(PATIENCE)
            raise OSError("woken")

        return answer

    for propagate in (True, False):
        app = asks(view, methods=["POST"])
        app.app.config["PROPAGATE_EXCEPTIONS"] = propagate
        ours, theirs = socket.socketpair()
        with ours:
            theirs.close()
            client = app.client(**{"werkzeug.socket": ours})
            if propagate:
                with pytest.raises(OSError, match="woken"):
                    client.post("/", json={"prompt": "hi", "max_tokens": 40})
            else:
                with pytest.raises(BrokenPipeError):  # Flask's page is a stream, and nobody is there to read it.
                    client.post("/", json={"prompt": "hi", "max_tokens": 40})
            assert app.tokens() > 40


def test_outside_a_request_there_is_no_client():
    app = limited()
    with pytest.raises(RuntimeError, match="request"):
        _ = app.limiter.client_gone


# Waking a read


class Silent:
    """A server that answers the first words of a body of 100 bytes, and then falls silent."""

    def __init__(self, context=None, body=b"one"):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._context, self._body = context, body
        self._connections = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if self._context:
                connection = self._context.wrap_socket(connection, server_side=True)
            self._connections.append(connection)
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + self._body)

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE)
        for connection in self._connections:
            connection.close()


@pytest.fixture(params=["http", "https"])
def silent(request):
    """The address of a silent server, and how to trust it."""
    authority = trustme.CA()
    ours, theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(ours)
    authority.configure_trust(theirs)
    server = Silent(ours if request.param == "https" else None)
    yield f"{request.param}://127.0.0.1:{server.port}", theirs
    server.close()


def test_blocked_read_is_woken(connection, silent):
    address, trusted = silent
    client = WatchedClient(connection[0])
    with httpx2.Client(verify=trusted, timeout=PATIENCE) as upstream, upstream.stream("GET", address) as response:
        assert client.closes(response) is response
        chunks = response.iter_raw()
        assert next(chunks) == b"one"
        connection[1].close()
        threading.Timer(0.1, lambda: client.is_set() and client.tell()).start()
        with pytest.raises(httpx2.TransportError):
            next(chunks)


def test_blocked_read_of_a_socket_is_woken(gone):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(PATIENCE)
        gone.closes(theirs)
        assert theirs.recv(1) == b""


def test_answer_that_was_read_leaves_the_connection_to_the_next_request(connection):
    """It is in httpx's pool, and may serve somebody else's request by then."""
    server = Silent(body=b"x" * 100)
    client = WatchedClient(connection[0])
    try:
        with httpx2.Client(timeout=PATIENCE) as upstream:
            with upstream.stream("GET", f"http://127.0.0.1:{server.port}") as response:
                client.closes(response)
                response.read()
                network = response.extensions["network_stream"].get_extra_info("socket")
            connection[1].close()
            assert client.is_set()
            client.tell()
            network.settimeout(PATIENCE)
            network.sendall(b"still there")
            assert server._connections[0].recv(11) == b"still there"
    finally:
        server.close()


class Answer:
    """A response of httpx, as far as it is looked at."""

    def __init__(self, stream, version="HTTP/1.1", closed=False):
        self.extensions = {"network_stream": self}
        self.is_closed = closed
        self.http_version = version
        self._stream = stream

    def get_extra_info(self, name):
        return self._stream if name == "socket" else None


@pytest.mark.parametrize("options", [{"version": "HTTP/2"}, {"closed": True}])
def test_connection_that_other_requests_may_share_is_left_alone(gone, options):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        gone.closes(Answer(ours, **options))
        theirs.sendall(b"x")
        assert ours.recv(1) == b"x"
        ours.sendall(b"y")
        assert theirs.recv(1) == b"y"


def test_stream_with_a_response_inside_is_found(gone):
    for name in ("response", "http_response", "_response", "_raw_stream"):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            stream = type("Stream", (), {name: Answer(ours)})()
            gone.closes(type("Outer", (), {"_raw_stream": stream})())
            assert theirs.recv(1) == b""


@pytest.mark.parametrize("upstream", [object(), None, "http://a", Answer(None), httpx2.Response(200)])
def test_what_has_no_connection_is_passed_back(gone, upstream, caplog):
    caplog.set_level(logging.WARNING)
    assert gone.closes(upstream) is upstream
    assert len(caplog.records) <= 1


def test_released_client_of_a_request_without_one_is_nothing():
    release(Request({}))
    assert not is_client_gone(Request({}))
