"""Errors as the APIs write them: OpenAI's, Azure's and Anthropic's."""

from typing import Any, NamedTuple

from flask_ailimit.headers.durations import go_duration, seconds_up

from .endpoints import Dialect
from .fault import Fault

THROTTLED, TOO_LARGE, STATUS = "throttled", "too_large", "error"


class ErrorText(NamedTuple):
    """An error before it is written down. In the message ``{model}`` and the other fields of Numbers are filled in."""

    status: int
    type: str
    code: str | None
    message: str


class Numbers(NamedTuple):
    """What an error tells of a limit."""

    model: str
    unit: str = "requests"
    limit: int = 1000
    used: int = 1000
    requested: int = 1
    wait_us: int = 1_000_000


_OPENAI = {
    "throttled": ErrorText(
        429,
        "{unit}",
        "rate_limit_exceeded",
        "Rate limit reached for {model} in organization org-fake on {unit} per min ({short}): Limit {limit}, "
        "Used {used}, Requested {requested}. Please try again in {wait}.",
    ),
    "spent": ErrorText(
        429,
        "insufficient_quota",
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    "too_large": ErrorText(
        429,
        "{unit}",
        "rate_limit_exceeded",
        "Request too large for {model} in organization org-fake on {unit} per min ({short}): Limit {limit}, "
        "Requested {requested}. The input or output tokens must be reduced in order to run successfully.",
    ),
    "not_in_plan": ErrorText(
        429, "invalid_request_error", "model_not_in_plan", "Your plan does not include the model {model}."
    ),
    "overloaded": ErrorText(
        503, "server_error", "overloaded", "The engine is currently overloaded, please try again later."
    ),
    "too_long": ErrorText(
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "This model's maximum context length is {limit} tokens. However, your messages resulted in more tokens. "
        "Please reduce the length of the messages.",
    ),
    "filtered": ErrorText(
        400, "invalid_request_error", "content_filter", "The prompt was refused by the content management policy."
    ),
}
_ANTHROPIC = {
    "throttled": ErrorText(
        429,
        "rate_limit_error",
        None,
        "This request would exceed your organization's rate limit of {limit} {unit} per minute (org: fake, "
        "model: {model}).",
    ),
    "spent": ErrorText(402, "billing_error", None, "Your credit balance is too low to access the Anthropic API."),
    "too_large": ErrorText(413, "request_too_large", None, "Request exceeds the maximum size."),
    "not_in_plan": ErrorText(429, "rate_limit_error", None, "Your plan does not include the model {model}."),
    "overloaded": ErrorText(529, "overloaded_error", None, "Overloaded"),
    "too_long": ErrorText(
        400, "invalid_request_error", None, "prompt is too long: {requested} tokens > {limit} maximum"
    ),
    "filtered": ErrorText(400, "invalid_request_error", None, "Output blocked by content filtering policy"),
}
_AZURE = _OPENAI | {
    "throttled": ErrorText(
        429,
        "",
        "429",
        "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded "
        "{one} rate limit of your current OpenAI S0 pricing tier. Please retry after {seconds} seconds.",
    ),
}
_TABLES: dict[Dialect, dict[str, ErrorText]] = {"openai": _OPENAI, "azure": _AZURE, "anthropic": _ANTHROPIC}

_OPENAI_STATUS = {
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: (
        "invalid_request_error",
        "unsupported_country_region_territory",
        "Country, region, or territory not supported",
    ),
    404: ("invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached."),
}
_ANTHROPIC_STATUS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_SHORT = {"requests": "RPM", "tokens": "TPM", "input_tokens": "TPM", "output_tokens": "TPM"}
_SERVER_ERRORS = 500
_OF_PROXIES = {502: "Bad Gateway", 504: "Gateway Timeout"}
_HTML = "<html><head><title>{0} {1}</title></head><body><center><h1>{0} {1}</h1></center></body></html>\n"


class Written(NamedTuple):
    """An error as it goes out. ``body`` is JSON, or a page of HTML."""

    status: int
    body: dict[str, Any] | str


def error_of(dialect: Dialect, fault: Fault, numbers: Numbers) -> Written:
    """Write the error that a fault orders, as this API would."""
    if fault.name == STATUS and fault.status in _OF_PROXIES:
        return Written(fault.status, _HTML.format(fault.status, _OF_PROXIES[fault.status]))
    if fault.name == STATUS:
        return status_error(dialect, fault.status or _SERVER_ERRORS)
    return limit_error(dialect, fault.name, numbers, fault.code)


def limit_error(dialect: Dialect, name: str, numbers: Numbers, code: str = "") -> Written:
    """Write an error of the tables above; ``code`` is Anthropic's for a spend limit that is reached."""
    text = _TABLES[dialect][name]
    filled = numbers._asdict() | {
        "short": _SHORT[numbers.unit],
        "one": numbers.unit.removesuffix("s"),
        "wait": go_duration(numbers.wait_us),
        "seconds": seconds_up(numbers.wait_us),
    }
    type_, message = text.type.format(**filled), text.message.format(**filled)
    if code and dialect == "anthropic":
        error = {"type": "rate_limit_error", "message": message, "details": {"error_code": code}}
        return Written(429, {"type": "error", "error": error})
    return Written(text.status, _body(dialect, type_, text.code, message))


def status_error(dialect: Dialect, status: int, message: str = "") -> Written:
    """Write the error that the API sends with a status."""
    kind = "server_error" if status >= _SERVER_ERRORS else "invalid_request_error"
    type_, code, usual = _OPENAI_STATUS.get(status, (kind, None, f"The request failed with status {status}."))
    if dialect == "anthropic":
        kind = "api_error" if status >= _SERVER_ERRORS else "invalid_request_error"
        type_, code = _ANTHROPIC_STATUS.get(status, kind), None
    return Written(status, _body(dialect, type_, code, message or usual))


def _body(dialect: Dialect, type_: str, code: str | None, message: str) -> dict[str, Any]:
    if dialect == "anthropic":
        return {"type": "error", "error": {"type": type_, "message": message}}
    if not type_:
        return {"error": {"code": code, "message": message}}
    return {"error": {"message": message, "type": type_, "param": None, "code": code}}
