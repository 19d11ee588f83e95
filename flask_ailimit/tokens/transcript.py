"""What a stream said, counted as late as possible and in bounded memory."""

from collections.abc import Callable
from typing import Final

from .counter import TokenCounter

PAYLOADS_KEPT: Final = 256 * 1024
"""Bytes of payloads kept before they are decoded. Most streams end below it, with a report that makes it needless."""

TEXT_KEPT: Final = 16 * 1024
"""Characters of text kept before they are counted."""


class Transcript:
    """Collects payloads and counts the tokens of their text.

    Args:
        counter: Counts the text.
        read_text: The text in one payload; is called once for each, in order.
    """

    def __init__(self, counter: TokenCounter, read_text: Callable[[bytes], str]) -> None:
        self._counter = counter
        self._read_text = read_text
        self._payloads: list[bytes] = []
        self._payloads_size = 0
        self._text: list[str] = []
        self._text_size = 0
        self._counted = 0

    def add(self, payload: bytes) -> None:
        """Take the next payload."""
        self._payloads.append(payload)
        self._payloads_size += len(payload)
        if self._payloads_size > PAYLOADS_KEPT:
            self._decode()

    def tokens(self, unfinished: str = "") -> int:
        """Tokens of the text so far, with an unfinished text after it."""
        self._decode()
        return self._counted + self._counter("".join(self._text) + unfinished)

    def _decode(self) -> None:
        # Taken out first: another thread may ask while this one decodes.
        payloads, self._payloads, self._payloads_size = self._payloads, [], 0
        for payload in payloads:
            text = self._read_text(payload)
            self._text.append(text)
            self._text_size += len(text)
            if self._text_size > TEXT_KEPT:
                pieces, self._text, self._text_size = self._text, [], 0
                self._counted += self._counter("".join(pieces))
