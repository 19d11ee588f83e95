"""The rest of a body that nobody has read, thrown away once the request is answered.

Who sends a request reads the answer after the last byte of the body. A server that closes the connection before, with
bytes unread, resets it, and the client never sees why it was refused.
"""

from functools import partial

from flask import Request, Response, after_this_request
from werkzeug.wsgi import get_input_stream

_PIECE = 1 << 16


def drain_when_answered(request: Request, most: int) -> None:
    """Read the current request's body when the server closes the answer: at most so many bytes."""
    environ = request.environ
    if environ.get("CONTENT_LENGTH", "0") != "0" or "HTTP_TRANSFER_ENCODING" in environ:
        after_this_request(partial(_drain_on_close, request, most))


def _drain_on_close(request: Request, most: int, response: Response) -> Response:
    response.call_on_close(partial(drain, request, most))
    return response


def drain(request: Request, most: int) -> None:
    """Read what is left of a request's body, at most so many bytes."""
    try:
        # The app may have a smaller maximum, for what it would keep.
        stream = request.__dict__.get("stream") or get_input_stream(request.environ)
        while most > 0 and (piece := stream.read(min(most, _PIECE))):
            most -= len(piece)
    except Exception:  # noqa: BLE001, S110  each server has errors of its own for a client that is gone
        pass
