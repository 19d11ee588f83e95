"""What other readers find in a request body that :func:`flask_ailimit.tokens.decode_body` refuses.

Python's ``json.loads`` takes bytes in UTF-8, UTF-16 and UTF-32, NaN, half a surrogate pair, and of two fields of a name
the last. Go's ``encoding/json`` replaces what is no UTF-8, merges what is given twice, reads the first of several
values, and nests 10,000 levels. A client must not choose what we find by choosing how it writes; so all of it is kept.
"""

import json
import re
from typing import Any, Final
from urllib.parse import parse_qsl

from .body import InvalidBody, decode_body, more_brackets, nests_deeper
from .shapes import CHOICES, MAXIMUM, REQUEST_ROLES

GO_DEPTH: Final = 10_000
"""Levels that Go's ``encoding/json`` reads (``maxNestingDepth``)."""

MOST_STRUCTURE: Final = 1 << 18
"""Signs of structure (commas, brackets, backslashes) that are read in a body. So many take 0.2 s."""

MOST_VALUES: Final = 10_000
"""Values, one after the other, and fields of a form that are read."""

_SPACE = re.compile("[ \t\n\r\x1e]*")  # With the record separator of RFC 7464.
_BLANK = b" \t\n\r\xef\xbb\xbf"
_MOST_REPAIRED = 1 << 20
_LONGEST_INTEGER = 20
_STRUCTURE = (b",", b"[", b"{", b"\\", b"\n", b"&", b"%", b'"')


class TooMuchToRead(Exception):  # noqa: N818  it is the body that is too much
    """Reading the body would take longer than a request is worth; what it asks for may be anything."""


class Pairs(dict[str, Any]):
    """An object in which a name stands several times. ``items()`` has every pair, the rest is as in a dict."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self._pairs = pairs

    def items(self) -> list[tuple[str, Any]]:  # type: ignore[override]  # a view can't have a name twice
        """Every pair, in order."""
        return self._pairs


def read_json(raw: bytes) -> list[Any]:
    """The values that readers find in a body: one, several in a row (as in JSON lines), or none if it is empty.

    Args:
        raw: The body. Bound its length before.

    Raises:
        InvalidBody: No reader finds anything in it. The message repeats nothing of the body.
        TooMuchToRead: It may be JSON, and would take too long to read.
    """
    if _has_much_structure(raw):
        if nests_deeper(raw[:MOST_STRUCTURE], GO_DEPTH):
            raise _too_deep()
        raise TooMuchToRead
    try:
        return [decode_body(raw)]
    except InvalidBody as error:
        refusal = error
    if not raw.strip(_BLANK):
        return []
    values = _values(raw)
    if not values:
        raise refusal
    return values


def _has_much_structure(raw: bytes) -> bool:
    """Whether a body takes long to read. A text, however long, doesn't."""
    if len(raw) <= MOST_STRUCTURE:
        return False
    # Base64 has many slashes, which some writers escape; reading such a one takes little.
    return sum(map(raw.count, _STRUCTURE)) - raw.count(b"\\/") * 7 // 8 > MOST_STRUCTURE


def text_of(raw: bytes) -> str:
    """The bytes as a text in UTF-8, what is none replaced.

    Raises:
        TooMuchToRead: It is long and not UTF-8, so that replacing may take seconds.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError:
        if len(raw) > _MOST_REPAIRED:
            raise TooMuchToRead from None
        return raw.decode("utf-8", "replace")


def _too_deep() -> InvalidBody:
    return InvalidBody("json_too_deep", f"The body is nested too deep. At most {GO_DEPTH} levels are read.")


def read_fields(raw: bytes) -> dict[str, Any]:
    """The fields of a form or a query string (``application/x-www-form-urlencoded``). A number there is a text.

    Raises:
        TooMuchToRead: There are more fields or escapes than are worth reading.
    """
    if _has_much_structure(raw) or raw.count(b"&") > MOST_VALUES:
        raise TooMuchToRead
    pairs = parse_qsl(text_of(raw), keep_blank_values=True)
    return fields_of(pairs)


def fields_of(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Fields from their names and values. What is JSON in a field is read, and a field in brackets by its last name."""
    read: list[tuple[str, Any]] = []
    for name, text in pairs:
        value: Any = text
        if text.lstrip()[:1] in ("{", "["):
            try:
                (value,) = read_json(text.encode("utf-8", "surrogatepass"))
            except (InvalidBody, TooMuchToRead, ValueError):
                value = text
        elif not text:
            value = name  # A text that was sent as a form for want of a better type.
        elif text.isascii() and text.isdigit() and len(text) < _LONGEST_INTEGER:
            value = int(text) if _is_number(name) else text
        read.append((name[:-1].rpartition("[")[2] if name.endswith("]") else name, value))
    return _object(read)


def _is_number(name: str) -> bool:
    return REQUEST_ROLES.get(name) in (MAXIMUM, CHOICES)


def _values(raw: bytes) -> list[Any]:
    text = _text(raw)
    written = text.encode("utf-8", "surrogatepass")
    if more_brackets(written, GO_DEPTH) and nests_deeper(written, GO_DEPTH):
        raise _too_deep()
    values, end = _values_in_a_row(text)
    if end == len(text):
        return values
    # Who reads lines may pass over one that is broken.
    for line in text[end:].split("\n", MOST_VALUES + 1)[1:]:
        if len(values) > MOST_VALUES:
            raise TooMuchToRead
        found, read = _values_in_a_row(line)
        values += [value for value in found if read == len(line) and isinstance(value, dict | list)]
    return values if any(isinstance(value, dict | list) for value in values) else []


def _text(raw: bytes) -> str:
    encoding = json.detect_encoding(raw)
    for errors in ("strict", "surrogatepass"):
        try:
            return raw.decode(encoding, errors).lstrip("\ufeff")
        except UnicodeDecodeError:
            if len(raw) > _MOST_REPAIRED:
                raise TooMuchToRead from None
    return text_of(raw).lstrip("\ufeff")  # As Go does. In UTF-16 nobody reads what is broken.


def _values_in_a_row(text: str) -> tuple[list[Any], int]:
    """The values from the beginning, and where what is no value begins."""
    values: list[Any] = []
    end = _space(text, 0)
    while end < len(text):
        if len(values) > MOST_VALUES:
            raise TooMuchToRead
        try:
            value, end = _DECODER.raw_decode(text, end)
        except json.JSONDecodeError:
            break
        except RecursionError:
            raise TooMuchToRead from None
        values.append(value)
        end = _space(text, end)
    return values, end


def _space(text: str, start: int) -> int:
    found = _SPACE.match(text, start)
    return found.end() if found else start


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else Pairs(pairs)


def _integer(text: str) -> int:
    # Beyond any count it doesn't matter how far, and Python refuses more than 4300 digits.
    return int(text[:_LONGEST_INTEGER] if len(text) > _LONGEST_INTEGER else text)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)
