"""What a character outside ASCII is likely to cost in tokens, by its script.

A byte-level BPE vocabulary holds the common syllables of the big scripts and nothing of the small ones. A character
that no merge reaches costs up to one token per UTF-8 byte. The prices below were measured against o200k_base, on
prose and on random text of each script; they lie between the two, so that prose is not charged much too
high nor random text much too low.
"""

import sys
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache

PRICE_UNITS = 50
"""Prices are whole numbers of 1/50 token, so that each fits in one byte."""

_TWO_BYTES, _THREE_BYTES, _FOUR_BYTES = 80, 115, 145
_COMMON_HAN, _COMMON_HANGUL = 55, 50

_EUC_CELLS = range(0xA1, 0xFF)
_BIG5_CELLS = (*range(0x40, 0x7F), *range(0xA1, 0xFF))

_PRICES: tuple[tuple[int, int, int], ...] = (
    # first, last, price
    (0x00A0, 0x00BF, 50),  # Latin-1 signs
    (0x00C0, 0x00FF, 23),  # Western European letters
    (0x0100, 0x017F, 32),  # Central European letters
    (0x0180, 0x024F, 54),
    (0x01A0, 0x01A1, 32),  # Vietnamese o with horn
    (0x01AF, 0x01B0, 32),  # Vietnamese u with horn
    (0x0386, 0x03CE, 31),  # Greek
    (0x0400, 0x040F, 40),
    (0x0410, 0x045F, 25),  # Cyrillic
    (0x048A, 0x04FF, 32),  # Cyrillic of Central Asia
    (0x0531, 0x0556, 50),  # Armenian capitals
    (0x0561, 0x0587, 30),  # Armenian
    (0x05D0, 0x05EA, 28),  # Hebrew
    (0x060C, 0x061F, 45),  # Arabic punctuation
    (0x0621, 0x064A, 26),  # Arabic
    (0x064B, 0x06FF, 46),  # Arabic marks, Persian, Urdu, Uyghur
    (0x0901, 0x094D, 28),  # Devanagari
    (0x0964, 0x096F, 60),
    *((block + 0x01, block + 0x4D, 31) for block in range(0x0980, 0x0E00, 0x80)),  # Bengali to Sinhala
    *((block + 0x4E, block + 0x7F, 80) for block in range(0x0980, 0x0E00, 0x80)),
    (0x0E01, 0x0E4F, 32),  # Thai
    (0x0E50, 0x0E59, 60),
    (0x0E81, 0x0EDF, 75),  # Lao
    (0x0F00, 0x0FBC, 90),  # Tibetan
    (0x1000, 0x104F, 50),  # Myanmar
    (0x10D0, 0x10F0, 29),  # Georgian
    (0x1200, 0x137F, 80),  # Ethiopic
    (0x1780, 0x17D3, 39),  # Khmer
    (0x1EA0, 0x1EF9, 50),  # Vietnamese
    (0x1F00, 0x1FFF, 80),  # Polytonic Greek
    (0x200B, 0x200D, 42),  # Zero-width space and joiners
    (0x2010, 0x2026, 45),  # Dashes, quotation marks, ellipsis
    (0x2030, 0x203F, 70),
    (0x2070, 0x22FF, 72),  # Superscripts, currencies, arrows, mathematics
    (0x2300, 0x23FF, 100),
    (0x2400, 0x24FF, 80),
    (0x2500, 0x25FF, 65),  # Box drawing
    (0x2600, 0x27BF, 72),
    (0x3000, 0x3002, 45),  # Ideographic space, comma, full stop
    (0x3008, 0x3011, 55),
    (0x3041, 0x3096, 49),  # Hiragana
    (0x30A0, 0x30FF, 46),  # Katakana
    (0x3105, 0x318E, 75),
    (0x4E00, 0x9FFF, 80),  # Ideographs; the common ones are cheaper
    (0xAC00, 0xD7A3, 85),  # Hangul; the common ones are cheaper
    (0xFEFF, 0xFEFF, 50),  # Byte order mark
    (0xFF01, 0xFF5E, 55),  # Full-width forms
    (0xFF61, 0xFF9F, 75),
    (0x1F300, 0x1F64F, 70),  # Emoji
    (0x1F680, 0x1F6FF, 95),
    (0x1F900, 0x1FAFF, 100),
)


@cache
def foreign_prices() -> str:
    """A table for ``str.translate``: at each code point's index, a character whose code is the price.

    A code point that is unassigned, or of a script not listed, costs what its length in UTF-8 lets us fear.
    """
    prices = [_TWO_BYTES] * 0x800 + [_THREE_BYTES] * (0x10000 - 0x800) + [_FOUR_BYTES] * 0x10000
    for first, last, price in _PRICES:
        for code in range(first, last + 1):
            if unicodedata.category(chr(code)) != "Cn":
                prices[code] = price
    for character in common_ideographs():
        prices[ord(character)] = _COMMON_HAN
    for character in common_hangul():
        prices[ord(character)] = _COMMON_HANGUL
    return "".join(map(chr, prices)) + chr(_FOUR_BYTES) * (sys.maxunicode + 1 - len(prices))


def common_ideographs() -> frozenset[str]:
    """The first levels of GB 2312, Big5 and JIS X 0208: 3755, 5401 and 2965 ideographs in everyday use."""
    simplified = _decode("gb2312", range(0xB0, 0xD8), _EUC_CELLS)
    traditional = _decode("big5", range(0xA4, 0xC7), _BIG5_CELLS)
    japanese = _decode("euc_jp", range(0xB0, 0xD0), _EUC_CELLS)
    return frozenset(c for c in simplified + traditional + japanese if "\u4e00" <= c <= "\u9fff")


def common_hangul() -> frozenset[str]:
    """The 2350 syllables of KS X 1001, of the 11172 that Unicode has."""
    return frozenset(c for c in _decode("euc_kr", range(0xB0, 0xC9), _EUC_CELLS) if "\uac00" <= c <= "\ud7a3")


def _decode(charset: str, rows: Iterable[int], cells: Sequence[int]) -> str:
    return bytes(byte for row in rows for cell in cells for byte in (row, cell)).decode(charset, "ignore")
