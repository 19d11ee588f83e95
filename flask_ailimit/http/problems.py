"""The shapes of an error body: one problem, in the fields that a client's SDK reads."""

from collections.abc import Callable
from dataclasses import dataclass

_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "api_error",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong, before it is put into a shape.

    Attributes:
        uri: The problem type, registered by the rate limit draft.
        title: The title of the type, which is the same for all its problems.
        status: The HTTP status of the answer.
        detail: What happened and what to do, for a person.
        code: Our code for the problem, for a program.
        openai_type: OpenAI's ``error.type``: the unit that ran out.
        openai_code: OpenAI's ``error.code``.
        request_id: The id in the headers.
        limit: The numbers of the binding limit.
        policies: Names of the refused policies, as in the RateLimit header.
    """

    uri: str
    title: str
    status: int
    detail: str
    code: str
    openai_type: str
    openai_code: str
    request_id: str
    limit: dict[str, object] | None = None
    policies: tuple[str, ...] = ()

    @property
    def members(self) -> dict[str, object]:
        """The members of RFC 9457, and ``violated-policies`` of the rate limit draft."""
        policies = {"violated-policies": list(self.policies)} if self.policies else {}
        return {"type": self.uri, "title": self.title, "status": self.status, "detail": self.detail} | policies

    @property
    def anthropic_type(self) -> str:
        """Anthropic's ``error.type`` for the status."""
        return _ANTHROPIC_TYPES.get(self.status, "api_error")


def _hybrid(problem: Problem) -> dict[str, object]:
    # Both SDKs read only "error", so the top level, with its "type", can follow RFC 9457.
    error = {
        "type": problem.anthropic_type,
        "code": problem.code,
        "param": None,
        "message": problem.detail,
        "limit": problem.limit,
    }
    return problem.members | {"error": error, "request_id": problem.request_id}


def _problem(problem: Problem) -> dict[str, object]:
    return problem.members | {"code": problem.code, "limit": problem.limit, "request_id": problem.request_id}


def _openai(problem: Problem) -> dict[str, object]:
    error = {
        "message": problem.detail,
        "type": problem.openai_type,
        "param": None,
        "code": problem.openai_code,
        "limit": problem.limit,
    }
    return {"error": error}


def _anthropic(problem: Problem) -> dict[str, object]:
    error: dict[str, object] = {"type": problem.anthropic_type, "message": problem.detail, "limit": problem.limit}
    if problem.code == "insufficient_quota":
        error["details"] = {"error_code": "enforced_spend_limit_reached"}  # Its SDK has an error class of its own.
    return {"type": "error", "error": error, "request_id": problem.request_id}


ERROR_FORMATS: dict[str, Callable[[Problem], dict[str, object]]] = {
    "hybrid": _hybrid,
    "problem": _problem,
    "openai": _openai,
    "anthropic": _anthropic,
}
"""The shapes by name."""


def content_type(error_format: str) -> str:
    """``application/problem+json`` for ``problem``, else ``application/json``.

    The hybrid body is a problem document, too. But some clients read an error only if its type contains
    ``application/json`` (openai-php does not read the body of a 413 without it), and the SDKs read either type.
    """
    return "application/problem+json" if error_format == "problem" else "application/json"
