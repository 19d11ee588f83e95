"""Tells a view that its client is gone, and ends a read from an upstream whose output nobody needs any more."""

import logging
import os
import select
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from flask_ailimit.engine.clock import seconds_running
from flask_ailimit.engine.native import Pulse

_log = logging.getLogger("flask_ailimit")

T = TypeVar("T")

_GONE = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR | select.POLLNVAL
_LOOK_EVERY = 0.25
_IN_AN_SDKS_STREAM = ("response", "http_response", "_response", "_raw_stream")


class ClientGone:
    """Whether the client of one request is gone: it closed its connection, or its half of it.

    This works where the server puts the client's socket into the WSGI environment: gunicorn, with every worker class,
    and Werkzeug's development server. With other servers the client never counts as gone.

    The object may be kept and used in other threads. After the answer is closed it doesn't change any more.

    Args:
        client: The client's socket; None if the server doesn't give it.
    """

    def __init__(self, client: socket.socket | None) -> None:
        self._client = client
        self._gone = False
        self._released = False
        self._since = 0.0
        # Looked up now, because at import gevent may not have replaced threading.Lock yet.
        # An Event would stay locked if a time-out of the app raised inside it.
        self._news = Pulse(threading.Lock())
        self._callbacks: deque[Callable[[], object]] = deque()
        self._deadlines: list[tuple[float, Callable[[], bool]]] = []

    def is_set(self) -> bool:
        """Whether the client is gone. Asks the operating system, which takes about a microsecond."""
        client = self._client
        if not self._gone and not self._released and client is not None and _hung_up(client) and not self._released:
            self._since = seconds_running()
            self._gone = True
            self._news.give()
        return self._gone

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the client is gone, the answer is closed or ``timeout`` seconds are over.

        Returns whether the client is gone.
        """
        began = seconds_running()
        while not (self.is_set() or self._released):
            left = _LOOK_EVERY if timeout is None else timeout - (seconds_running() - began)
            if left <= 0:
                break
            if self._news.wait(min(left, _LOOK_EVERY)):
                self._news.give()  # To the other waiting threads.
        return self._gone

    def call(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` once when the client is gone. If it is gone already, call it now, in this thread.

        Otherwise a thread of ours calls it, about 0.25 s after the client left. The process has one such thread for all
        requests, so the callback must be quick. Its exception is caught, and the exception's type is logged.
        """
        self._callbacks.append(callback)
        self._tell_now()

    def closes(self, upstream: T) -> T:
        """Shut down the connection to ``upstream`` when the client is gone. Returns ``upstream``.

        A blocked read then ends with an error of httpx. (``close()`` in another thread would not end it.) An upstream
        whose answer was read to its end is left alone, because its connection may serve another request by then. So is
        one over HTTP/2, because other requests share the connection.

        Args:
            upstream: A response of httpx, a stream of the SDKs of OpenAI or Anthropic, or a socket.
        """
        self.call(lambda: shut_down(upstream))
        return upstream

    def _tell_now(self) -> None:
        if self.is_set():
            self._tell()
        elif self._released:
            self._callbacks.clear()

    def _tell(self) -> None:
        """Call every callback that is due. A callback is removed before it is called, so each is called once."""
        while self._callbacks:
            try:
                callback = self._callbacks.popleft()
            except IndexError:
                return
            _called(callback)


class WatchedClient(ClientGone):
    """A :class:`ClientGone` with the methods that the watch and the streams of a request need.

    Attributes:
        streams: Whether the answer is a stream, which is closed after the request has ended.
    """

    streams = False

    def call_after(self, seconds: float, callback: Callable[[], bool]) -> None:
        """Call ``callback`` this many seconds after the client has gone, unless the answer is closed by then."""
        self._deadlines.append((seconds, callback))

    def call_first(self, callback: Callable[[], object]) -> None:
        """Like :meth:`call`, but before the callbacks of the app."""
        self._callbacks.appendleft(callback)
        self._tell_now()

    def tell(self) -> None:
        """Call every callback that is due."""
        self._tell()

    def overdue(self, now: float) -> int:
        """Call the callbacks of :meth:`call_after` whose time has come. Returns how many of them returned True."""
        due = [each for each in self._deadlines if now - self._since >= each[0]]
        for each in due:
            with suppress(ValueError):  # The answer may have been closed, which clears the list.
                self._deadlines.remove(each)
        return sum(_called(callback) is True for _, callback in due)

    def release(self) -> None:
        """Stop looking: the answer is closed, and the connection may bring another request."""
        self._released = True
        self._callbacks.clear()
        self._deadlines.clear()
        self._news.give()


def shut_down(upstream: object) -> None:
    """Shut down the connection of an upstream whose answer is not complete."""
    if isinstance(upstream, (socket.socket, socket.SocketType)):  # socket.socket may be gevent's class by now.
        _shut_down(upstream)
        return
    response = _response_of(upstream)
    if response is None:
        _log.warning("The client is gone, but %s has no connection to shut down.", type(upstream).__name__)
    elif not response.is_closed and getattr(response, "http_version", "") != "HTTP/2":
        connection = response.extensions["network_stream"].get_extra_info("socket")
        if connection is not None:
            _shut_down(connection)


def _response_of(upstream: Any) -> Any:
    """The httpx response in ``upstream``, such as the one inside an SDK's stream; None if there is none."""
    seen = upstream
    for _ in _IN_AN_SDKS_STREAM:
        if "network_stream" in (getattr(seen, "extensions", None) or ()):
            return seen
        seen = next((inner for name in _IN_AN_SDKS_STREAM if (inner := getattr(seen, name, None)) is not None), None)
    return None


def _shut_down(connection: socket.SocketType) -> None:
    descriptor = connection.fileno()
    # A second descriptor, because shutdown() of a TLS socket would also remove the state that the reader is using.
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as same:  # Either end may be closed.
        if connection.fileno() == descriptor:
            same.shutdown(socket.SHUT_RDWR)


def _hung_up(client: socket.socket) -> bool:
    # The original poll, because gevent's replacement doesn't report a half-closed connection.
    monkey = sys.modules.get("gevent.monkey")
    poll = monkey.get_original("select", "poll")() if monkey else select.poll()
    try:
        descriptor = client.fileno()
        poll.register(descriptor, _GONE)
        # If the descriptor was closed meanwhile, it may belong to another connection now.
        return bool(poll.poll(0)) and client.fileno() == descriptor
    except (OSError, ValueError):
        return False  # The server closed the socket, so it has answered.


def _called(callback: Callable[[], object]) -> object:
    try:
        return callback()
    except Exception as error:  # noqa: BLE001  the other callbacks must still be called
        # Not the error's text or its traceback, which may hold a prompt.
        _log.error("A callback for a client that is gone raised %s.", type(error).__name__)
        return None
