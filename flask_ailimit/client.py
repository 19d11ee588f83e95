"""Tells a view that its client is gone, and wakes a read from an upstream that would go on for nobody."""

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

from .engine.clock import seconds_running
from .engine.native import Pulse

_log = logging.getLogger("flask_ailimit")

T = TypeVar("T")

_GONE = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR | select.POLLNVAL
_LOOK_EVERY = 0.25
_IN_AN_SDKS_STREAM = ("response", "http_response", "_response", "_raw_stream")


class ClientGone:
    """Whether the client of one request is gone: it closed its connection, or its half of it.

    It is known where the server puts the client's socket into the WSGI environment: gunicorn, with every worker class,
    and Werkzeug's development server. Elsewhere nothing ever fires.

    It may be kept, and used in other threads. When the answer is closed nothing changes any more.

    Args:
        client: The client's socket; None if the server doesn't tell.
    """

    def __init__(self, client: socket.socket | None) -> None:
        self._client = client
        self._gone = False
        self._released = False
        self._since = 0.0
        # Looked up now: at import, gevent may not have put its own in its place yet.
        # An Event would stay locked if a time-out of the app came in its middle.
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

        Answers whether the client is gone.
        """
        began = seconds_running()
        while not (self.is_set() or self._released):
            left = _LOOK_EVERY if timeout is None else timeout - (seconds_running() - began)
            if left <= 0:
                break
            if self._news.wait(min(left, _LOOK_EVERY)):
                self._news.give()  # To whoever waits besides.
        return self._gone

    def call(self, callback: Callable[[], object]) -> None:
        """Have ``callback`` called once when the client is gone; at once, in this thread, if it already is.

        Else a thread of ours calls it, the same for all requests of the process, and about 0.25 s after the client
        left. So it must be quick. What it raises is caught, and logged by its type.
        """
        self._callbacks.append(callback)
        self._tell_now()

    def closes(self, upstream: T) -> T:
        """Wake whoever waits for ``upstream`` when the client is gone. Answers ``upstream``.

        The connection is shut down, so a read that is blocked ends with an error of httpx's. (``close()`` in another
        thread wakes nobody.) Nothing is done to an upstream whose answer was read to its end, because its connection
        may serve another request by then, nor over HTTP/2, where other requests share the connection.

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
        """Call every callback that is due. Whoever takes one calls it, so each is called once."""
        while self._callbacks:
            try:
                callback = self._callbacks.popleft()
            except IndexError:
                return
            _called(callback)


class WatchedClient(ClientGone):
    """The same, as the watch and the streams of a request see it.

    Attributes:
        streams: Whether the answer is a stream. It is closed later than the request ends.
    """

    streams = False

    def call_after(self, seconds: float, callback: Callable[[], bool]) -> None:
        """Have ``callback`` called so many seconds after the client has gone, if the answer isn't closed by then."""
        self._deadlines.append((seconds, callback))

    def call_first(self, callback: Callable[[], object]) -> None:
        """As :meth:`call`, before what the app wants called."""
        self._callbacks.appendleft(callback)
        self._tell_now()

    def tell(self) -> None:
        """Call every callback that is due."""
        self._tell()

    def overdue(self, now: float) -> int:
        """Call what is due by now, so long after the client has gone. Answers how many answered true."""
        due = [each for each in self._deadlines if now - self._since >= each[0]]
        for each in due:
            with suppress(ValueError):  # The answer may be closed meanwhile, which makes an end of them all.
                self._deadlines.remove(each)
        return sum(_called(callback) is True for _, callback in due)

    def release(self) -> None:
        """Look no more: the answer is closed, and the connection may bring another request."""
        self._released = True
        self._callbacks.clear()
        self._deadlines.clear()
        self._news.give()


def shut_down(upstream: object) -> None:
    """Shut down the connection of an upstream that is still answering."""
    if isinstance(upstream, (socket.socket, socket.SocketType)):  # The first may be gevent's by now.
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
    """The response of httpx in it; None if there is none. The SDKs' streams have one inside."""
    seen = upstream
    for _ in _IN_AN_SDKS_STREAM:
        if "network_stream" in (getattr(seen, "extensions", None) or ()):
            return seen
        seen = next((inner for name in _IN_AN_SDKS_STREAM if (inner := getattr(seen, name, None)) is not None), None)
    return None


def _shut_down(connection: socket.SocketType) -> None:
    descriptor = connection.fileno()
    # By a second descriptor: shutdown() of a TLS socket would also take away the state that the reader is using.
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as same:  # It may be closed, or its other end.
        if connection.fileno() == descriptor:
            same.shutdown(socket.SHUT_RDWR)


def _hung_up(client: socket.socket) -> bool:
    # The one that gevent puts in the place of the operating system's poll knows nothing of a closed half.
    monkey = sys.modules.get("gevent.monkey")
    poll = monkey.get_original("select", "poll")() if monkey else select.poll()
    try:
        descriptor = client.fileno()
        poll.register(descriptor, _GONE)
        # A descriptor that was closed meanwhile may be another connection's.
        return bool(poll.poll(0)) and client.fileno() == descriptor
    except (OSError, ValueError):
        return False  # The server closed it, and so has answered.


def _called(callback: Callable[[], object]) -> object:
    try:
        return callback()
    except Exception as error:  # noqa: BLE001  whatever it was, the others are to be called
        # Not the error's text or its traceback, which may hold a prompt.
        _log.error("A callback for a client that is gone raised %s.", type(error).__name__)
        return None
