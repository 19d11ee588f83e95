"""Who sends megabytes and is refused gets the answer, whole, over a connection that ends as it should."""

import http.client
import socket
from contextlib import closing

import pytest
from gunicorn_client import PATIENCE

MEGABYTE = 1 << 20
SMALL = 20
ONCE = "/admit?requests=1&tokens=1000000&slots=50"


def body_of(size):
    return b'{"prompt": "' + b"-" * (size - 14) + b'"}'


def answer_to(server, key, size, *, chunked=False):
    """Send everything before looking at the answer, as most clients do, and read until the server closes."""
    body = body_of(size)
    length = f"Content-Length: {size}"
    if chunked:
        length, body = "Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (size, body)
    head = (
        f"POST {ONCE} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\n{length}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as sock:
        sock.sendall(head.encode() + body)
        answer = b""
        while piece := sock.recv(65536):  # It raises if the connection is reset.
            answer += piece
    return answer


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("megabytes", [1, 9])
def test_refused_client_that_sent_megabytes_gets_the_whole_answer(server, key, megabytes, chunked):
    assert answer_to(server, key, SMALL).startswith(b"HTTP/1.1 200")
    for _ in range(4):
        answer = answer_to(server, key, megabytes * MEGABYTE, chunked=chunked)
        assert answer.startswith(b"HTTP/1.1 429")
        assert b'"rate_limit_exceeded"' in answer


def test_connection_that_is_kept_alive_is_good_for_the_next_request(server, key):
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        statuses = []
        for size in (SMALL, MEGABYTE, 9 * MEGABYTE, SMALL):
            connection.request("POST", ONCE, body_of(size), headers)
            with connection.getresponse() as response:
                statuses.append(response.status)
                response.read()
    assert statuses == [200, 429, 429, 429]
