"""Cutting a stream of bytes, however it is chunked, into payloads: the data of its events, or its lines."""

import re
from typing import Final

LONGEST: Final = 8 * 1024 * 1024
"""Bytes. A longer line or event is handed on in pieces, so that memory stays bounded."""

_BOM = b"\xef\xbb\xbf"

_LINE_COST = 64
"""Bytes that a line costs besides its own: an event of empty lines must not grow without a bound."""


class Lines:
    """One payload a line, as in NDJSON. A line ends with LF, CR or CRLF.

    Args:
        continued: What to put in front of each further piece of a line that was too long to keep.
    """

    def __init__(self, continued: bytes = b"") -> None:
        self._continued = continued
        self._rest = bytearray()
        self._after_cr = False

    def split(self, chunk: bytes) -> list[bytes]:
        """The lines that this chunk completes, without blank ones."""
        return [line for line in self.completed(chunk).splitlines() if line]

    def completed(self, chunk: bytes) -> bytes:
        """All that this chunk completes, with its line breaks."""
        if self._after_cr and chunk:
            # This LF belongs to the CR that the chunk before ended with.
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        end = max(chunk.rfind(b"\n"), chunk.rfind(b"\r")) + 1
        if not end:
            return self._keep(chunk)
        self._after_cr = chunk.endswith(b"\r")
        if not self._rest and end == len(chunk):
            return chunk
        lines = bytes(self._rest) + chunk[:end]
        self._rest = bytearray(chunk[end:])
        return lines

    @property
    def between_payloads(self) -> bool:
        """Whether the next chunk begins a line."""
        return not self._rest and not self._after_cr

    def peek(self, longest: int = LONGEST) -> bytes:
        """The line begun."""
        return bytes(self._rest) if len(self._rest) <= longest else b""

    def _keep(self, chunk: bytes) -> bytes:
        self._rest += chunk
        if len(self._rest) <= LONGEST:
            return b""
        piece, self._rest = bytes(self._rest), bytearray(self._continued)
        return piece


class EventStream:
    """The data of each event of a ``text/event-stream`` (WHATWG HTML, "Server-sent events"), without empty ones."""

    def __init__(self) -> None:
        self._lines = Lines(continued=b"data: ")
        self._data: list[bytes] = []
        self._size = 0

    @property
    def between_payloads(self) -> bool:
        """Whether the next chunk begins an event."""
        return not self._data and self._lines.between_payloads

    def split(self, chunk: bytes) -> list[bytes]:
        """The data of the events that this chunk completes."""
        if b"\r" in chunk:
            return self._split(chunk)
        events = []
        if not self.between_payloads:
            begun = chunk.find(b"\n\n") + 2
            events = self._split(chunk[:begun] if begun > 1 else chunk)
            chunk = chunk[begun:] if begun > 1 else b""
        end = chunk.rfind(b"\n\n") + 2
        if end > 1:
            events += _events(chunk[:end])
            chunk = chunk[end:]
        return events + self._split(chunk) if chunk else events

    def _split(self, chunk: bytes) -> list[bytes]:
        completed = self._lines.completed(chunk)
        if not self._data and b"data" not in completed:
            return []
        events = []
        for line in completed.splitlines():
            if line:
                data = _data_of(line)
                if data is None:
                    continue
                self._data.append(data)
                self._size += len(data) + _LINE_COST
                if self._size <= LONGEST:
                    continue
            if self._data:
                events.append(b"\n".join(self._data))
                self._data, self._size = [], 0
        return [event for event in events if event]

    def peek(self, longest: int = LONGEST) -> bytes:
        """The data so far of the event begun."""
        if self._size > longest:
            return b""
        data = _data_of(self._lines.peek(longest))
        return b"\n".join(self._data if data is None else [*self._data, data])


_EMPTY = frozenset({b"", b"data:", b"data: "})
# An event with one line of data, as most events of most servers are.
_SHORT_EVENT = re.compile(rb"data: ([^\n]++)\n\n")


def _events(chunk: bytes) -> list[bytes]:
    """The data of whole events, whose lines end with LF."""
    if b"data" not in chunk:
        return []
    short = _SHORT_EVENT.findall(chunk)
    if len(short) == chunk.count(b"\n\n") == chunk.count(b"\ndata") + chunk.startswith(b"data"):
        return short
    events = []
    for block in chunk.split(b"\n\n"):
        if block in _EMPTY:
            continue
        if block.startswith(b"data: ") and b"\n" not in block:
            event = block[6:]
        else:
            event = b"\n".join([data for line in block.split(b"\n") if (data := _data_of(line)) is not None])
        if event:
            events.append(event)
    return events


def _data_of(line: bytes) -> bytes | None:
    """What follows ``data:``; None on a blank line, a comment, or another field."""
    if not line.startswith(b"data"):
        line = line.removeprefix(_BOM)
    if line.startswith(b"data: "):
        return line[6:]
    if line.startswith(b"data:"):
        return line[5:]
    return b"" if line == b"data" else None
