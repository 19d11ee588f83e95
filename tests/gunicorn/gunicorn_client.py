"""Clients as they are: some read to the end, some leave, some never read."""

import http.client
import json
import select
import socket
import struct
from contextlib import suppress

PROMPT = {"prompt": "tell me a story please", "max_tokens": 40}
"""Five words, and forty more at most."""

INPUT, RESERVED = 5, 45

PATIENCE = 60
"""Seconds to wait for an answer. Only a test that fails waits for so long."""


def token_of(key):
    """A key as a Bearer token: that has no blanks."""
    return key.replace(" ", "-")


class Call:
    """One request, sent.

    Args:
        port: Where to, on 127.0.0.1.
        path: What for.
        key: Who asks.
        receive_buffer: Bytes that the kernel keeps for a client that doesn't read.
    """

    def __init__(self, port, path, key, *, method="POST", body=PROMPT, receive_buffer=0, headers=()):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self.connection.sock = sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(PATIENCE)
        sock.connect(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._response = None
        self.send(path, key, method=method, body=body, headers=headers)

    def send(self, path, key, *, method="POST", body=PROMPT, headers=()):
        """Ask once more over the same connection."""
        self._response = None
        headers = {"Authorization": f"Bearer {token_of(key)}", **dict(headers)}
        text = None
        if method not in ("GET", "HEAD"):
            text = json.dumps(body)
            headers["Content-Type"] = "application/json"
        self.connection.request(method, path, text, headers)

    def send_ahead(self, path, key):
        """Send one more request before the answer to the last has come. Its own answer is never read."""
        self.connection.sock.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token_of(key)}\r\n\r\n".encode()
        )

    @property
    def response(self):
        """The answer's head, when it has come."""
        if self._response is None:
            self._response = self.connection.getresponse()
        return self._response

    @property
    def status(self):
        return self.response.status

    def chunk(self):
        """The next piece of the body, when it has come; empty at the end."""
        return self.response.read1()

    def rest(self):
        """The body to its end."""
        return self.response.read()

    def finish_writing(self):
        """Close this client's half of the connection."""
        self._sock.shutdown(socket.SHUT_WR)

    def leave(self):
        """Close the connection: a FIN, if nothing is left unread."""
        if self._response is not None:
            self._response.close()
        self.connection.close()

    def reset(self):
        """Drop the connection: an RST."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.leave()


class Crowd:
    """Many requests at once, one for each key: all are connected before the first is sent, and none waits."""

    def __init__(self, port, path, keys):
        text = json.dumps(PROMPT)
        self._waiting = {}
        self._poll = select.poll()
        for key in keys:
            sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
            request = (
                f"POST {path} HTTP/1.1\r\nHost: localhost\r\n"
                f"Authorization: Bearer {token_of(key)}\r\nConnection: close\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n{text}"
            )
            self._waiting[sock.fileno()] = (sock, request.encode(), bytearray())
            self._poll.register(sock, select.POLLIN)
        self._unsent = list(self._waiting)
        self.statuses = []

    def ask(self, count=None):
        """Send so many of the requests that have not been sent yet, or all of them."""
        now, self._unsent = self._unsent[:count], self._unsent[len(self._unsent[:count]) :]
        for descriptor in now:
            sock, request, _ = self._waiting[descriptor]
            with suppress(ConnectionError):  # Whether there is an answer is found out when it is read.
                sock.sendall(request)

    def collect(self, count=None):
        """Read answers until there are ``count`` in all, or everybody's; answer how many had which status."""
        wanted = len(self.statuses) + len(self._waiting) if count is None else count
        while len(self.statuses) < wanted:
            ready = self._poll.poll(1000 * PATIENCE)
            assert ready, f"no answer for {PATIENCE} s; {len(self._waiting)} wait still, after {self.counts}"
            for descriptor, _ in ready:
                self._read(descriptor)
        return self.counts

    def read(self):
        """Read the answers that are there; how many had which status so far."""
        for descriptor, _ in self._poll.poll(0):
            self._read(descriptor)
        return self.counts

    @property
    def counts(self):
        return {status: self.statuses.count(status) for status in set(self.statuses)}

    def _read(self, descriptor):
        sock, _, answer = self._waiting[descriptor]
        try:
            piece = sock.recv(65536)
        except ConnectionResetError:
            piece = b""
        answer += piece
        if not piece:
            self._poll.unregister(descriptor)
            del self._waiting[descriptor]
            sock.close()
            self.statuses.append(int(answer.split(b" ", 2)[1]) if answer else "no answer")
