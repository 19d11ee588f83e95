"""Counting tokens without a tokenizer, in linear time and without a dependency.

A text is turned into kinds of characters (vowel, consonant, capital, digit, punctuation, ...), one byte each, and
the estimate is a weighted count of what stands next to what: so much for each word begun, each letter, each cluster
of consonants, each change from small letters to capitals. Prose of most languages comes out a little above its true
count, and letters at random, for which a vocabulary has no long pieces, come out higher. Characters outside ASCII
have a price by script (:mod:`flask_ailimit.tokens.scripts`).

The weights were fitted to o200k_base: the least over-count of prose in some 70 languages, of source code, JSON and
mark-up, on the condition that no kind of hostile text counts much below 0.6 of its tokens. ``docs/tokens.md`` has the
figures.
"""

import string
from typing import Final

from .scripts import PRICE_UNITS, foreign_prices

SLICE: Final = 16_384
"""Characters looked at in one go, well below a millisecond's work, after which other threads get their turn."""

_HUNDREDTHS = 100


def _kinds(members: dict[str, str], other: str) -> bytes:
    table = bytearray(other.encode() * 256)
    for kind, characters in members.items():
        for byte in characters.encode("latin-1"):
            table[byte] = ord(kind)
    return bytes(table)


_VOWELS, _CONSONANTS = "aeiouy", "bcdfghjklmnpqrstvwxz"
_CONTROLS = bytes(range(32)).decode() + "\x7f"
_ASCII = bytes(range(0x80))
_CONTINUATIONS = bytes(range(0x80, 0xC0))
_LATIN_LEADS = bytes(range(0xC3, 0xCA)).decode("latin-1")

# One kind for each character of a UTF-8 text whose continuation bytes are left out.
_KINDS = _kinds(
    {
        "v": _VOWELS,
        "V": _VOWELS.upper(),
        "c": _CONSONANTS,
        "C": _CONSONANTS.upper(),
        "e": _LATIN_LEADS,
        "1": string.digits,
        "!": string.punctuation,
        "x": _CONTROLS,
        "n": "\n\t",
        " ": " ",
    },
    other="f",
)
_CASES = _kinds({"a": "vce", "A": "VC"}, other=" ")
_FOREIGN = b" " * 0xC0 + b"f" * 0x40

# Hundredths of a token for each time the pattern occurs, without overlap.
_SOUND_WEIGHTS = (
    (b"cc", 9),
    (b"ccc", 21),
    (b"vvv", 20),
    (b"!", 64),
    (b"n", 64),
    (b"x", 130),
    (b"  ", 30),
    (b" 1", 30),
)
_CASE_WEIGHTS = ((b"a", 26), (b"A", 26), (b" a", 36), (b" A", 36), (b"aA", 65), (b"AA", 18))
_RARE_LETTER_WEIGHTS = ((b"j", 22), (b"q", 36), (b"x", 22), (b"z", 22))
_DIGITS_WEIGHT = 97
_FOREIGN_RUN_WEIGHT = 15

# What people draw lines and make room with; a vocabulary has tokens for long runs of it.
_RULES = tuple(character.encode() * 4 for character in "-=*#_.~!+/\n\t")
_MARGIN = b" " * 8
_FOREIGN_RULES = tuple(character.encode() * 8 for character in "─━═—…\xa0")


class Estimator:
    """Estimates a text's tokens from its characters. The default counter."""

    exact = False

    def __init__(self) -> None:
        foreign_prices()  # Made here, in 20 ms, and not at the first request.

    def __call__(self, text: str) -> int:
        """Tokens the text is likely to have: 0 for the empty text, else at least 1. Never raises."""
        hundredths = sum(_price(text[start : start + SLICE]) for start in range(0, len(text), SLICE))
        return -(-hundredths // _HUNDREDTHS)


def _price(text: str) -> int:
    data = text.encode("utf-8", "surrogatepass")
    price = 0 if text.isascii() else _foreign_price(data)
    data = _without_rules(data).replace(b"\r\n", b"\n")
    # The space in front makes a word at the very beginning begin like any other.
    kinds = b" " + data.translate(_KINDS, _CONTINUATIONS)
    return (
        price
        + _weigh(kinds.lower(), _SOUND_WEIGHTS)
        + _weigh(kinds.translate(_CASES), _CASE_WEIGHTS)
        + _weigh(data.lower(), _RARE_LETTER_WEIGHTS)
        + _DIGITS_WEIGHT * _digit_groups(kinds)
    )


def _without_rules(data: bytes) -> bytes:
    for rule in _RULES:
        size = len(data)
        data = data.replace(rule, rule[:1])
        if len(data) < size:
            data = data.replace(rule, rule[:1])
    return data.replace(_MARGIN, b" ")


def _weigh(data: bytes, weights: tuple[tuple[bytes, int], ...]) -> int:
    return sum([weight * data.count(pattern) for pattern, weight in weights])


def _digit_groups(kinds: bytes) -> int:
    # o200k_base and cl100k_base cut numbers into groups of up to three digits, each of them a token.
    digits = kinds.count(b"1")
    if not digits:
        return 0
    rest = kinds.replace(b"111", b"#")
    full_groups = (len(kinds) - len(rest)) // 2
    return digits - 2 * full_groups - rest.count(b"11")


def _foreign_price(data: bytes) -> int:
    for rule in _FOREIGN_RULES:
        data = data.replace(rule, rule[: len(rule) // 8])
    foreign = data.translate(None, _ASCII).decode("utf-8", "surrogatepass")
    prices = foreign.translate(foreign_prices()).encode("latin-1")
    kinds = b" " + data.translate(_FOREIGN, _CONTINUATIONS)
    return sum(prices) * _HUNDREDTHS // PRICE_UNITS + _FOREIGN_RUN_WEIGHT * kinds.count(b" f")
