"""Reading a JSON request body strictly: what one reader takes otherwise than another is refused.

``json.loads`` by itself takes NaN, 1e999, a field given twice, half a surrogate pair and UTF-16, and a body of
100,000 brackets makes it raise RecursionError.
"""

import json
import math
import re
from itertools import accumulate
from typing import Any, Final

MAX_DEPTH: Final = 64
"""Levels of arrays and objects that a body may have."""

_BOM = b"\xef\xbb\xbf"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_SLICE = 16_384  # Brackets looked at in one go, after which other threads get their turn.
_STEPS = [1 if byte in b"[{" else -1 for byte in range(256)]


class InvalidBody(ValueError):  # noqa: N818  it is the body that is invalid
    """A request body is not the JSON that we take. The message is safe to show: it repeats nothing of the body.

    Attributes:
        code: ``invalid_json``, ``json_too_deep``, ``duplicate_field``, ``invalid_number`` or ``invalid_unicode``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def decode_body(raw: bytes, *, max_depth: int = MAX_DEPTH) -> Any:
    """Decode a request body as JSON (RFC 8259) in UTF-8; a byte order mark is passed over.

    Args:
        raw: The body. Bound its length before: reading takes time and memory in proportion to it.
        max_depth: Levels of arrays and objects allowed, at most some hundreds.

    Raises:
        InvalidBody: The body is empty or no JSON in UTF-8 (``invalid_json``, which includes NaN, Infinity and integers
            of more than 4300 digits), nested too deep (``json_too_deep``), has an object with the same field twice
            (``duplicate_field``), a number beyond a double's range (``invalid_number``), or half a surrogate pair
            (``invalid_unicode``).
    """
    raw = raw.removeprefix(_BOM)
    if not raw.strip():
        raise InvalidBody("invalid_json", "The body is empty. Send a JSON object.")
    # Fewer brackets than levels can't nest too deep; most bodies need no closer look.
    if more_brackets(raw, max_depth) and nests_deeper(raw, max_depth):
        raise InvalidBody("json_too_deep", f"The body is nested too deep. At most {max_depth} levels are taken.")
    # Raised outside the except blocks: the errors of Python's decoders carry the whole body.
    try:
        value = _DECODER.decode(raw.decode())
        if b"\\" in raw and _SURROGATE.search(raw):
            json.dumps(value, ensure_ascii=False).encode()
    except InvalidBody:
        raise
    except (ValueError, RecursionError) as error:
        refusal = _refusal(error, raw)
    else:
        return value
    raise refusal


def _refusal(error: Exception, raw: bytes) -> InvalidBody:
    if isinstance(error, RecursionError):
        return InvalidBody("json_too_deep", "The body is nested too deep.")
    if isinstance(error, UnicodeEncodeError):
        return InvalidBody("invalid_unicode", "A text in the body has half a surrogate pair.")
    if isinstance(error, UnicodeDecodeError) or b"\0" in raw[:4]:
        return InvalidBody("invalid_json", "The body is not UTF-8.")
    if isinstance(error, json.JSONDecodeError):
        where = f"line {error.lineno}, column {error.colno}"
        return InvalidBody("invalid_json", f"The body is not JSON: {where}.")
    return InvalidBody("invalid_json", "The body has a number with too many digits.")


def more_brackets(raw: bytes, most: int) -> bool:
    """Whether there are more brackets than so many: fewer can't nest deeper."""
    # Leaving out up to one more of each than allowed is several times faster than counting them all.
    opened = 2 * len(raw) - len(raw.replace(b"[", b"", most + 1)) - len(raw.replace(b"{", b"", most + 1))
    return opened > most


def nests_deeper(raw: bytes, most: int) -> bool:
    """Whether brackets outside strings nest deeper, at least as far as the body is JSON."""
    unescaped = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = b"".join(unescaped.split(b'"')[::2]).translate(None, _NOT_BRACKETS)
    depth = 0
    for start in range(0, len(brackets), _SLICE):
        levels = list(accumulate(map(_STEPS.__getitem__, brackets[start : start + _SLICE]), initial=depth))
        if max(levels) > most:
            return True
        depth = levels[-1]
    return False


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise InvalidBody("duplicate_field", "An object in the body has the same field twice.")
    return fields


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise InvalidBody("invalid_number", "The body has a number that is too large.")
    return number


def _constant(name: str) -> Any:
    raise InvalidBody("invalid_json", f"{name} is not JSON.")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_number, parse_constant=_constant)
