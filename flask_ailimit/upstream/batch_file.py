"""The lines of OpenAI's batch files: a request in, an answer out. Files go to and come from the provider's own batches.

In: ``{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {...}}``. Out: ``{"id": ...,
"custom_id": "a", "response": {"status_code": 200, "request_id": ..., "body": {...}}, "error": null}``. A refusal of the
provider is a response too; ``response`` is null and ``error`` has a code and a message if there was no answer.
"""

import json
import re
from codecs import BOM_UTF8
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from uuid import uuid4

from flask_ailimit.tokens import InvalidBody, decode_body
from flask_ailimit.tokens.body import more_brackets, nests_deeper

LONGEST_LINE: Final = 32 << 20
"""Bytes of a line. Pictures are in the body as base64."""

LONGEST_ID: Final = 512
"""Characters of a ``custom_id``."""

NOT_SENT, NO_ANSWER = "not_sent", "no_answer"
"""Why there is no answer: the provider did not get the request, or may have worked on it and may bill it."""

_DEEPEST: Final = 256
"""Levels of arrays and objects in an answer. Whoever reads the line again has to be able to, on whatever stack."""

_MEMBERS: Final = ("custom_id", "method", "url", "body")
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9_~:@-][A-Za-z0-9._~:@-]*)+")
_LONGEST_PATH: Final = 256
_MAY_CHANGE: Final = frozenset({401, 402, 403, 408, 409, 425, 429})
_NOT_SENT: Final = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol"})


class BadLine(ValueError):  # noqa: N818  it is the line that is bad
    """A line is no request or no answer. The message is safe to show: it repeats nothing but names of the format."""


class Request(NamedTuple):
    """A line of the input. ``model`` is that of the body; "" if it names none."""

    custom_id: str
    url: str
    body: dict[str, Any]

    @property
    def model(self) -> str:
        """The model that the body names; "" if it names none."""
        named = self.body.get("model")
        return named if isinstance(named, str) else ""


class Answer(NamedTuple):
    """A line of the output.

    Attributes:
        custom_id: Whose answer it is.
        status: The HTTP status; 0 if there was no answer.
        body: The answer's decoded body; None if there was no answer.
        error: The code of the error, if there was no answer; else "".
    """

    custom_id: str
    status: int
    body: object
    error: str = ""

    @property
    def is_good(self) -> bool:
        """Whether it is what was asked for."""
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def may_change(self) -> bool:
        """Whether the same request may get another answer at another time, or with another key."""
        return not self.status or self.status >= HTTPStatus.INTERNAL_SERVER_ERROR or self.status in _MAY_CHANGE

    @property
    def failure(self) -> str:
        """Why it is not good, in words."""
        return f"with status {self.status}" if self.status else self.error.replace("_", " ")


def read_request(raw: bytes) -> Request:
    """Read a line of the input strictly: what one reader takes otherwise than another is refused.

    Raises:
        BadLine: It is no request of a batch file; the message says what is wrong.
    """
    fields = _object(raw)
    missing = [name for name in _MEMBERS if name not in fields]
    if missing:
        raise BadLine(f"{missing[0]} is missing")
    if len(fields) > len(_MEMBERS):
        raise BadLine(f"there is a member that is none of {', '.join(_MEMBERS)}")
    custom_id, method, url, body = (fields[name] for name in _MEMBERS)
    if not (isinstance(custom_id, str) and 0 < len(custom_id) <= LONGEST_ID and custom_id.isprintable()):
        raise BadLine(f"custom_id: a text of 1 to {LONGEST_ID} printable characters is needed")
    if method != "POST":
        raise BadLine("method: only POST is allowed")
    if not (isinstance(url, str) and len(url) <= _LONGEST_PATH and _PATH.fullmatch(url)):
        raise BadLine("url: a path is needed, such as /v1/chat/completions")
    if not isinstance(body, dict) or not body:
        raise BadLine("body: an object is needed")
    if body.get("stream"):
        raise BadLine("body: the answers of a batch are no streams. Leave stream out")
    return Request(custom_id, url, body)


def read_answer(raw: bytes) -> Answer:
    """Read a line of the output.

    Raises:
        BadLine: It is none.
    """
    try:
        fields = json.loads(raw)
        custom_id, response, error = fields["custom_id"], fields["response"], fields["error"]
        if response is None:
            return Answer(_text(custom_id), 0, None, _text(error["code"]))
        status = response["status_code"]
        if type(status) is int and status > 0:
            return Answer(_text(custom_id), status, response["body"])
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise BadLine("it is no answer of a batch file")


def answer_line(custom_id: str, status: int, request_id: str | None, body: bytes) -> bytes:
    """The line of an answer. Its body stays as the provider wrote it, if it is JSON; else it becomes a text."""
    line_id, named, request = (
        json.dumps(each).encode() for each in (f"batch_req_{uuid4().hex}", custom_id, request_id)
    )
    return (
        b'{"id": %b, "custom_id": %b, "response": {"status_code": %d, "request_id": %b, "body": %b}, "error": null}\n'
        % (line_id, named, status, request, _in_one_line(body))
    )


def failure_line(custom_id: str, error: BaseException) -> bytes:
    """The line of a request that got no answer. It repeats nothing of the error's text."""
    code = NOT_SENT if any(each.__name__ in _NOT_SENT for each in type(error).__mro__) else NO_ANSWER
    return unanswered_line(custom_id, code, type(error).__name__)


def unanswered_line(custom_id: str, code: str, why: str) -> bytes:
    """The line of a request that got no answer of the provider.

    Args:
        custom_id: The request's.
        code: ``NOT_SENT`` or ``NO_ANSWER``.
        why: A word.
    """
    told = {"code": code, "message": f"{why}: the request got no answer."}
    line = {"id": f"batch_req_{uuid4().hex}", "custom_id": custom_id, "response": None, "error": told}
    return json.dumps(line).encode() + b"\n"


def body_to_send(request: Request) -> bytes:
    """The body of a request, as JSON."""
    return json.dumps(request.body, separators=(",", ":")).encode()


def address(base_url: str, url: str) -> str:
    """Where a line's request goes: its path behind the base URL. What ends the one and begins the other is there once.

    Example:
        >>> address("https://api.openai.com/v1/", "/v1/embeddings")
        'https://api.openai.com/v1/embeddings'
    """
    base, path = base_url.rstrip("/").split("/"), url.split("/")[1:]
    longest = min(len(base) - 3, len(path) - 1)  # Behind the scheme and the host.
    for shared in range(longest, 0, -1):
        if base[-shared:] == path[:shared]:
            return "/".join([*base, *path[shared:]])
    return "/".join([*base, *path])


def _object(raw: bytes) -> dict[str, Any]:
    if len(raw) > LONGEST_LINE:
        raise BadLine(f"it has more than {LONGEST_LINE >> 20} MiB")
    try:
        fields = decode_body(raw)
    except InvalidBody as error:
        raise BadLine(str(error).replace("line 1, ", "").replace("body", "line").rstrip(".")) from None
    if not isinstance(fields, dict):
        raise BadLine("an object is needed")
    return fields


def _in_one_line(body: bytes) -> bytes:
    body = body.removeprefix(BOM_UTF8)
    if not _is_json(body):
        return json.dumps(body.decode("utf-8", "replace")).encode()
    return body.strip().replace(b"\r", b" ").replace(b"\n", b" ")  # A text in JSON has no line break as such.


def _is_json(body: bytes) -> bool:
    if more_brackets(body, _DEEPEST) and nests_deeper(body, _DEEPEST):
        return False
    try:
        json.loads(body.decode(), parse_constant=_no_constant)  # From bytes, it would read UTF-16, too.
    except ValueError:
        return False
    return True


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
