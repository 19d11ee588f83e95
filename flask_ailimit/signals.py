"""Signals, for meters and bills: what was refused and what was used. See Flask's signals for how to connect.

Receivers get the app as sender. They run inside the request, or for a stream at its end: be quick, and raise nothing.
"""

from blinker import Namespace

_signals = Namespace()

request_refused = _signals.signal("request-refused")
"""A limit refused. Sent with ``decision`` (a :class:`flask_ailimit.Decision`) and ``request_id``."""

usage_settled = _signals.signal("usage-settled")
"""A request was charged what it used. Sent once for each request that was let in, with ``usage`` (a
:class:`flask_ailimit.Usage`), ``exact`` (false if more may have been used than is known), ``decision`` and
``request_id``."""

store_changed = _signals.signal("store-changed")
"""The store went away or is back. Sent with ``available``, outside of any request: true when it is back. Limits follow
their ``on_store_error`` in between."""
