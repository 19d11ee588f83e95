"""Reads values of headers that somebody else wrote. What can't be read in just one way is nothing, and nothing raises.

Digits are those of ASCII: ``int()`` and ``float()`` take others besides, and ``nan``, ``inf`` and ``1_000``.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TypeVar

from flask_ailimit.engine.quota import MAX_EXACT

LONGEST_SECONDS = 10 * 366 * 86400
"""Ten years: a longer time is told as this one."""

_LONGEST_TEXT = 64
_LONGEST_NUMBER = 512
_LONGEST_LIST = 8192
_MOST_DIGITS = 16
_SINCE_EPOCH = 1e9
"""A reset of so many seconds or more is a time since 1970: such a time from now on would be in 31 years."""
_MILLISECONDS_SINCE_EPOCH = 1e11

_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?|\.[0-9]+")
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+")
_DURATION = re.compile(r"(?:[0-9]*\.?[0-9]+(?:ns|us|µs|ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"([0-9]*\.?[0-9]+)(ns|us|µs|ms|s|m|h|d)")
_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86400}
_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9:]{5})"
)
_HTTP_DATE = re.compile(r"[A-Z][a-z]{2}, ([0-9]{2}) ([A-Z][a-z]{2}) ([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ITEM = re.compile(
    r'\s*(?:"((?:[^"\\]|\\.)*)"|([A-Za-z*][^\s;,"=]*))((?:\s*;\s*[^\s;,="]+(?:=(?:"(?:[^"\\]|\\.)*"|[^\s;,"]*))?)*)\s*'
)
_PARAMETER = re.compile(r';\s*([^\s;,="]+)(?:=("(?:[^"\\]|\\.)*"|[^\s;,"]*))?')

_Read = TypeVar("_Read", int, float)


def header_of(headers: Mapping[str, str], name: str) -> str:
    """The value of a header without the space around it; "" if there is none."""
    value: object = headers.get(name)
    return value.strip() if isinstance(value, str) else ""


def whole_number(text: str) -> int | None:
    """A count from 0 to 2**53 - 1, which stands for all that are larger; a fraction is left out."""
    if len(text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(text):
        return None
    digits = text.partition(".")[0].lstrip("0")
    return min(int(digits or "0"), MAX_EXACT) if len(digits) <= _MOST_DIGITS else MAX_EXACT


def seconds(text: str) -> float | None:
    """A number of seconds, at most ten years of them."""
    return None if (number := _number(text)) is None else _bounded(number)


def milliseconds(text: str) -> float | None:
    """A number of milliseconds, in seconds: at most ten years of them."""
    return None if (number := _number(text)) is None else _bounded(number / 1000)


def duration(text: str) -> float | None:
    """A duration as Go writes it, such as ``1m30.5s``, in seconds; days are understood, too."""
    if len(text) > _LONGEST_TEXT or not _DURATION.fullmatch(text):
        return None
    return _bounded(sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION_PART.findall(text)))


def moment(text: str) -> float | None:
    """A time of RFC 3339, or a date as HTTP has it, in seconds since 1970."""
    try:
        if _RFC3339.fullmatch(text):
            return datetime.fromisoformat(text.upper()).timestamp()
        found = _HTTP_DATE.fullmatch(text)
        if found is None:
            return None
        day, month, year, hour, minute, second = found.groups()
        parts = int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second)
        return datetime(*parts, tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):  # There is no such day, or month.
        return None


def until(text: str, at: float) -> float | None:
    """How long it is from ``at`` to a reset: a duration, seconds, or a time in any form; 0 if it was before.

    Args:
        text: The header's value.
        at: When it was written, in seconds since 1970.
    """
    number = _number(text)
    if number is None:
        when = moment(text)
        return duration(text) if when is None else _bounded(when - at)
    if number < _SINCE_EPOCH:
        return _bounded(number)
    return _bounded((number / 1000 if number >= _MILLISECONDS_SINCE_EPOCH else number) - at)


def joined(text: str, read: Callable[[str], _Read | None], *, largest: bool) -> _Read | None:
    """What is read of a header that was perhaps sent several times, whose values then have commas between them.

    Args:
        text: The header's value, or values.
        read: Reads one.
        largest: Whether the largest of several holds, else the smallest.

    Returns:
        None if one of them can't be read, and of ``10,000``, which may be a single number.
    """
    whole = read(text)
    if whole is not None or "," not in text or len(text) > _LONGEST_LIST or _THOUSANDS.fullmatch(text):
        return whole
    known = [part for part in (read(each.strip()) for each in text.split(",")) if part is not None]
    if len(known) <= text.count(","):
        return None
    return max(known) if largest else min(known)


def items(text: str) -> dict[str, dict[str, str]]:
    """A list of RFC 9651 whose items are names: the parameters of each by name; empty if it isn't well-formed."""
    found: dict[str, dict[str, str]] = {}
    place = 0
    if len(text) > _LONGEST_LIST:
        return {}
    while place <= len(text):
        item = _ITEM.match(text, place)
        if item is None or text[item.end() : item.end() + 1] not in (",", ""):
            return {}
        place = item.end() + 1
        parameters = {name: value.strip('"') for name, value in _PARAMETER.findall(item[3])}
        found.setdefault(item[1] if item[2] is None else item[2], parameters)
    return found


def _number(text: str) -> float | None:
    return float(text) if len(text) <= _LONGEST_NUMBER and _NUMBER.fullmatch(text) else None


def _bounded(amount: float) -> float:
    return min(max(0.0, amount), float(LONGEST_SECONDS))
