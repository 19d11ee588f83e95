"""Cutting a stream of bytes, however it is chunked, into payloads: the data of its events, its lines, or blocks."""

from typing import Final, Protocol

LONGEST: Final = 8 * 1024 * 1024
"""Bytes. A longer line or event is handed on in pieces, so that memory stays bounded."""

_BOM = b"\xef\xbb\xbf"


class Splitter(Protocol):
    """Cuts bytes into payloads."""

    def split(self, chunk: bytes) -> list[bytes]:
        """The payloads that this chunk completes."""
        ...

    def peek(self, longest: int = LONGEST) -> bytes:
        """The payload begun, which may lack nothing but its end mark; empty if there is none, or if it is longer."""
        ...


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
        """The lines that this chunk completes."""
        if self._after_cr and chunk:
            # This LF belongs to the CR that the chunk before ended with.
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        end = max(chunk.rfind(b"\n"), chunk.rfind(b"\r")) + 1
        if not end:
            return self._keep(chunk)
        self._after_cr = chunk.endswith(b"\r")
        if not self._rest and end == len(chunk):
            return chunk.splitlines()
        lines = (bytes(self._rest) + chunk[:end]).splitlines()
        self._rest = bytearray(chunk[end:])
        return lines

    @property
    def between_lines(self) -> bool:
        """Whether the next chunk begins a line."""
        return not self._rest and not self._after_cr

    def peek(self, longest: int = LONGEST) -> bytes:
        """The line begun."""
        return bytes(self._rest) if len(self._rest) <= longest else b""

    def _keep(self, chunk: bytes) -> list[bytes]:
        self._rest += chunk
        if len(self._rest) <= LONGEST:
            return []
        piece, self._rest = bytes(self._rest), bytearray(self._continued)
        return [piece]


class EventStream:
    """The data of each event of a ``text/event-stream`` (WHATWG HTML, "Server-sent events")."""

    def __init__(self) -> None:
        self._lines = Lines(continued=b"data: ")
        self._data: list[bytes] = []
        self._size = 0

    def split(self, chunk: bytes) -> list[bytes]:
        """The data of the events that this chunk completes."""
        if self._lines.between_lines and not self._data and (whole := _whole_event(chunk)) is not None:
            return [whole]
        events = []
        for line in self._lines.split(chunk):
            data = _data_of(line)
            if data is not None:
                self._data.append(data)
                self._size += len(data)
            if self._data and (not line or self._size > LONGEST):
                events.append(b"\n".join(self._data))
                self._data, self._size = [], 0
        return events

    def peek(self, longest: int = LONGEST) -> bytes:
        """The data so far of the event begun."""
        data = _data_of(self._lines.peek(longest))
        so_far = self._data if data is None else [*self._data, data]
        return b"\n".join(so_far) if self._size <= longest else b""


class Blocks:
    """Payloads of ``size`` bytes each, whatever is in them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._rest = bytearray()

    def split(self, chunk: bytes) -> list[bytes]:
        """The blocks that this chunk completes."""
        self._rest += chunk
        blocks = []
        while len(self._rest) >= self._size:
            blocks.append(bytes(self._rest[: self._size]))
            del self._rest[: self._size]
        return blocks

    def peek(self, longest: int = LONGEST) -> bytes:
        """The block begun."""
        return bytes(self._rest[:longest])


class Nothing:
    """No payloads at all."""

    def split(self, _: bytes) -> list[bytes]:
        """Never any."""
        return []

    def peek(self, longest: int = LONGEST) -> bytes:  # noqa: ARG002  there is nothing
        """Empty."""
        return b""


def _whole_event(chunk: bytes) -> bytes | None:
    """The data, if the chunk is one event with one line of it, as most chunks of most servers are."""
    lines = chunk.partition(b"\n")[2] if chunk.startswith(b"event: ") else chunk
    ends_once = lines.endswith(b"\n\n") and lines.count(b"\n") == 2  # noqa: PLR2004  the two at the end
    return lines[6:-2] if ends_once and lines.startswith(b"data: ") and b"\r" not in chunk else None


def _data_of(line: bytes) -> bytes | None:
    """What follows ``data:``; None on a blank line, a comment, or another field."""
    line = line.removeprefix(_BOM)
    if line.startswith(b"data: "):
        return line[6:]
    if line.startswith(b"data:"):
        return line[5:]
    return b"" if line == b"data" else None
