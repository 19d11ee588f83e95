"""Finds out that a client is gone. A server alone notices it only at its next write.

One thread per process looks four times a second at the sockets of open streams, and of requests whose view asked for
``client_gone``. It runs while there are such sockets. A client that closed its half of the connection counts as gone,
because nobody can tell whether it still reads. A client that stays but doesn't read is cut off by a write time-out.

A stream whose client is gone reads no further chunk. Its view may still wait for a model, so the slot is given back and
the tokens are settled when the view returns or raises.
"""

import logging
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any
from weakref import ReferenceType, ref

from flask import Request, Response

from flask_ailimit.config import CLIENT, Settings
from flask_ailimit.engine.background import Background
from flask_ailimit.engine.clock import seconds_running
from flask_ailimit.engine.forking import forget_in_children

from .client_gone import WatchedClient
from .streaming import Ending, MeteredStream

_log = logging.getLogger("flask_ailimit")

_SOCKET_KEYS = ("gunicorn.socket", "werkzeug.socket")
_CLIENT = "flask_ailimit.client_gone"
_LOOK_EVERY = 0.25


class Watch:
    """Looks at clients. It needs no lock, because each operation on its dictionary is atomic.

    Args:
        clock: Returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = seconds_running) -> None:
        self._clock = clock
        self.forget()
        forget_in_children(self)

    def add(self, client: WatchedClient) -> None:
        """Start to look at this client, until it is removed or garbage-collected."""
        self._watched[ref(client, self._drop)] = None
        self._thread.ensure()

    def remove(self, client: WatchedClient) -> None:
        """Stop looking at this client."""
        self._drop(ref(client))

    def look(self) -> None:
        """Call the callbacks of the clients that are gone now."""
        now = self._clock()
        let_go = 0
        for reference in self._watched.copy():
            client = reference()
            if client is not None and client.is_set():
                client.tell()
                let_go += client.overdue(now)
        if let_go:
            _log.warning(
                "%d streams gave their slots back though their views work on: their clients left longest_abandoned "
                "seconds ago. Let such a view hear of it by limiter.client_gone.",
                let_go,
            )

    def __len__(self) -> int:
        """Return how many clients are looked at."""
        return len(self._watched)

    def forget(self) -> None:
        """Start afresh. A child process has neither its parent's requests nor its thread."""
        self._watched: dict[ReferenceType[WatchedClient], None] = {}
        self._thread = Background(self._run, "streams")

    def _drop(self, reference: ReferenceType[WatchedClient]) -> None:
        self._watched.pop(reference, None)

    def _run(self) -> None:
        pause = threading.Event()
        while self._watched:
            pause.wait(_LOOK_EVERY)
            self.look()
        self._thread.retire_unless(lambda: self._watched)


watching = Watch()
"""The watch of this process."""


def socket_of(environ: Mapping[str, Any]) -> socket.socket | None:
    """The client's socket; None if the server doesn't give it."""
    return next((environ[key] for key in _SOCKET_KEYS if key in environ), None)


def watch_client(request: Request) -> WatchedClient:
    """The request's :class:`WatchedClient`. The first call starts to watch the client."""
    client: WatchedClient | None = request.__dict__.get(_CLIENT)
    if client is None:
        connection = socket_of(request.environ)
        client = request.__dict__[_CLIENT] = WatchedClient(connection)
        if connection is not None:
            watching.add(client)
    return client


def is_client_gone(request: Request) -> bool:
    """Whether the request's client was watched, and is gone."""
    client: WatchedClient | None = request.__dict__.get(_CLIENT)
    return client is not None and client.is_set()


def watch_until_closed(request: Request, response: Response) -> None:
    """If the request's client is watched and the response is a stream, watch the client until the stream is closed."""
    client: WatchedClient | None = request.__dict__.get(_CLIENT)
    if client is not None and response.is_streamed:
        client.streams = True
        response.call_on_close(lambda: _release(client))


def release(request: Request) -> None:
    """Stop watching the request's client, unless the response is a stream, which isn't closed yet."""
    client: WatchedClient | None = request.__dict__.get(_CLIENT)
    if client is not None and not client.streams:
        _release(client)


def end_with_client(stream: MeteredStream, request: Request, settings: Settings) -> None:
    """Stop reading the stream when its client is gone, and let a write fail after ``write_timeout`` seconds."""
    connection = socket_of(request.environ)
    if connection is None:
        return
    client = watch_client(request)
    client.streams = True
    before = connection.gettimeout()
    if settings.write_timeout is not None:
        connection.settimeout(settings.write_timeout)

    def closed() -> None:
        _release(client)
        if settings.write_timeout is not None and connection.fileno() >= 0:
            connection.settimeout(before)

    stream.on_close(closed)
    known = ref(stream)  # Weak, so that a stream that the app drops ends at once.

    def abandon() -> None:
        abandoned = known()
        if abandoned is not None:
            abandoned.abandon(at_once=settings.slot_ends == CLIENT)

    def overdue() -> bool:
        abandoned = known()
        return abandoned is not None and abandoned.end(Ending.ABANDONED)

    client.call_first(abandon)
    if settings.longest_abandoned is not None:
        client.call_after(settings.longest_abandoned, overdue)


def _release(client: WatchedClient) -> None:
    client.release()
    watching.remove(client)
