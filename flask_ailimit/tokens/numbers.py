"""A maximum as the most generous reader takes it."""

import math
import re

from .usage import MAX_TOKENS

_LEADING_DIGITS = re.compile(r"\+?\d+")
_OTHER_BASE = re.compile(r"\+?0[box]", re.IGNORECASE)
_LONGEST_TEXT = 400


def count_in(value: object) -> tuple[int, bool]:
    """The count that some reader finds in a value, and whether every reader finds it.

    A whole number up to 2**53 - 1 is one to every reader. pydantic's lax mode takes ``"9000"``, ``" 9000 "``,
    ``9000.0``, ``"9000.0"`` and ``True`` besides (https://docs.pydantic.dev/latest/concepts/conversion_table/),
    ``int()`` takes ``"9_000"`` and digits of any script, ``parseInt`` takes what a text begins with.

    Returns:
        A count from 1 to 2**53 - 1 (a larger one is that), or 0 if it is none: null, zero, negative, an array.
    """
    if type(value) is int:
        return min(max(value, 0), MAX_TOKENS), 0 < value <= MAX_TOKENS
    if isinstance(value, bool | int):
        return int(value > 0), False
    if isinstance(value, float):
        return _whole(value), False
    if isinstance(value, str):
        return _in_text(value), False
    return 0, False


def _whole(number: float) -> int:
    if math.isnan(number) or number <= 0:
        return 0
    return MAX_TOKENS if number >= MAX_TOKENS else math.ceil(number)


def _in_text(text: str) -> int:
    text = text.strip().replace("_", "").replace(",", "")
    if len(text) > _LONGEST_TEXT:
        return MAX_TOKENS if text.removeprefix("+")[:1].isdigit() else 0
    try:
        return min(int(text, 0), MAX_TOKENS) if _OTHER_BASE.match(text) else _whole(float(text))
    except ValueError:
        digits = _LEADING_DIGITS.match(text)
        return min(int(digits[0]), MAX_TOKENS) if digits else 0
