"""Finds out that a stream's client is gone, which a server notices only at its next write.

A stream that waits for a silent model would hold its slot until the model speaks. One thread per process looks at the
sockets of open streams four times a second. A client that closed its half of the connection counts as gone: it could
otherwise go on reading while its slot is free. And a client that stays but doesn't read is cut off by a write time-out.

Only servers that put their socket into the WSGI environment can be watched: gunicorn, with every worker class, and
Werkzeug's development server. Elsewhere a stream ends as its server finds out.
"""

import logging
import os
import select
import socket
import sys
from collections.abc import Mapping
from threading import Event, Lock, Thread
from typing import Any
from weakref import WeakKeyDictionary

from .streaming import MeteredStream

_log = logging.getLogger("flask_ailimit")

_SOCKET_KEYS = ("gunicorn.socket", "werkzeug.socket")
_LOOK_EVERY = 0.25
_GONE = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR | select.POLLNVAL


def socket_of(environ: Mapping[str, Any]) -> socket.socket | None:
    """The client's socket, if the server tells."""
    return next((environ[key] for key in _SOCKET_KEYS if key in environ), None)


def watch(stream: MeteredStream, client: socket.socket, write_timeout: float | None) -> None:
    """Stop the stream when its client is gone, and let a write fail after ``write_timeout`` seconds."""
    before = client.gettimeout()
    if write_timeout is not None:
        client.settimeout(write_timeout)

    def released(closed: MeteredStream) -> None:
        with _lock:
            _watched.pop(closed, None)
        if write_timeout is not None and client.fileno() >= 0:
            client.settimeout(before)

    stream.on_close(released)
    with _lock:
        _watched[stream] = client.fileno()
    _start()


def look() -> None:
    """Stop the streams whose clients are gone now."""
    with _lock:
        streams = list(_watched.items())
    for stream, descriptor in streams:
        poll = _real_poll()
        poll.register(descriptor, _GONE)
        if poll.poll(0) and stream in _watched:
            try:
                stream.stop()
            except Exception:  # noqa: BLE001  whatever it was, the other streams are to be ended
                _log.exception("A stream was not ended, though its client is gone.")


def _real_poll() -> Any:
    """A poll of the operating system. The one that gevent puts in its place knows nothing of a closed half."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey.get_original("select", "poll")() if monkey else select.poll()


_watched: WeakKeyDictionary[MeteredStream, int] = WeakKeyDictionary()
_lock = Lock()
_wake = Event()
_thread: Thread | None = None


def _start() -> None:
    global _thread  # noqa: PLW0603  one for the process
    with _lock:
        thread = None if _thread else Thread(target=_run, name="flask_ailimit streams", daemon=True)
        _thread = _thread or thread
    if thread is not None:
        # Not under the lock: gevent lets others run until the thread has started, and they would want the lock.
        thread.start()
    _wake.set()


def _run() -> None:
    pause = Event()
    while True:
        _wake.wait()
        _wake.clear()
        while _watched:
            pause.wait(_LOOK_EVERY)
            look()


def _forget() -> None:
    """A child process has none of its parent's streams, nor its thread."""
    global _thread, _lock, _wake
    _thread, _lock, _wake = None, Lock(), Event()
    _watched.clear()


os.register_at_fork(after_in_child=_forget)
