"""What an answer gets on its way out: limit headers, a refusal's waits, and the settlement of what it used."""

from typing import TYPE_CHECKING

import flask
from flask import Response

from .evaluation import REFUSAL
from .headers import limit_headers
from .responses import refusal_headers
from .settling import meter, settle_plain
from .streaming import Ending
from .watch import socket_of, watch

if TYPE_CHECKING:
    from .errors import QuotaExceeded
    from .extension import AILimiter

_WITHOUT_BODY = (204, 304)


def finish(limiter: "AILimiter", response: Response) -> Response:
    """Write the headers, and settle a complete answer now and a stream when it ends."""
    tab, state = limiter.tab, limiter.state
    # Who asks for Flask-Limiter's own headers gets those in place of ours of that name.
    dialects = [name for name in state.settings.headers if name != "x-ratelimit" or not limiter.writes_headers]
    refusal: QuotaExceeded | None = flask.request.environ.get(REFUSAL)
    refused = refusal is not None and response.status_code == refusal.code
    if refusal is not None and refused and refusal is tab.refusal:
        tab.settle_refused()
        headers = limit_headers(refusal.decision, dialects)
        response.headers.update([*headers, *refusal_headers(refusal.decision, refusal.request_id, refusal.tries)])
        return response
    if tab.decision is None:
        return response
    if not refused:  # By another limiter, whose headers are not to be contradicted.
        response.headers.update(limit_headers(tab.decision, dialects))
    if response.is_streamed and not response.direct_passthrough:
        stream = meter(tab, response, state.counter)
        if flask.request.method == "HEAD" or response.status_code in _WITHOUT_BODY:
            stream.end(Ending.NOT_STARTED)  # When the server closes it, the client has been answered already.
        client = socket_of(flask.request.environ)
        if client is not None:
            watch(stream, client, state.settings.write_timeout)
    else:
        settle_plain(tab, response, state.counter)
    return response
