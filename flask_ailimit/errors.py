"""What the extension raises inside a request; each is an answer that Flask knows how to send."""

import json
from typing import Any

from flask import Response
from flask_limiter import RateLimitExceeded
from werkzeug.exceptions import HTTPException, ServiceUnavailable

from .engine import Decision
from .responses import (
    content_type,
    refusal_body,
    refusal_headers,
    refusal_status,
    unavailable_body,
    unavailable_headers,
)


class QuotaExceeded(RateLimitExceeded):
    """A refusal. ``errorhandler(429)`` and ``errorhandler(RateLimitExceeded)`` catch it as they do Flask-Limiter's.

    Attributes:
        decision: The whole decision, with a verdict for each limit.
        limit: The limit that Flask-Limiter would have named.
        request_id: The id that the answer carries.
        tries: How often the client says it was refused before; None if it doesn't.
    """

    def __init__(
        self,
        limit: Any,
        decision: Decision,
        *,
        request_id: str,
        error_format: str,
        too_large_status: int,
        tries: int | None = None,
        response: Response | None = None,
    ) -> None:
        super().__init__(limit, response)
        self.decision = decision
        self.request_id = request_id
        self.tries = tries
        self.code = refusal_status(decision, too_large_status)
        self.error_format = error_format

    def get_headers(self, environ: Any = None, scope: Any = None) -> list[tuple[str, str]]:  # noqa: ARG002
        """Content type, wait and request id."""
        headers = refusal_headers(self.decision, self.request_id, self.tries)
        return [("Content-Type", content_type(self.error_format)), *headers]

    def get_body(self, environ: Any = None, scope: Any = None) -> str:  # noqa: ARG002
        """The JSON body; a limit's own ``error_message`` takes the place of our sentence."""
        body: dict[str, Any] = refusal_body(self.decision, self.code or 429, self.request_id, self.error_format)
        error = body.get("error", {})
        if "limit" in error:
            error["limit"]["text"] = str(self.limit.limit)
        if self.limit.error_message:
            for place, name in ((body, "detail"), (error, "message")):
                if name in place:
                    place[name] = self.description
        return json.dumps(body)


class Carried(BaseException):
    """An answer on its way past Flask-Limiter, which takes every ``Exception`` for a failing store.

    It would let the request pass (``swallow_errors``) or turn to its fallback (``in_memory_fallback_enabled``).
    """

    def __init__(self, answer: HTTPException) -> None:
        super().__init__(answer)
        self.answer = answer


class LimiterUnavailable(ServiceUnavailable):
    """Limits can't be checked: 503, to be tried again soon.

    The store is away and ``on_store_error`` is ``deny``, or a callable answered a limit that can't be read.
    """

    def __init__(self, *, request_id: str, error_format: str) -> None:
        super().__init__("Limits can't be checked right now.")
        self.request_id = request_id
        self.error_format = error_format

    def get_headers(self, environ: Any = None, scope: Any = None) -> list[tuple[str, str]]:  # noqa: ARG002
        """Content type, wait and request id."""
        return [("Content-Type", content_type(self.error_format)), *unavailable_headers(self.request_id)]

    def get_body(self, environ: Any = None, scope: Any = None) -> str:  # noqa: ARG002
        """The JSON body."""
        return json.dumps(unavailable_body(self.request_id, self.error_format))
