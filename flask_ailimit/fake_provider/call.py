"""What came, and what became of it."""

import json
from typing import Any

from .fault import Fault
from .http_text import Request

CREDENTIALS = ("authorization", "x-api-key", "api-key")
HIDDEN = "(hidden)"


class Call:
    """A call that came. It is filled in while the call goes on.

    Attributes:
        number: 1 for the provider's first call.
        fault: What befell it.
        at_us: When it came, by the provider's clock: microseconds since the epoch.
        method: ``POST``; empty if the request was never read.
        path: With its query.
        headers: By their names in lower case; the values of credentials are hidden.
        body: The request's body, decoded from JSON; None if it had none or was no JSON.
        status: Of the answer; 0 while and if there is none.
        delivered: Whether the whole answer was sent while the client was there; None while the call goes on. An answer
            that was cut to order is not whole.
    """

    def __init__(self, number: int, fault: Fault, at_us: int) -> None:
        self.number = number
        self.fault = fault
        self.at_us = at_us
        self.method = self.path = ""
        self.headers: dict[str, str] = {}
        self.body: Any = None
        self.status = 0
        self.delivered: bool | None = None

    def __repr__(self) -> str:
        """Without the body: it may be long, and stand in a log."""
        return f"<Call {self.number}: {self.method or 'unread'} {self.path} {self.status} delivered={self.delivered}>"


def note_request(call: Call, request: Request) -> None:
    """Note what was read."""
    call.method, call.path = request.method, request.path
    call.headers = {name: HIDDEN if name in CREDENTIALS else value for name, value in request.headers.items()}
    try:
        call.body = json.loads(request.body) if request.body else None
    except (ValueError, RecursionError):
        call.body = None
