"""One JSON shape for every error, which the OpenAI and the Anthropic SDK both understand."""

from collections.abc import Mapping
from types import MappingProxyType

from flask import Flask, Response, current_app, jsonify, request
from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    InternalServerError,
    MethodNotAllowed,
    NotFound,
    RequestEntityTooLarge,
)

from flask_ailimit import AILimiter

from . import doors
from .model import ContextTooLongError, ModelError, ModelMissingError

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    415: "invalid_request_error",
    500: "api_error",
    502: "api_error",
    503: "api_error",
}
"""``error.type`` by status: Anthropic's names, which its SDK turns into exceptions. OpenAI's goes by the status."""


_LIMITER = "demo_limiter"


class ApiError(Exception):
    """A request that can't be answered, and what its sender can do.

    Attributes:
        status: HTTP status, one of ``TYPES``.
        code: What went wrong, for programs.
        message: What went wrong and what to do. Never holds what the client sent.
        param: Where in the body, such as ``messages[2].content``; None if nowhere.
        headers: More response headers.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.headers = headers

    def body(self) -> dict[str, object]:
        """The error as JSON."""
        error = {"type": TYPES[self.status], "code": self.code, "param": self.param, "message": self.message}
        return {"type": "error", "error": error, "request_id": request_id()}

    def response(self) -> Response:
        """The error as an answer."""
        response = jsonify(self.body())
        response.status_code = self.status
        response.headers.update(self.headers)
        response.headers["Cache-Control"] = "no-store"
        return response


def request_id() -> str:
    """The name of this request, which its refusal and the meter's log give it too."""
    limiter: AILimiter = current_app.extensions[_LIMITER]
    return limiter.request_id


def from_model(error: ModelError) -> ApiError:
    """What a client hears when the model gives no answer."""
    if isinstance(error, ContextTooLongError):
        return ApiError(400, "context_length_exceeded", str(error), param="messages")
    current_app.logger.error("%s", error)
    if isinstance(error, ModelMissingError):
        return ApiError(503, "model_missing", f"This server has no model. {error}")
    return ApiError(502, "model_failed", "The model failed. Try again.")


def register(app: Flask, limiter: AILimiter) -> None:
    """Answer errors in JSON, and give every answer its request id."""
    app.extensions[_LIMITER] = limiter
    app.register_error_handler(ApiError, ApiError.response)
    app.register_error_handler(ModelError, lambda error: from_model(error).response())
    for http_error in (BadRequest, NotFound, MethodNotAllowed, RequestEntityTooLarge, InternalServerError):
        app.register_error_handler(http_error, _from_http)
    app.after_request(_name_request)


def _from_http(error: HTTPException) -> Response | HTTPException:
    if "json" in dict(error.get_headers())["Content-Type"]:  # The limiter's own.
        return error
    if isinstance(error, NotFound):
        return ApiError(404, "not_found", f"There is no such path. There are: {doors.paths()}.").response()
    if isinstance(error, MethodNotAllowed):
        allowed = ", ".join(sorted(error.valid_methods or ()))
        headers = {"Allow": allowed}
        return ApiError(405, "method_not_allowed", f"Use one of: {allowed}.", headers=headers).response()
    if isinstance(error, RequestEntityTooLarge):
        return too_large(f"A body has at most {request.max_content_length} bytes.").response()
    if isinstance(error, InternalServerError):
        return ApiError(500, "internal_error", "The server made a mistake. It is in the server's log.").response()
    return ApiError(400, "bad_request", "The request can't be understood.").response()


def too_large(message: str, *, param: str | None = None) -> ApiError:
    """A request with too many bytes, which no waiting makes smaller."""
    return ApiError(413, "request_too_large", message, param=param, headers={"x-should-retry": "false"})


def _name_request(response: Response) -> Response:
    # Answers of limited routes have it already.
    for name in ("x-request-id", "request-id"):
        response.headers.setdefault(name, request_id())
    return response
