"""Meters partial answers and files. For a part (``Range``) the whole body is metered; for a file its report counts.

Werkzeug cuts the part out of the body that the view made, so the part alone doesn't show what the view used. The text
of a file doesn't show it either, unless the file reports its usage. A part of a file is not metered, because the file
may be long.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final, cast

from flask import Response
from werkzeug.wsgi import FileWrapper

from flask_ailimit.tokens import Measure, StreamMeter

from .streaming import Account, MeteredStream

_CONDITIONAL: Final = (304, 412)


class _Items:
    def __getitem__(self, _: int) -> bytes:
        raise IndexError


_ITERATOR_OF_ITEMS = type(iter(_Items()))
"""The type of ``iter()`` of the file wrapper of gunicorn before 24, which has only ``__getitem__``."""

_MADE: Final[tuple[type, ...]] = (type(iter([])), type(iter(())))


class Unmetered:
    """A meter for a body that doesn't show what was used: what was reserved stays charged."""

    ended = seen_anything = False

    def feed(self, _: bytes) -> bool:
        """Ignore the chunk."""
        return False

    def measure(self, _: int | None, *, complete: bool) -> Measure:  # noqa: ARG002  a meter's signature
        """Return no usage."""
        return Measure(None, "reserved")


class OnlyReports:
    """A meter for a file: if the file reports no usage, what was reserved stays charged.

    A file ends with its body. An event in its text doesn't end it.
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
        if self._meter.may_report:  # Otherwise it would count a long text in vain.
            self._meter.feed(chunk)
        return False

    def measure(self, known_input: int | None, *, complete: bool) -> Measure:
        """Return the usage that the file reports."""
        measure = self._meter.measure(known_input, complete=complete)
        return measure if measure.source == "reported" else Measure(None, "reserved")


class Part:
    """Iterates over a part of a stream, and reads the whole to its end before the last byte of the part leaves.

    Args:
        part: Iterates over the part, and reads ``whole`` for it.
        whole: Meters the whole body that the view made.
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
    """Replace the response's body by a metered stream. Returns the stream."""
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
        body.seekable = False  # The bytes before the part must be metered, too.
        response.response = Part(body, stream, length)
    else:
        stream = MeteredStream(body, meter, account, length=length)
        response.response = cast("Iterable[bytes]", stream)  # It returns the chunks as it gets them, text or bytes.
    return stream


def was_made(response: Response) -> bool:
    """Whether the body is a part of a body that was complete when the view returned, and not of a stream."""
    whole = getattr(response.response, "iterable", None)
    return isinstance(whole, _MADE) and hasattr(response.response, "byte_range")


def status_of_work(response: Response) -> int:
    """The status that the view gave its answer, before a condition of the client replaced it.

    ``make_conditional`` leaves the body as it is and changes the status to 304 or 412. Such an answer has a body and a
    validator (``ETag`` or ``Last-Modified``), and counts as 200.
    """
    status = response.status_code
    if status not in _CONDITIONAL:
        return status
    has_validator = "ETag" in response.headers or "Last-Modified" in response.headers
    return 200 if has_validator and (response.is_streamed or any(response.response)) else status
