"""Signals, for meters and bills: what was refused and what was used. See Flask's signals for how to connect.

Receivers get the app as sender, and run in its context: in the request, or for a stream when it ends. A receiver that
raises is logged, and changes no answer. Take what you need by name and leave the rest to ``**extra``: more facts come
with later versions.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import flask
from blinker import NamedSignal, Namespace
from flask import Flask

from .current import current_app
from .places import places_of

_log = logging.getLogger("flask_ailimit")
_signals = Namespace()

request_refused = _signals.signal("request-refused")
"""A limit refused. Sent with ``decision`` (a :class:`flask_ailimit.Decision`), ``subject``, ``endpoint``,
``request_id`` and ``client_request_id``, as in :data:`usage_settled`."""

usage_settled = _signals.signal("usage-settled")
"""A request was charged what it used. Sent once for each settlement: for most requests there is one, and what is used
after it (an agent that goes on after its answer's last event) is a second one over the difference. Their sum is the
bill. Sent with

- ``usage``: a :class:`flask_ailimit.Usage`, in tokens; of the source ``reserved`` what was reserved
- ``source``: ``recorded`` (the view said it), ``reported`` (the answer did), ``counted`` (from the text) or
  ``reserved`` (nobody knows, and what was reserved stays charged)
- ``charged``: units by name, such as ``{"requests": 1, "tokens": 300}``; with cached input left out, if it is free
- ``subject``: the hash that stands for who pays the tokens, in hexadecimal; see :meth:`flask_ailimit.AILimiter.subject`
- ``endpoint``: Flask's name of the view, or None
- ``status``: the HTTP status of the answer; None if there was none
- ``ending``: ``complete``, ``not_started`` (nobody read the stream), ``failed``, ``abandoned`` (the client left, or the
  worker was stopped) or ``handed_over``
- ``request_id``: our own id, see :attr:`flask_ailimit.AILimiter.request_id`
- ``client_request_id``: what the client sent as X-Request-Id, if it is fit for a header; else None
- ``decision``: the :class:`flask_ailimit.Decision` that let it in; None of work that was handed over
- ``plan``, ``model``, ``label``: None; their places are kept for who sells plans
"""

store_changed = _signals.signal("store-changed")
"""The store went away or is back. Sent with ``available``, outside of any request: true when it is back. Limits follow
their ``on_store_error`` in between."""


def tell(signal: NamedSignal, app: Flask, **facts: Any) -> None:
    """Send a signal, so that no receiver changes what happens to a request: one that raises is logged.

    The log has the error's type and the places in the code, and not its message, which may hold a prompt.
    """
    if not signal.receivers or signal.is_muted:
        return
    with _context_of(app):
        for receiver in signal.receivers_for(app):
            try:
                app.ensure_sync(receiver)(app, **facts)
            except Exception as error:  # noqa: BLE001  any: it is the app's function
                _log.error("A receiver of %s raised %s at %s", signal.name, type(error).__name__, places_of(error))


@contextmanager
def _context_of(app: Flask) -> Iterator[None]:
    """The app's context: the one that is there, or a new one where a stream ends after its request."""
    if flask.has_app_context() and current_app() is app:
        yield
    else:
        with app.app_context():
            yield
