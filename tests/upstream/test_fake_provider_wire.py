"""What is on the wire: read by a socket, so that no client hides what came."""

import socket

import httpx
import httpx2
import pytest

from flask_ailimit.testing import Fault

BODY = b'{"messages": [{"content": "one two three"}], "stream": true}'
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(BODY)
REQUEST = HEAD + BODY


@pytest.fixture
def connection(provider):
    with socket.create_connection(("127.0.0.1", httpx2.URL(provider.url).port), timeout=20) as connection:
        yield connection


def read_all(connection):
    """Everything that comes, and how it ends."""
    came = b""
    try:
        while part := connection.recv(65536):
            came += part
    except ConnectionResetError:
        return came, "reset"
    return came, "end"


@pytest.mark.parametrize(
    ("fault", "ending"),
    [
        (Fault.dropped(), "reset"),
        (Fault.dropped(unread=True), "reset"),
        (Fault.dropped(ending="close"), "end"),
    ],
    ids=repr,
)
def test_dropped_connection_ends_as_it_is_ordered_and_says_nothing(provider, connection, fault, ending):
    provider.then(fault)
    connection.sendall(REQUEST)
    assert read_all(connection) == (b"", ending)


def test_unread_request_is_dropped_before_its_end_has_come(provider, connection):
    provider.then(Fault.dropped(unread=True))
    connection.sendall(HEAD)
    assert read_all(connection) == (b"", "reset")
    assert provider.calls[0].method == ""


@pytest.mark.parametrize(("cut", "ending"), [("reset", "reset"), ("close", "end")])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_stream_that_is_cut_has_so_many_events_and_no_end(provider, connection, cut, ending, after):
    provider.then(Fault.ok().cut(after=after, ending=cut))
    connection.sendall(REQUEST)
    came, ended = read_all(connection)
    assert came.startswith(b"HTTP/1.1 200 OK\r\n")
    assert (came.count(b"data: "), came.endswith(b"0\r\n\r\n"), ended) == (after, False, ending)


def test_stream_that_is_cut_cleanly_has_an_end_and_no_done(provider):
    provider.then(Fault.ok().cut(after=2, ending="clean"))
    answer = httpx2.post(f"{provider.url}/chat/completions", content=BODY)
    assert answer.text.count("data: ") == 2
    assert "[DONE]" not in answer.text


def test_whole_stream_ends_with_done(provider):
    text = httpx2.post(f"{provider.url}/chat/completions", content=BODY).text
    assert text.endswith("data: [DONE]\n\n")
    assert text.count("data: ") == 6


@pytest.mark.parametrize("http", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_faults_are_the_errors_that_http_clients_know(provider, http):
    url = f"{provider.url}/chat/completions"

    def raised(fault):
        provider.then(fault)
        with pytest.raises(http.TransportError) as error:
            http.post(url, content=BODY, timeout=0.3)
        return error.type

    assert raised(Fault.silent()) is http.ReadTimeout
    assert raised(Fault.ok().late(2)) is http.ReadTimeout
    assert raised(Fault.ok().slow(2)) is http.ReadTimeout
    assert raised(Fault.dropped()) is http.ReadError
    assert raised(Fault.dropped(ending="close")) is http.RemoteProtocolError
    assert raised(Fault.ok().cut(2)) is http.ReadError
    assert raised(Fault.ok().cut(2, ending="close")) is http.RemoteProtocolError
    # A reset that meets the client while it writes is seen by its write, and its read then finds an end.
    assert raised(Fault.dropped(unread=True)) in (http.ReadError, http.RemoteProtocolError)
    with provider.away(), pytest.raises(http.ConnectError):
        http.post(url, content=BODY)


def test_body_in_chunks_is_read(provider):
    answer = httpx2.post(f"{provider.url}/chat/completions", content=iter([BODY[:9], BODY[9:]]))
    assert answer.status_code == 200
    assert provider.calls[0].body["stream"] is True


@pytest.mark.parametrize(
    "sent",
    [
        b"what\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\n12",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
def test_what_is_no_request_ends_the_connection_and_nothing_else(provider, connection, sent):
    connection.sendall(sent)
    connection.shutdown(socket.SHUT_WR)
    assert read_all(connection)[0] == b""
    (call,) = provider.wait_for_calls(1)
    assert (call.method, call.status, call.delivered) == ("", 0, False)
    assert httpx2.get(f"{provider.url}/models").status_code == 200


def test_connection_without_a_request_is_no_call(provider, connection):
    connection.close()
    assert httpx2.get(f"{provider.url}/models").status_code == 200
    assert provider.count() == 1


def test_client_that_wants_to_close_gets_its_answer_and_the_end(provider, connection):
    connection.sendall(b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    came, ended = read_all(connection)
    assert came.startswith(b"HTTP/1.1 200 OK\r\n")
    assert ended == "end"
