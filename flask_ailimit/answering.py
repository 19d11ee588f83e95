"""What an answer gets on its way out: limit headers, a refusal's waits, and the settlement of what it used."""

from typing import TYPE_CHECKING

from flask import Request, Response

from .errors import Told, reached_flask
from .headers import DIALECTS, exposed_names, limit_headers
from .ranges import was_made
from .refusing import REFUSAL
from .responses import id_headers
from .settling import meter_stream, settle_plain
from .streaming import Ending
from .tab import Tab
from .watch import end_with_client, left

if TYPE_CHECKING:
    from .errors import QuotaExceeded
    from .extension import AILimiter

_WITHOUT_BODY = (204, 304)
_IDS = {name for name, _ in id_headers("")}
_OURS = {name.lower() for name in (*exposed_names(DIALECTS).split(", "), "Cache-Control")}


def finish(limiter: "AILimiter", tab: Tab, request: Request, response: Response) -> Response:
    """Write the headers, and settle a complete answer now and a stream when it ends."""
    state, tab.status = tab.state, response.status_code
    dialects = state.settings.headers
    if limiter.writes_headers:  # Who asks for Flask-Limiter's own headers gets those in place of ours of that name.
        dialects = [name for name in dialects if name != "x-ratelimit"]
    refusal: QuotaExceeded | None = request.__dict__.get(REFUSAL)
    refused = refusal is not None and _answers(response, refusal)
    if refusal is not None and refused and refusal is tab.refusal:
        tab.settle_refused()
        headers = limit_headers(refusal.decision, dialects)
        _write(response, [*headers, *refusal.told])
        return response
    turned_away = None if tab.turned_away is refusal else tab.turned_away
    if turned_away is not None and _answers(response, turned_away):
        _write(response, turned_away.told)
    if tab.decision is None:
        return response
    headers = id_headers(tab.request_id)
    if not refused:  # By another limiter, whose limits are not to be contradicted.
        headers += limit_headers(tab.decision, dialects)
    is_encoded = "content-encoding" in _write(response, headers)
    # A direct answer without a body is a file that another server sends (X-Sendfile).
    if response.is_streamed or (response.direct_passthrough and response.response):
        made = was_made(response)
        stream = meter_stream(tab, response, state.counter, gone=left(request))
        if request.method == "HEAD" or response.status_code in _WITHOUT_BODY:
            if made:
                stream.drain()  # The work is done, whatever of it leaves.
            stream.end(Ending.NOT_STARTED)  # When the server closes it, the client has been answered already.
        end_with_client(stream, request, state.settings)
    else:
        settle_plain(tab, response, state.counter, gone=left(request), is_encoded=is_encoded)
    return response


def _answers(response: Response, error: Told) -> bool:
    """Whether the response tells the client of the error, in whatever words: a view may catch it and go on."""
    return response.status_code == error.code or reached_flask(error)


def _write(response: Response, headers: list[tuple[str, str]]) -> set[str]:
    """Set the headers, all at once: Werkzeug would look through those that are there for each one.

    An id that the app or a provider has given the answer stays. Answers the names that were there, in small letters.
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
