"""Signals for metering and billing: what was refused and what was used. Flask's documentation says how to connect.

Receivers get the app as sender, and run in its context: in the request, or when a stream ends. If a receiver raises,
the error is logged, and the answer doesn't change. A receiver should take the facts that it needs by name and the rest
as ``**extra``, because later versions will send more.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import flask
from blinker import NamedSignal, Namespace
from flask import Flask

from .code_places import code_places
from .current import current_app

_log = logging.getLogger("flask_ailimit")
_signals = Namespace()

request_refused = _signals.signal("request-refused")
"""A limit refused a request. Sent with ``decision`` (a :class:`flask_ailimit.Decision`), ``subject``, ``endpoint``,
``request_id``, ``client_request_id``, ``plan``, ``model`` and ``label``, as in :data:`usage_settled`. If a payer
is suspended, no limit refused the request, and ``decision`` may be None."""

request_would_be_refused = _signals.signal("request-would-be-refused")
"""A limit that is only tried would have refused a request that the others let through. Sent with ``would_refuse``, the
verdicts of such limits (:class:`flask_ailimit.engine.Verdict`), and with what :data:`request_refused` has."""

usage_settled = _signals.signal("usage-settled")
"""A request was charged what it used. Sent once for each settlement. Most requests have one. If an agent goes on after
its answer's last event, a second settlement charges what was used since. Their sum is the bill. Sent with

- ``usage``: a :class:`flask_ailimit.Usage`, in tokens; with the source ``reserved``, what was reserved
- ``source``: ``recorded`` (by the view), ``reported`` (by the answer), ``counted`` (from the text) or ``reserved``
  (the usage is unknown, and what was reserved stays charged)
- ``units``: what was recorded in units of the app's own, such as ``{"pages": 3}``; limited or not
- ``charged``: units by name, such as ``{"requests": 1, "tokens": 300}``; without cached input, if that is free
- ``cost``: what the tokens cost, a :class:`flask_ailimit.money.Cost` in nano-units of its currency, with the price,
  where it is from, and its rates. Under a limit on money it is what was charged, with the source ``reserved`` if the
  usage or the price is unknown. None if there is no such limit and nobody knows a price
- ``subject``: the hash of the subject whose tokens are charged, in hexadecimal; see
  :meth:`flask_ailimit.AILimiter.subject`. If the request is limited by plan, that of its first payer
- ``endpoint``: Flask's name of the view, or None
- ``status``: the HTTP status of the answer; None if there was none
- ``ending``: ``complete``, ``not_started`` (the stream was not read), ``failed``, ``abandoned`` (the client left, or
  the worker was stopped) or ``handed_over``
- ``request_id``: our own id, see :attr:`flask_ailimit.AILimiter.request_id`
- ``number``: 1 for the first settlement of the request, 2 for the second. ``request_id`` and ``number`` together are
  unique
- ``client_request_id``: the client's X-Request-Id, if it is fit for a header; else None
- ``decision``: the :class:`flask_ailimit.Decision` that allowed the request; None for work that was handed over
- ``plan``, ``label``: the plan of the first payer, and the name that the app gave this payer; None if the request is
  not limited by plan. Work that was handed over has no label
- ``model``: the pattern of the plan that the request's model matches, never the client's text; None without one
"""

soft_limit_passed = _signals.signal("soft-limit-passed")
"""A payer has passed the ``soft_percent`` of a limit. Sent once a window, by the settlement of one request of one
worker; after :data:`usage_settled`, and before the answer leaves. A worker that dies at that moment takes it along.
Sent with

- ``unit``, ``limit``, ``burst``, ``period``: what is counted, how much of it in how many seconds, and how much at once
- ``name``: the limit's name, as in headers
- ``soft_percent``: the part that is passed
- ``used``, ``remaining``: how the count stands; ``used`` is at most ``burst``
- ``reset_after``: seconds until the count is as if never used
- ``subject``: the hash of whose limit it is, in hexadecimal; see :meth:`flask_ailimit.AILimiter.subject`
- ``role``, ``plan``, ``label``: of the payer whose limit it is; None if it is none of a payer. Work that was handed
  over has only ``plan``, and only that of its first payer
- ``endpoint``, ``request_id``: of the request that was settled, as in :data:`usage_settled`

While the store is away and this machine decides, all numbers are those of its share of the limit.
"""

upstream_refused = _signals.signal("upstream-refused")
"""A request got no answer of an upstream, and the client is told so. Sent with ``upstream``, its name, ``status`` and
``code`` of our answer, ``limited_by`` (``app``, ``provider`` or None) and ``retry_after`` (seconds, or None), and with
what :data:`request_refused` has."""

store_changed = _signals.signal("store-changed")
"""The store went away or is back. Sent outside of any request, with ``available``, which is True if the store is back.
In between, each limit follows its ``on_store_error``."""


def tell(signal: NamedSignal, app: Flask, **facts: Any) -> None:
    """Send a signal. If a receiver raises, that is logged, and nothing changes for the request.

    The log has the error's type and the places in the code, but not its message, which may hold a prompt.
    """
    if not signal.receivers or signal.is_muted:
        return
    with _context_of(app):
        for receiver in signal.receivers_for(app):
            try:
                app.ensure_sync(receiver)(app, **facts)
            except Exception as error:  # noqa: BLE001  any: it is the app's function
                _log.error("A receiver of %s raised %s at %s", signal.name, type(error).__name__, code_places(error))


@contextmanager
def _context_of(app: Flask) -> Iterator[None]:
    """The app's context: the current one, or a new one if a stream ends after its request."""
    if flask.has_app_context() and current_app() is app:
        yield
    else:
        with app.app_context():
            yield
