"""One client of the fault proxy: its commands, the server's replies, and what befalls them on the way."""

import select
import socket
import struct
import threading
from collections import deque

from redis_servers import PATIENCE
from resp_messages import name_of, take_messages, words_of

RESET_ON_CLOSE = struct.pack("ii", 1, 0)

# After these, bytes come that answer no command.
STREAMS = {"PSYNC", "SYNC", "SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "MONITOR"}


class Connection:
    """A client's connection and the one to the server that belongs to it.

    Attributes:
        stream: The command after which its bytes are passed on as they are, or None.
    """

    def __init__(self, proxy, client):
        self.stream = None
        self._proxy = proxy
        self._client = client
        self._server = None
        self._swallows = False
        self._interrupted = threading.Event()
        self._commands = bytearray()
        self._replies = bytearray()
        self._owed = deque()  # For each reply to come, the fault that awaits it, or None.
        self._first = None  # The first reply to a command that was sent twice.

    def serve(self):
        """Pass on what arrives until either side ends.

        Raises:
            OSError: A side, or a fault, has broken it off.
        """
        self._client.settimeout(PATIENCE)
        self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._proxy.tls and not self._proxy.black_hole:
            self._client = self._proxy.tls.wrap_socket(self._client, server_side=True)
        poll = select.poll()
        poll.register(self._client, select.POLLIN)
        if not self._proxy.black_hole:
            self._server = socket.create_connection(("127.0.0.1", self._proxy.target), PATIENCE)
            self._server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            poll.register(self._server, select.POLLIN)
        while True:
            for number, _ in poll.poll():
                source = self._client if number == self._client.fileno() else self._server
                data = source.recv(1 << 16)
                if not data:
                    return
                self._swallows |= self._proxy.black_hole or self._server is None
                if self._swallows:
                    continue
                (self._take_commands if source is self._client else self._take_replies)(data)

    def interrupt(self):
        """Have the thread that serves it reset it."""
        self._interrupted.set()
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._client.shutdown(socket.SHUT_RD)

    def close(self):
        self._client.close()
        if self._server is not None:
            self._server.close()

    def _take_commands(self, data):
        if self.stream:
            self._send(self._server, data)
            return
        self._commands += data
        for command in take_messages(self._commands):
            words = words_of(command)
            if words:
                self._pass_command(command, words)
            if self.stream:
                self._send(self._server, bytes(self._commands))
                self._commands.clear()
                return

    def _pass_command(self, command, words):
        fault = self._proxy.fault_of(words)
        what = fault.what if fault else None
        if what == "cut_request":
            self._break_off(fault)
        if what in {"drop_request", "corrupt_request"}:
            fault.happened()
        if what == "drop_request":
            return
        if what == "corrupt_request":
            command, fault = fault.corrupted(command), None
        if what == "duplicate_request":
            self._owed.append("first of two")
            self._send(self._server, command)
        self._owed.append(fault)
        self._send(self._server, command)
        self.stream = name_of(words) if name_of(words) in STREAMS else None

    def _take_replies(self, data):
        if self._proxy.delay:
            self._wait(self._proxy.delay)
        if self.stream:
            self._send(self._client, data)
            return
        self._replies += data
        for reply in take_messages(self._replies):
            pushed = reply.startswith(b">")
            self._pass_reply(reply, self._owed.popleft() if self._owed and not pushed else None)

    def _pass_reply(self, reply, fault):
        if fault == "first of two":
            self._first = reply
            return
        what = fault.what if fault else None
        if what == "cut_reply":
            self._break_off(fault)
        if what == "delay_reply":
            self._wait(fault.seconds)
        if fault:
            fault.happened()
        if what == "duplicate_request":
            reply = self._first
        if what == "corrupt_reply":
            reply = fault.corrupted(reply)
        if what != "drop_reply":
            self._send(self._client, reply)

    def _send(self, sink, data):
        if not self._proxy.split:
            sink.sendall(data)
            return
        for byte in data:
            sink.sendall(bytes([byte]))

    def _wait(self, seconds):
        if self._interrupted.wait(seconds):
            raise ConnectionAbortedError

    def _break_off(self, fault):
        if fault.reset:
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        fault.happened()
        self.close()
        raise ConnectionAbortedError
