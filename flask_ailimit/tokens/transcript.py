"""What was said in an answer, counted as late as possible and in bounded memory."""

from typing import Final

from .counter import TokenCounter, octets_of
from .payload import events_text

PAYLOADS_KEPT: Final = 256 * 1024
"""Bytes of payloads kept before they are decoded. Most streams end below it."""

TEXT_KEPT: Final = 16 * 1024
"""Characters of text kept before they are counted."""

_MOST_PENDING = 1024 * 1024  # Characters covered by reports that wait to be counted, in case the reports are too low.


class _Text:
    """A text of which all but the end is counted already. It is cut at every 16 K, however it comes."""

    def __init__(self) -> None:
        self.characters = 0
        self.octets = 0
        self.counted = 0
        self.pieces: list[str] = []
        self.pending = 0

    def keep(self, text: str) -> None:
        self.characters += len(text)
        self.octets += octets_of(text)
        self.pieces.append(text)
        self.pending += len(text)

    def add(self, text: str, counter: TokenCounter) -> None:
        self.keep(text)
        if self.pending > TEXT_KEPT:
            whole = "".join(self.pieces)
            end = self.pending - self.pending % TEXT_KEPT
            self.pieces, self.pending = [whole[end:]], self.pending - end
            self.counted += sum(counter(whole[start : start + TEXT_KEPT]) for start in range(0, end, TEXT_KEPT))

    def tokens(self, counter: TokenCounter) -> int:
        return self.counted + (counter("".join(self.pieces)) if self.pending else 0)

    def append(self, later: "_Text") -> None:
        self.characters += later.characters
        self.octets += later.octets
        self.counted += later.counted
        self.pieces += later.pieces
        self.pending += later.pending


class Transcript:
    """Collects payloads of events and text, and counts the tokens of the text.

    It can be marked where a report came, so that what follows is counted apart.

    Args:
        counter: Counts the text. What it raises is raised by :meth:`tokens` and :meth:`tokens_since`, and by nothing
            else.
    """

    def __init__(self, counter: TokenCounter) -> None:
        self._counter = counter
        self._payloads: list[bytes] = []
        self._payloads_size = 0
        self._before = _Text()
        self._since = _Text()
        self._error: Exception | None = None

    def add(self, payload: bytes) -> None:
        """Take the next payload, to be decoded later."""
        self._payloads.append(payload)
        self._payloads_size += len(payload)
        if self._payloads_size > PAYLOADS_KEPT:
            self._decode()

    def add_all(self, payloads: list[bytes]) -> None:
        """Take the next payloads, to be decoded later."""
        self._payloads += payloads
        self._payloads_size += sum(map(len, payloads))
        if self._payloads_size > PAYLOADS_KEPT:
            self._decode()

    def add_text(self, text: str) -> None:
        """Take the next text."""
        self._decode()
        self._collect(text)

    def add_whole(self, text: str) -> None:
        """Take a text that is whole, and is counted in one."""
        self._decode()
        self._since.keep(text)

    def mark(self) -> None:
        """Everything so far is covered by a report."""
        self._decode()
        if self._since.characters:
            since, self._since = self._since, _Text()
            self._before.append(since)
            if self._before.pending > _MOST_PENDING:
                self._guarded(self._before, "")

    @property
    def characters(self) -> int:
        """How long the text so far is."""
        self._decode()
        return self._before.characters + self._since.characters

    @property
    def octets(self) -> int:
        """How many bytes the text so far has in UTF-8."""
        self._decode()
        return self._before.octets + self._since.octets

    @property
    def characters_since(self) -> int:
        """How long the text after the mark is."""
        self._decode()
        return self._since.characters

    def tokens(self) -> int:
        """Tokens of the text so far. Raises whatever the counter raised."""
        return self._tokens(self._before) + self.tokens_since()

    def tokens_since(self) -> int:
        """Tokens of the text after the mark. Raises whatever the counter raised."""
        self._decode()
        return self._tokens(self._since)

    def _tokens(self, text: _Text) -> int:
        if self._error is not None:
            raise self._error
        return text.tokens(self._counter)

    def _decode(self) -> None:
        # Taken out first: another thread may ask while this one decodes.
        payloads, self._payloads, self._payloads_size = self._payloads, [], 0
        if payloads:
            self._collect(events_text(payloads))

    def _collect(self, text: str) -> None:
        if text:
            self._guarded(self._since, text)

    def _guarded(self, part: _Text, text: str) -> None:
        try:
            part.add(text, self._counter)
        except Exception as error:  # noqa: BLE001  an app's own counter; a stream must not break for it
            self._error = error
