"""What an answer gets on its way out: limit headers, a refusal's waits, and the settlement of what it used."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flask import Response

from .headers import DIALECTS, exposed_names, limit_headers
from .refusing import REFUSAL
from .responses import refusal_headers
from .settling import meter, settle_plain
from .streaming import Ending
from .tab import Tab
from .watch import socket_of, watch

if TYPE_CHECKING:
    from .errors import QuotaExceeded
    from .extension import AILimiter

_WITHOUT_BODY = (204, 304)
_OURS = {name.lower() for name in (*exposed_names(DIALECTS).split(", "), "Cache-Control")}


def finish(limiter: "AILimiter", tab: Tab, environ: Mapping[str, Any], response: Response) -> Response:
    """Write the headers, and settle a complete answer now and a stream when it ends."""
    state = tab.state
    dialects = state.settings.headers
    if limiter.writes_headers:  # Who asks for Flask-Limiter's own headers gets those in place of ours of that name.
        dialects = [name for name in dialects if name != "x-ratelimit"]
    refusal: QuotaExceeded | None = environ.get(REFUSAL)
    refused = refusal is not None and response.status_code == refusal.code
    if refusal is not None and refused and refusal is tab.refusal:
        tab.settle_refused()
        headers = limit_headers(refusal.decision, dialects)
        _write(response, [*headers, *refusal_headers(refusal.decision, refusal.request_id, refusal.tries)])
        return response
    if tab.decision is None:
        return response
    if not refused:  # By another limiter, whose headers are not to be contradicted.
        _write(response, limit_headers(tab.decision, dialects))
    if response.is_streamed and not response.direct_passthrough:
        stream = meter(tab, response, state.counter)
        if environ["REQUEST_METHOD"].upper() == "HEAD" or response.status_code in _WITHOUT_BODY:
            stream.end(Ending.NOT_STARTED)  # When the server closes it, the client has been answered already.
        client = socket_of(environ)
        if client is not None:
            watch(stream, client, state.settings.write_timeout)
    else:
        settle_plain(tab, response, state.counter)
    return response


def _write(response: Response, headers: list[tuple[str, str]]) -> None:
    """Set the headers, all at once: Werkzeug would look through those that are there for each one."""
    written = response.headers
    if not _OURS.isdisjoint([name.lower() for name, _ in written]):
        names = {name.lower() for name, _ in headers}
        written[:] = [(name, value) for name, value in written if name.lower() not in names]
    written[len(written) :] = headers
