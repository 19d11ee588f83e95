"""The model behind the app: it says what the test wants, when the test wants it."""

import json
import socket
from contextlib import suppress

PATIENCE = 60
"""Seconds to wait for the app. Only a test that fails waits for so long."""


class Upstream:
    """Listens for the calls of the app's streams."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.settimeout(PATIENCE)
        self.port = self._listener.getsockname()[1]
        self._conversations = []

    def called(self):
        """Wait for the next call."""
        conversation = Conversation(self._listener.accept()[0])
        self._conversations.append(conversation)
        return conversation

    def hang_up(self):
        """End every call."""
        while self._conversations:
            self._conversations.pop().close()

    def close(self):
        self._listener.close()


class Conversation:
    """One call of the app."""

    def __init__(self, connection):
        self._connection = connection
        connection.settimeout(PATIENCE)

    def say(self, chunk):
        """Have the app's generator yield this chunk, in bytes from 0 to 255."""
        self._send(chunk)

    def fail(self):
        """Have the app's generator raise."""
        self._send(None)

    def encrypt(self, context):
        """Speak TLS from now on."""
        self._connection = context.wrap_socket(self._connection, server_side=True)

    def read_request(self):
        """Take an HTTP request; its path."""
        request = b""
        while b"\r\n\r\n" not in request:
            request += self._connection.recv(65536)
        return request.split(b" ", 2)[1].decode()

    def send(self, data):
        """Send these bytes."""
        self._connection.sendall(data)

    def client_gone(self):
        """Wait until the app has heard that its client is gone."""
        return self._connection.recv(4, socket.MSG_WAITALL) == b"gone"

    def hung_up(self):
        """Wait until the app has ended the call."""
        with suppress(ConnectionResetError):
            while self._connection.recv(65536):  # The rest of what it asked.
                pass
        return True

    def close(self):
        """End the call; the app's generator ends."""
        self._connection.close()

    def _send(self, line):
        self._connection.sendall(json.dumps(line).encode() + b"\n")
