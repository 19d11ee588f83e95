"""Doubt about a body whose kind was told by its first bytes, and not by its mimetype: prose may begin like events."""

import re
from typing import Final

from .payload import decode_json
from .stream_format import Kind, may_begin_field

LONGEST_DOUBT: Final = 1024 * 1024
"""Bytes. A body is kept up to this size, to be read once more as text; what is longer has proved its kind."""

_MOST_BESIDE: Final = 256
"""Bytes that comments, names, ids and times of events may have more than the data: else prose could stand in these."""

_BOM = b"\xef\xbb\xbf"
_BREAK = re.compile(rb"\r\n|\n|\r")
_FIELD = re.compile(rb"(?:data|event|id|retry)?(?::|\Z)")
_LONGEST_NAME = len(b"event:")


class Doubt:
    """Keeps what has come, and tells when a line comes that the kind does not have.

    What it tells depends on the bytes alone, and not on the chunks.

    Args:
        kind: Events or lines.

    Attributes:
        body: All that has come, without a limit: the owner lets go of it.
    """

    def __init__(self, kind: Kind) -> None:
        self._events = kind is Kind.EVENTS
        self._looked_at = 0  # Where the line begins that has not ended.
        self._beside = 0
        self._last = b""
        self.body = bytearray()

    def refutes(self, piece: bytes) -> bool:
        """Take the next piece. Answers whether it shows that the body is text."""
        self.body += piece
        if b"\n" in piece or b"\r" in piece:
            *lines, begun = _BREAK.split(self.body[self._looked_at :])
            self._looked_at = len(self.body) - len(begun)
            if not all(map(self._may_be, map(bytes, lines))):
                return True
        return not self._may_begin(bytes(self.body[self._looked_at : self._looked_at + _LONGEST_NAME + len(_BOM)]))

    def ends_otherwise(self) -> bool:
        """Whether the line that has not ended shows that the body is text, if nothing more comes."""
        beside, last = self._beside, self._last
        may_be = self._may_be(bytes(self.body[self._looked_at :]))
        self._beside, self._last = beside, last
        return not may_be

    def _may_be(self, line: bytes) -> bool:
        line = line.removeprefix(_BOM)
        if not self._events:
            return not line.strip() or isinstance(decode_json(line.decode("utf-8", "replace")), dict | list)
        if line.startswith(b"data"):
            self._beside -= len(line)
        elif line != self._last:  # A ping that is repeated is no prose.
            self._beside += len(line.strip(b": "))
            self._last = line or self._last
        return self._beside <= _MOST_BESIDE and (not line or _FIELD.match(line) is not None)

    def _may_begin(self, start: bytes) -> bool:
        """Whether a line of the kind may begin so."""
        if not start or _BOM.startswith(start):
            return True
        start = start.removeprefix(_BOM)
        if self._events:
            return may_begin_field(start)
        return start.lstrip()[:1] in (b"", b"{", b"[")
