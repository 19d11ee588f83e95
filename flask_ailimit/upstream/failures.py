"""What an exception of a client library means. No library is imported: its classes are known by their names."""

from collections.abc import Iterator, Mapping

from flask_ailimit.engine.clock import MICROSECONDS, system_clock

from .answers import Answer, Kind, is_good, read_answer
from .error_body import NOTHING, ErrorBody, error_in, error_in_document

_CONNECT, _LOST, _MISUSE = (Kind.UNSENT, "connect"), (Kind.UNCERTAIN, "connection-lost"), (Kind.CALLER, "misuse")
_TIMEOUT = (Kind.UNCERTAIN, "timeout")

_FAILURES = {
    # httpx and httpx2
    "ConnectError": _CONNECT,
    "ConnectTimeout": _CONNECT,
    "ProxyError": _CONNECT,
    "PoolTimeout": (Kind.UNSENT, "pool"),
    "UnsupportedProtocol": _MISUSE,
    "LocalProtocolError": _MISUSE,
    "TimeoutException": _TIMEOUT,
    "TransportError": _LOST,
    "DecodingError": (Kind.UNCERTAIN, "unreadable"),
    # requests and urllib3
    "NewConnectionError": _CONNECT,
    "ConnectTimeoutError": _CONNECT,
    "ReadTimeout": _TIMEOUT,
    # The standard library
    "ConnectionRefusedError": _CONNECT,
    "gaierror": _CONNECT,
    "SSLCertVerificationError": _CONNECT,
    "TimeoutError": _TIMEOUT,
    "ConnectionError": _LOST,
    # The SDKs, of which the cause says more
    "APITimeoutError": _TIMEOUT,
    "APIConnectionError": _LOST,
}
"""By the name of the class, or of the nearest one above it."""

_WRAPPERS = {"APITimeoutError", "APIConnectionError"}
_IN_STREAM = "APIError"
"""What OpenAI's SDK raises, and nothing below it, for an error that a stream tells of."""


def failure_of(error: BaseException) -> Answer:
    """What an exception in place of an answer means. What is not known may have been sent."""
    for cause in _causes(error):
        known = _known(cause)
        if known is not None:
            return _without_answer(*known)
    return _without_answer(Kind.UNCERTAIN, "failed" if isinstance(error, Exception) else "cancelled")


def answer_of_error(error: BaseException) -> Answer | None:
    """What an SDK's exception means, or one of httpx, httpx2 or requests. None if it is no failure of a call.

    It knows an exception that carries an answer by its attributes: ``response``, or ``status_code`` with ``headers``
    and ``body``.
    """
    response = _attribute(error, "response")
    status = _status(response) or _status(error)
    if status:
        if is_good(status):
            # The error came in the middle of a stream.
            return Answer(Kind.TRUNCATED, status, None, "error-in-stream")
        return read_answer(status, headers_of_error(error), _body(response, error), _now())
    if any(_known(cause) for cause in _causes(error)):
        return failure_of(error)
    if any(above.__name__ == _IN_STREAM for above in type(error).__mro__):
        return _without_answer(Kind.TRUNCATED, "error-in-stream")
    return None


def headers_of_error(error: BaseException) -> dict[str, str]:
    """The headers of the answer that an exception carries, by lower-case name; empty without one."""
    return _headers(_attribute(error, "response")) or _headers(error)


def answer_of_response(response: object) -> Answer | None:
    """What an answer of httpx, httpx2 or requests means. None if it is none of these."""
    status, headers = _status(response), _headers(response)
    if not status or _attribute(response, "headers") is None:
        return None
    return read_answer(status, headers, NOTHING if is_good(status) else _body(response, None), _now())


def _without_answer(kind: Kind, reason: str) -> Answer:
    return Answer(kind, 0, None, reason)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What an SDK's exception was raised from, if it says so, then the exception itself."""
    cause = error.__cause__
    if cause is not None and any(above.__name__ in _WRAPPERS for above in type(error).__mro__):
        yield cause
    yield error


def _known(error: BaseException) -> tuple[Kind, str] | None:
    return next((_FAILURES[above.__name__] for above in type(error).__mro__ if above.__name__ in _FAILURES), None)


def _now() -> float:
    return system_clock() / MICROSECONDS


def _attribute(owner: object, name: str) -> object:
    try:
        return getattr(owner, name, None)
    except Exception:  # noqa: BLE001  It is a property of somebody else's: httpx's raises if a body was not read.
        return None


def _status(owner: object) -> int:
    """The HTTP status; 0 if there is none."""
    for name in ("status_code", "status"):
        value = _attribute(owner, name)
        if isinstance(value, int) and 100 <= value < 600:  # noqa: PLR2004  as HTTP has it
            return int(value)
    return 0


def _headers(owner: object) -> dict[str, str]:
    headers = _attribute(owner, "headers")
    if not isinstance(headers, Mapping):
        return {}
    return {name.lower(): value for name, value in headers.items() if isinstance(name, str)}


def _body(response: object, error: BaseException | None) -> ErrorBody:
    """What the error says: the answer's own bytes, else what the SDK has made of them."""
    content = _attribute(response, "content")
    if isinstance(content, bytes) and content:
        return error_in(content)
    body = _attribute(error, "body")
    if isinstance(body, str | bytes):
        return error_in(body.encode("utf-8", "replace") if isinstance(body, str) else body)
    return error_in_document(body)
