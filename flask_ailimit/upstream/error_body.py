"""Reads what the body of an error says, in the forms of all providers. Nothing raises, and no text of it leaves.

Two things are taken apart. *Words* are enumerations of the provider's, such as ``error.code``: no client can write one.
A *message* is a sentence, which may repeat what a client wrote.
"""

import json
from collections.abc import Iterator
from typing import NamedTuple

from .header_values import LONGEST_SECONDS, duration

MOST_BYTES = 65_536

_PLACES_OF_WORDS = ("type", "code", "status", "reason", "error_code", "id", "error")
_LONGEST_WORD = 64
_LONGEST_MESSAGE = 2000
_MOST_DETAILS = 16
_LARGER_THAN_LIMIT = "cost_exceeds_limit"


class ErrorBody(NamedTuple):
    """What an error says.

    Attributes:
        words: The provider's codes and types for it, in lower case.
        message: The beginning of the sentence for a person.
        wait: Seconds after which to come back; None if it says nothing of that.
    """

    words: frozenset[str] = frozenset()
    message: str = ""
    wait: float | None = None


NOTHING = ErrorBody()
"""What is no error in a form that any provider has: a page of a proxy, another document, no JSON."""


def error_in(body: bytes) -> ErrorBody:
    """Read the body of an answer, of which the first 64 KiB are looked at."""
    try:
        return error_in_document(json.loads(body[:MOST_BYTES]))
    except (ValueError, RecursionError):  # No JSON, no UTF-8, a number of 5,000 digits; nested thousands of times.
        return NOTHING


def error_in_document(document: object) -> ErrorBody:
    """Read a body that was JSON, or the part of it that an SDK keeps."""
    if isinstance(document, list) and document:
        document = document[0]  # So does Google's OpenAI-compatible API answer.
    parts = list(_parts(document))
    words = {word.lower() for part in parts for word in _words(part)}
    waits = [wait for part in parts for wait in _waits(part)]
    if any(_never_fits(part) for part in parts):
        words.add(_LARGER_THAN_LIMIT)
    return ErrorBody(frozenset(words), _message(parts), max(waits, default=None))


def _parts(document: object) -> Iterator[dict[str, object]]:
    """The objects that describe the error. Its own one comes before the whole: it has the better message."""
    if not isinstance(document, dict):
        return
    error = document.get("error")
    if isinstance(error, dict):
        yield error
    yield document
    for owner in (error, document):
        if isinstance(owner, dict):
            for name in ("details", "innererror", "detail"):
                inner = owner.get(name)
                several = inner[:_MOST_DETAILS] if isinstance(inner, list) else [inner]
                yield from (each for each in several if isinstance(each, dict))


def _words(part: dict[str, object]) -> Iterator[str]:
    for name in _PLACES_OF_WORDS:
        value = part.get(name)
        if isinstance(value, str) and 0 < len(value) <= _LONGEST_WORD:
            yield value


def _message(parts: list[dict[str, object]]) -> str:
    for part in parts:
        for name in ("message", "detail", "error"):
            value = part.get(name)
            if isinstance(value, str):
                return value[:_LONGEST_MESSAGE]
    return ""


def _waits(part: dict[str, object]) -> Iterator[float]:
    """Google's ``RetryInfo``, and what we say of the limit that refused."""
    delay, limit = part.get("retryDelay"), part.get("limit")
    if isinstance(delay, str):
        seconds = duration(delay)
        if seconds is not None:
            yield seconds
    if isinstance(limit, dict):
        wait = limit.get("retry_after")
        if isinstance(wait, int | float) and wait >= 0:
            yield float(min(wait, LONGEST_SECONDS))


def _never_fits(part: dict[str, object]) -> bool:
    """Whether it is a limit of ours that the request is larger than, in the form that has no code for it."""
    limit = part.get("limit")
    return isinstance(limit, dict) and "burst" in limit and limit.get("retry_after", 0) is None
