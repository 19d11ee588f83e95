"""Finishes the answer: writes the limit headers and a refusal's waits, and settles what the request used."""

from flask import Request, Response

from flask_ailimit.headers import DIALECTS, exposed_names, limit_headers
from flask_ailimit.http.errors import OwnAnswer, QuotaExceeded, reached_flask
from flask_ailimit.http.responses import id_headers

from .client_watch import end_with_client, is_client_gone
from .ledger import Ledger
from .ranges import was_made
from .refuse import REFUSAL
from .settle import meter_stream, settle_plain
from .streaming import Ending

_WITHOUT_BODY = (204, 304)
_IDS = {name for name, _ in id_headers("")}
_OURS = {name.lower() for name in (*exposed_names(DIALECTS).split(", "), "Cache-Control")}


def finish(ledger: Ledger, request: Request, response: Response) -> Response:
    """Write the headers, and settle a complete answer now and a stream when it ends."""
    state, ledger.status = ledger.app_state, response.status_code
    dialects = state.settings.headers
    if ledger.flask_limiter.writes_headers:  # Flask-Limiter's own x-ratelimit headers replace ours.
        dialects = [name for name in dialects if name != "x-ratelimit"]
    refusal: QuotaExceeded | None = request.__dict__.get(REFUSAL)
    refused = refusal is not None and _answers(response, refusal)
    if refusal is not None and refused and refusal is ledger.refusal:
        ledger.settle_after_refusal()
        headers = limit_headers(refusal.decision, dialects)
        _write(response, [*headers, *refusal.own_headers])
        return response
    turned_away = None if ledger.turned_away is refusal else ledger.turned_away
    if turned_away is not None and _answers(response, turned_away):
        _write(response, turned_away.own_headers)
        if turned_away.charges_nothing:
            ledger.settle_after_refusal()
    if ledger.decision is None:
        return response
    headers = id_headers(ledger.request_id) if ledger.is_limited else []
    if not refused:  # If another limiter refused, its limit headers stay.
        headers += limit_headers(ledger.decision, dialects)
    is_encoded = "content-encoding" in _write(response, headers)
    # A direct_passthrough response without a body is a file that another server sends (X-Sendfile).
    if response.is_streamed or (response.direct_passthrough and response.response):
        made = was_made(response)
        stream = meter_stream(ledger, response, state.counter, gone=is_client_gone(request))
        if request.method == "HEAD" or response.status_code in _WITHOUT_BODY:
            if made:
                stream.drain()  # The work is done, although no body is sent.
            stream.end(Ending.NOT_STARTED)  # The server would close it only after it has answered the client.
        end_with_client(stream, request, state.settings)
    else:
        settle_plain(ledger, response, state.counter, gone=is_client_gone(request), is_encoded=is_encoded)
    return response


def _answers(response: Response, error: OwnAnswer) -> bool:
    """Whether the response tells the client of the error. A view may catch the error and return something else."""
    return response.status_code == error.code or reached_flask(error)


def _write(response: Response, headers: list[tuple[str, str]]) -> set[str]:
    """Set all headers in one step, because Werkzeug would search the existing headers for each one.

    A request id that the app or a provider has set stays. Returns the names that were set before, in lower case.
    """
    written = response.headers
    there = {name.lower() for name, _ in written}
    if not _IDS.isdisjoint(there):
        headers = [(name, value) for name, value in headers if name not in _IDS or name not in there]
    if not _OURS.isdisjoint(there):
        names = {name.lower() for name, _ in headers}
        written[:] = [(name, value) for name, value in written if name.lower() not in names]
    written[len(written) :] = headers
    return there
