"""The model behind the app: it says what the test wants, when the test wants it."""

import json
import socket


class Upstream:
    """Listens for the calls of the app's streams."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.settimeout(20)
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
        connection.settimeout(20)

    def say(self, chunk):
        """Have the app's generator yield this chunk, in bytes from 0 to 255."""
        self._send(chunk)

    def fail(self):
        """Have the app's generator raise."""
        self._send(None)

    def hung_up(self):
        """Wait until the app has ended the call."""
        return self._connection.recv(1) == b""

    def close(self):
        """End the call; the app's generator ends."""
        self._connection.close()

    def _send(self, line):
        self._connection.sendall(json.dumps(line).encode() + b"\n")
