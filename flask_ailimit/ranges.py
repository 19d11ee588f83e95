"""What is metered of a body: of a part that the client asked for (``Range``) the whole, and of a file its report.

Werkzeug cuts the part out of what the view made, so the part says nothing of what the view used. Nor does the text of a
file: nobody knows what was used to make it, unless it says so itself. A part of a file is not looked at, because the
file may be long.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final, cast

from flask import Response
from werkzeug.wsgi import FileWrapper

from .streaming import Account, MeteredStream
from .tokens import Measure, StreamMeter

_CONDITIONAL: Final = (304, 412)


class _Items:
    def __getitem__(self, _: int) -> bytes:
        raise IndexError


_ITERATOR_OF_ITEMS = type(iter(_Items()))
"""What remains of the file wrapper of gunicorn before 24, which has nothing but ``__getitem__``, in an iterator."""

_MADE: Final[tuple[type, ...]] = (type(iter([])), type(iter(())))


class Unmetered:
    """Takes the place of a meter where nobody can know what was used: the reservation stands."""

    ended = seen_anything = False

    def feed(self, _: bytes) -> bool:
        """Pass over it."""
        return False

    def measure(self, _: int | None, *, complete: bool) -> Measure:  # noqa: ARG002  a meter's
        """Nothing is known."""
        return Measure(None, "reserved")


class OnlyReports:
    """Takes the place of a file's meter: where the file reports nothing, the reservation stands.

    A file ends with its body, whatever is written in it.
    """

    ended = False

    def __init__(self, meter: StreamMeter) -> None:
        self._meter = meter

    @property
    def seen_anything(self) -> bool:
        """Whether any output has passed."""
        return self._meter.seen_anything

    def feed(self, chunk: bytes) -> bool:
        """Look for a report in the next chunk."""
        if self._meter.may_report:  # Else it would count a text that may be long, for nothing.
            self._meter.feed(chunk)
        return False

    def measure(self, known_input: int | None, *, complete: bool) -> Measure:
        """What the file reports."""
        measure = self._meter.measure(known_input, complete=complete)
        return measure if measure.source == "reported" else Measure(None, "reserved")


class Part:
    """Iterates over a part of a stream, and reads the whole to its end before the last byte of the part leaves.

    Args:
        part: Takes its chunks from ``whole``.
        whole: Meters what the view made.
        length: The part's length in bytes, if it was announced.
    """

    def __init__(self, part: Iterator[bytes], whole: MeteredStream, length: int | None) -> None:
        self._part = part
        self._whole = whole
        self._left = length

    def __iter__(self) -> "Part":
        return self

    def __next__(self) -> bytes:
        try:
            chunk = next(self._part)
        except StopIteration:
            self._whole.drain()
            raise
        if self._left is not None:
            self._left -= len(chunk)
            if self._left <= 0:
                self._whole.drain()
        return chunk

    def close(self) -> None:
        """Close the whole."""
        self._whole.close()


def metered(response: Response, meter: StreamMeter, account: Account) -> MeteredStream:
    """Put a metered stream in the place of the response's body, and answer it."""
    body = cast("Any", response.response)
    length = response.content_length
    # Werkzeug's class for a part is private.
    whole = body.iterable if hasattr(body, "iterable") and hasattr(body, "byte_range") else body
    if isinstance(whole, FileWrapper | _ITERATOR_OF_ITEMS) or hasattr(whole, "filelike"):
        only = OnlyReports(meter) if whole is body else Unmetered()
        stream = MeteredStream(body, only, account, length=length)
        response.response = cast("Iterable[bytes]", stream)
    elif whole is not body:
        stream = body.iterable = MeteredStream(whole, meter, account)
        body.seekable = False  # What is jumped over is to be metered, too.
        response.response = Part(body, stream, length)
    else:
        stream = MeteredStream(body, meter, account, length=length)
        response.response = cast("Iterable[bytes]", stream)  # It passes on text or bytes, whichever it gets.
    return stream


def was_made(response: Response) -> bool:
    """Whether the body is a part of what the view had made before it returned, and not of a stream to come."""
    whole = getattr(response.response, "iterable", None)
    return isinstance(whole, _MADE) and hasattr(response.response, "byte_range")


def status_of_work(response: Response) -> int:
    """The status that the view gave its answer, before a condition of the client's replaced it.

    ``make_conditional`` leaves the body as it is and changes the status to 304 or 412. Such an answer has a body, and
    has what conditions are about: a validator.
    """
    status = response.status_code
    if status not in _CONDITIONAL:
        return status
    has_validator = "ETag" in response.headers or "Last-Modified" in response.headers
    return 200 if has_validator and (response.is_streamed or any(response.response)) else status
