"""Reads the rest of a request's body after the answer, and drops it.

A client reads the answer after it has sent its whole body. If the server closed the connection with bytes unread, the
connection would be reset, and the client would not see why it was refused.
"""

from functools import partial

from flask import Request, Response, after_this_request
from werkzeug.wsgi import get_input_stream

_PIECE = 1 << 16


def drain_when_answered(request: Request, most: int) -> None:
    """Read the rest of the current request's body when the server closes the answer: at most ``most`` bytes."""
    environ = request.environ
    if environ.get("CONTENT_LENGTH", "0") != "0" or "HTTP_TRANSFER_ENCODING" in environ:
        after_this_request(partial(_drain_on_close, request, most))


def _drain_on_close(request: Request, most: int, response: Response) -> Response:
    response.call_on_close(partial(drain, request, most))
    return response


def drain(request: Request, most: int) -> None:
    """Read the rest of a request's body, at most ``most`` bytes."""
    try:
        # request.stream would stop at the app's maximum, which is for bodies that it keeps and may be smaller.
        stream = request.__dict__.get("stream") or get_input_stream(request.environ)
        while most > 0 and (piece := stream.read(min(most, _PIECE))):
            most -= len(piece)
    except Exception:  # noqa: BLE001, S110  each server has errors of its own for a client that is gone
        pass
