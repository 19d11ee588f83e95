"""How errors about a plan file show keys and values."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from flask_ailimit.money.book import LONGEST_MODEL

_MOST_SHOWN = 20
CLOSE = 0.65
"""So alike are two names of which one may be meant: soft_percent and enforced_percent are not."""
_LARGEST = 10**100
"""Python writes no number of more than some thousand digits as a text. TOML may have one, in hexadecimal."""


def key_of(name: str) -> str:
    """A key as TOML writes it in a dotted name, in quotation marks if it is not plain."""
    shown = name if len(name) <= LONGEST_MODEL else f"{name[:LONGEST_MODEL]}…"
    return shown if shown.isascii() and shown.replace("-", "").replace("_", "").isalnum() else _quoted(shown)


def is_too_large(value: object) -> bool:
    """Whether a number is larger than any that means something."""
    return isinstance(value, int) and abs(value) >= _LARGEST


def shown(value: object) -> str:
    """A value; of a table and of a list only what it is."""
    if is_too_large(value):
        return "a number of more than 100 digits"
    kind = "a table" if isinstance(value, Mapping) else "a list" if isinstance(value, list) else type(value).__name__
    return f"{value!r:.60}" if isinstance(value, str | int | float) else kind


def listed(names: Iterable[str]) -> str:
    """Some names."""
    every = [*names]
    return ", ".join([*map(key_of, every[:_MOST_SHOWN]), *(["…"] if len(every) > _MOST_SHOWN else [])])


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """A hint, if a name is much like one of those that are known; else nothing."""
    close = get_close_matches(name[:64], [*known], n=1, cutoff=CLOSE) if isinstance(name, str) else []
    return f"Did you mean {key_of(close[0])}? " if close else ""


def one_line(error: Exception) -> str:
    """What an error says, without line breaks and the full stop at its end."""
    return " ".join(str(error).split()).removesuffix(".")


def _quoted(text: str) -> str:
    """A text in double quotation marks, in one line."""
    escaped = repr(text)[1:-1].replace('"', '\\"')
    return f'"{escaped}"'
