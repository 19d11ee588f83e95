"""HTTP/1.1 as text: requests are read, and heads of answers are written."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from http.client import HTTPException, parse_headers
from io import BufferedReader
from typing import NamedTuple

_LONGEST_LINE = 65536
_REASONS = {status.value: status.phrase for status in HTTPStatus} | {529: "Overloaded"}
_STATUSLESS = "Unknown"
LAST_CHUNK = b"0\r\n\r\n"


class Request(NamedTuple):
    """A request as it came.

    Attributes:
        headers: By their names in lower case; of several with one name, all values with commas between them.
        body: Without the transfer's encoding.
        keeps_alive: Another one may follow on the connection.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    keeps_alive: bool


def read_request(stream: BufferedReader) -> Request | None:
    """The next request; None if the client has left in the middle of it, or speaks something else."""
    words = stream.readline(_LONGEST_LINE).decode("latin-1").split()
    if len(words) != 3:  # noqa: PLR2004  method, path and version
        return None
    method, path, version = words
    try:
        told = parse_headers(stream)
        headers: dict[str, str] = {}
        for name, value in told.items():
            known = headers.get(name.lower())
            headers[name.lower()] = value if known is None else f"{known}, {value}"
        body = _read_body(stream, headers)
    except (HTTPException, ValueError):
        return None
    keeps_alive = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    return None if body is None else Request(method, path, headers, body, keeps_alive)


def _read_body(stream: BufferedReader, headers: Mapping[str, str]) -> bytes | None:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return _read_chunks(stream)
    length = int(headers.get("content-length", 0))
    body = stream.read(length)
    return body if len(body) == length else None


def _read_chunks(stream: BufferedReader) -> bytes | None:
    body = bytearray()
    while line := stream.readline(_LONGEST_LINE):
        length = int(line.partition(b";")[0], 16)
        chunk = stream.read(length)
        stream.readline(_LONGEST_LINE)
        if not length:
            return bytes(body)
        body += chunk
    return None


def head_of(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    """The head of an answer. Texts that are not Latin-1 go out as UTF-8."""
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, _STATUSLESS)}", *(f"{name}: {value}" for name, value in headers)]
    return b"".join(_encoded(line) + b"\r\n" for line in [*lines, ""])


def _encoded(line: str) -> bytes:
    try:
        return line.encode("latin-1")
    except UnicodeEncodeError:
        return line.encode()


def chunk_of(data: bytes) -> bytes:
    """A piece of a body whose length nobody knows beforehand."""
    return b"%x\r\n%b\r\n" % (len(data), data)
