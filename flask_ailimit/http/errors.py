"""The errors that the extension raises inside a request. Flask sends each as an answer."""

import json
from typing import Any

from flask import Response
from flask_limiter import RateLimitExceeded
from werkzeug.exceptions import (
    BadGateway,
    BadRequest,
    Forbidden,
    HTTPException,
    NotFound,
    RequestEntityTooLarge,
    ServiceUnavailable,
    TooManyRequests,
)

from flask_ailimit.engine import Decision
from flask_ailimit.tokens import Estimate

from .responses import (
    content_type,
    never_taken_body,
    never_taken_headers,
    refusal_body,
    refusal_headers,
    refusal_message,
    refusal_status,
    unavailable_body,
    unavailable_headers,
    upstream_body,
    upstream_headers,
)


class OwnAnswer(HTTPException):
    """An error that is sent as our own answer. Its headers are also set on the response of an error handler.

    Attributes:
        request_id: The id that the answer carries.
        error_format: The shape of its body.
        charges_nothing: Whether a request that is answered so is given back all that was reserved for it.
    """

    request_id: str
    error_format: str
    charges_nothing = False

    @property
    def own_headers(self) -> list[tuple[str, str]]:
        """Its headers without the content type."""
        raise NotImplementedError

    @property
    def data(self) -> dict[str, Any]:
        """Its JSON body. Flask-RESTful and Flask-RESTX read it under this name."""
        raise NotImplementedError

    def get_headers(self, environ: Any = None, scope: Any = None) -> list[tuple[str, str]]:  # noqa: ARG002
        """Return the content type and the other headers."""
        return [("Content-Type", content_type(self.error_format)), *self.own_headers]

    def get_body(self, environ: Any = None, scope: Any = None) -> str:  # noqa: ARG002
        """Return the JSON body."""
        return json.dumps(self.data)


def reached_flask(error: HTTPException) -> bool:
    """Whether no code in the view caught the error, so that it reached the place where Flask looks for a handler."""
    trace = error.__traceback__
    return trace is not None and trace.tb_frame.f_code.co_name == "full_dispatch_request"


class QuotaExceeded(OwnAnswer, RateLimitExceeded):
    """A refusal. ``errorhandler(QuotaExceeded)`` catches every refusal.

    ``errorhandler(429)`` and ``errorhandler(RateLimitExceeded)`` catch one with status 429, like Flask-Limiter's, and
    ``errorhandler(413)`` one with 413. There is a subclass for each status, because Flask reads the class's ``code``.

    Attributes:
        decision: The whole decision, with a verdict for each limit.
        limit: The limit that Flask-Limiter would have named.
        request_id: The id that the answer carries.
        tries: How often the client says it was refused before; None if it doesn't say so.
        estimate: The estimate of the request; None if it was not needed.
    """

    code: Any = None  # Flask keeps handlers by their class's code. Those of this class are for every code.

    def __init__(
        self,
        limit: Any,
        decision: Decision,
        *,
        request_id: str,
        error_format: str,
        tries: int | None = None,
        response: Response | None = None,
        estimate: Estimate | None = None,
    ) -> None:
        super().__init__(limit, response)
        if not limit.error_message and not all(verdict.quota.in_headers for verdict in decision.refused):
            self.description = refusal_message(decision)  # Flask-Limiter's names the limit, and handlers may send it.
        self.estimate = estimate
        self.decision = decision
        self.request_id = request_id
        self.tries = tries
        self.error_format = error_format

    @property
    def own_headers(self) -> list[tuple[str, str]]:
        """Wait and request id."""
        return refusal_headers(self.decision, self.request_id, self.tries)

    @property
    def data(self) -> dict[str, Any]:
        """The JSON body. A limit's own ``error_message`` replaces our sentence."""
        unnamed = 0 if self.estimate is None or self.estimate.names_maximum else self.estimate.usage.output_tokens
        body: dict[str, Any] = refusal_body(
            self.decision, self.code or 429, self.request_id, self.error_format, unnamed_output=unnamed
        )
        error = body.get("error", {})
        if self.limit.error_message:
            for place, name in ((body, "detail"), (error, "message")):
                if name in place:
                    place[name] = self.description
        return body


class _TooOften(QuotaExceeded):
    code = 429


class _TooLarge(QuotaExceeded, RequestEntityTooLarge):
    code = 413


class _TooLargeForAny(QuotaExceeded, BadRequest):
    code = 400


_BY_STATUS: dict[int, type[QuotaExceeded]] = {each.code: each for each in (_TooOften, _TooLarge, _TooLargeForAny)}


def quota_exceeded(limit: Any, decision: Decision, *, too_large_status: int, **arguments: Any) -> QuotaExceeded:
    """Make a refusal of the subclass for its status. ``arguments`` are the others of :class:`QuotaExceeded`."""
    return _BY_STATUS[refusal_status(decision, too_large_status)](limit, decision, **arguments)


class PastFlaskLimiter(BaseException):
    """Carries an error past Flask-Limiter, which takes every ``Exception`` for a failing store.

    Flask-Limiter would let the request pass (``swallow_errors``) or use its fallback (``in_memory_fallback_enabled``).

    Attributes:
        answer: The error that is sent to the client; None: a 503, because a limit is unknown.
    """

    def __init__(self, answer: HTTPException | None = None) -> None:
        super().__init__(answer)
        self.answer = answer


class LimiterUnavailable(OwnAnswer, ServiceUnavailable):
    """503: the limits can't be checked now, and the client may try again soon.

    The store is away and ``on_store_error`` is ``deny``, or a key function failed, or a callable returned no limit.
    """

    def __init__(self, *, request_id: str, error_format: str) -> None:
        super().__init__("Limits can't be checked right now.")
        self.request_id = request_id
        self.error_format = error_format

    @property
    def own_headers(self) -> list[tuple[str, str]]:
        """Wait and request id."""
        return unavailable_headers(self.request_id)

    @property
    def data(self) -> dict[str, Any]:
        """The JSON body."""
        return unavailable_body(self.request_id, self.error_format)


class NotRetryable(OwnAnswer):
    """The request can't be taken as it is, and waiting doesn't help: ``x-should-retry: false``.

    Attributes:
        request_id: The id that the answer carries.
        error_format: The shape of its body.
        problem_code: Our code for the problem.
    """

    def __init__(self, problem_code: str, detail: str, *, request_id: str, error_format: str) -> None:
        super().__init__(detail)
        self.problem_code = problem_code
        self.request_id = request_id
        self.error_format = error_format

    @property
    def own_headers(self) -> list[tuple[str, str]]:
        """``x-should-retry: false`` and the request id."""
        return never_taken_headers(self.request_id)

    @property
    def data(self) -> dict[str, Any]:
        """The JSON body. It repeats nothing of the request."""
        status, detail = self.code or BadRequest.code, self.description or ""
        return never_taken_body(status, self.problem_code, detail, self.request_id, self.error_format)


class UnreadableBody(NotRetryable, BadRequest):
    """400: the body was sent as JSON but holds none, or different readers would find different models in the request.

    The codes are ``invalid_body`` and ``ambiguous_model``.
    """


class BodyTooLarge(NotRetryable, RequestEntityTooLarge):
    """413: the body has more bytes than the app takes: as announced, as sent, or decoded."""

    def __init__(self, most: int, *, request_id: str, error_format: str) -> None:
        detail = f"The body is too large: at most {most} bytes are taken. Send less at once."
        super().__init__("body_too_large", detail, request_id=request_id, error_format=error_format)


class AmbiguousKey(NotRetryable, BadRequest):
    """400: the request has several keys, and the app may authenticate by another key than the counted one."""

    def __init__(self, request_id: str, error_format: str = "hybrid") -> None:
        detail = "The request carries several different API keys. Send one."
        super().__init__("ambiguous_api_key", detail, request_id=request_id, error_format=error_format)


class UnreadableQuery(NotRetryable, BadRequest):
    """400: the query of a usage page can't be answered.

    Args:
        words: What to write, without anything of the query.
        request_id: The id that the answer carries.
        error_format: The shape of its body.
    """

    def __init__(self, words: str, /, *, request_id: str, error_format: str) -> None:
        super().__init__("invalid_query", words, request_id=request_id, error_format=error_format)


class NoSettlements(NotRetryable, NotFound):
    """404: a usage page is asked for, and the app keeps no settlements."""

    def __init__(self, *, request_id: str, error_format: str) -> None:
        detail = (
            "This service keeps no settlements, so it has no usage pages. They need its setting AILIMIT_SETTLEMENTS."
        )
        super().__init__("no_settlements", detail, request_id=request_id, error_format=error_format)


class ModelNotAllowed(NotRetryable, Forbidden):
    """403: the plan of one of the request's payers doesn't have the model that the request names, or needs its name.

    Args:
        names_model: Whether the request names a model.
        request_id: The id that the answer carries.
        error_format: The shape of its body.
    """

    def __init__(self, *, names_model: bool = True, request_id: str, error_format: str) -> None:
        detail = (
            "The plan does not have the model of this request. Waiting does not help: ask for another model."
            if names_model
            else "The request names no model, and the plan has only some. Waiting does not help: name a model."
        )
        super().__init__("model_not_allowed", detail, request_id=request_id, error_format=error_format)


class ModelNotPriced(NotRetryable, Forbidden):
    """403: a limit is on money, and nobody knows what the request's model costs.

    Args:
        names_model: Whether the request names a model.
        is_told: Whether clients are told of the limit. If not, the answer says nothing of prices or money.
        request_id: The id that the answer carries.
        error_format: The shape of its body.
    """

    def __init__(self, *, names_model: bool = True, is_told: bool = True, request_id: str, error_format: str) -> None:
        code = "model_not_priced" if is_told else "model_not_allowed"
        why = ", and the plan is limited in money" if is_told else ""
        if not names_model:
            detail = f"The request names no model{why}. Waiting does not help: name a model."
        elif is_told:
            detail = (
                f"The model of this request has no price, or the request names several models{why}. Waiting does not "
                "help: ask for one model that has a price."
            )
        else:
            detail = (
                "The model of this request is none that the service takes. Waiting does not help: ask for another "
                "model."
            )
        super().__init__(code, detail, request_id=request_id, error_format=error_format)


class Suspended(NotRetryable, Forbidden):
    """403: an operator has suspended one of the request's payers. The answer has the operator's words.

    Args:
        words: They.
        request_id: The id that the answer carries.
        error_format: The shape of its body.
    """

    def __init__(self, words: str, /, *, request_id: str, error_format: str) -> None:
        super().__init__("suspended", words, request_id=request_id, error_format=error_format)


class NotAllowed(NotRetryable, Forbidden):
    """403: a limit is 0, so the client may not send such requests at all.

    Args:
        why: What is said of the limit; empty if clients are not told of it.
        request_id: The id that the answer carries.
        error_format: The shape of its body.
    """

    def __init__(self, why: str = ": a limit of it is 0", /, *, request_id: str, error_format: str) -> None:
        detail = f"This request is not allowed{why}. Waiting does not help."
        super().__init__("not_allowed", detail, request_id=request_id, error_format=error_format)


class UpstreamRefused(OwnAnswer):
    """A request that got no answer of an upstream of the app. ``errorhandler(UpstreamRefused)`` catches each.

    ``errorhandler(429)`` catches one with status 429, and so on: there is a subclass for each status.

    Attributes:
        upstream: The upstream's name.
        problem_code: Our code: ``upstream_busy`` (the app's own limit on its calls), ``upstream_limited`` (the
            provider's), ``upstream_unavailable``, ``upstream_failed``, ``upstream_rejected`` or ``upstream_too_large``.
        limited_by: Whose limit it is, ``app`` or ``provider``; None if it is no limit.
        wait: Seconds after which to come back; None if that doesn't help.
        charges_nothing: Whether the client is charged nothing. It is charged as for any error if the request itself is
            wrong.
        request_id: The id that the answer carries.
    """

    code: Any = None  # Flask keeps handlers by their class's code. Those of this class are for every code.

    def __init__(
        self,
        upstream: str,
        problem_code: str,
        *,
        limited_by: str | None,
        wait: float | None,
        charges_nothing: bool,
        request_id: str,
        error_format: str,
    ) -> None:
        super().__init__()
        self.upstream = upstream
        self.problem_code = problem_code
        self.limited_by = limited_by
        self.wait = wait
        self.charges_nothing = charges_nothing
        self.request_id = request_id
        self.error_format = error_format
        self.description = f"The upstream {upstream} gave no answer: {problem_code}."

    @property
    def own_headers(self) -> list[tuple[str, str]]:
        """Wait, request id, the upstream's name, and whose limit it is."""
        return upstream_headers(self.request_id, self.upstream, self.limited_by, self.wait)

    @property
    def data(self) -> dict[str, Any]:
        """The JSON body. It repeats nothing of the provider's answer."""
        return upstream_body(self.code, self.problem_code, self.wait, self.request_id, self.error_format)


class _UpstreamBusy(UpstreamRefused, TooManyRequests):
    code = 429


class _UpstreamAway(UpstreamRefused, ServiceUnavailable):
    code = 503


class _UpstreamFailed(UpstreamRefused, BadGateway):
    code = 502


class _TooLargeForUpstream(UpstreamRefused, RequestEntityTooLarge):
    code = 413


class _WrongForUpstream(UpstreamRefused, BadRequest):
    code = 400


_UPSTREAM_BY_STATUS: dict[int, type[UpstreamRefused]] = {
    each.code: each for each in (_UpstreamBusy, _UpstreamAway, _UpstreamFailed, _TooLargeForUpstream, _WrongForUpstream)
}


def upstream_refused(status: int, upstream: str, problem_code: str, **arguments: Any) -> UpstreamRefused:
    """Make an error of the subclass for its status. ``arguments`` are the others of :class:`UpstreamRefused`."""
    return _UPSTREAM_BY_STATUS[status](upstream, problem_code, **arguments)
