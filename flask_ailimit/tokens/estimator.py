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
_ALL = bytes(range(256))
_ASCII = bytes(range(0x80))
_CONTINUATIONS = bytes(range(0x80, 0xC0))
_LATIN_LEADS = bytes(range(0xC3, 0xCA)).decode("latin-1")

# One kind for each character of a UTF-8 text whose continuation bytes are left out.
_SOUNDS = _kinds(
    {
        "v": _VOWELS + _VOWELS.upper(),
        "c": _CONSONANTS + _CONSONANTS.upper(),
        "e": _LATIN_LEADS,
        "1": string.digits,
        " ": " ",
    },
    other="f",
)
_CASES = _kinds({"a": string.ascii_lowercase + _LATIN_LEADS, "A": string.ascii_uppercase}, other=" ")
_CAPITAL_RUNS = _kinds({"A": "A"}, other=" ")
_DIGIT_RUNS = _kinds({"1": "1"}, other=" ")
_FOREIGN = b" " * 0xC0 + b"f" * 0x40

_LETTERS = (string.ascii_letters + _LATIN_LEADS).encode("latin-1")
_CAPITALS = string.ascii_uppercase.encode()
_RARE_LETTER_WEIGHTS = ((b"j", 22), (b"q", 36), (b"x", 22), (b"z", 22))
_RARE_LETTERS = b"".join(letter for letter, _ in _RARE_LETTER_WEIGHTS)
# Most of a prose. The passes that want none of it look at the rest, which is short.
_COMMON_LETTERS = _LETTERS.translate(None, _CAPITALS + _RARE_LETTERS)
_NO_LETTERS = _ALL.translate(None, _LETTERS)
_NO_CAPITALS = _ALL.translate(None, _CAPITALS)
_NO_SIGNS = _ALL.translate(None, (string.punctuation + _CONTROLS).encode())
_NO_CONTROLS = _ALL.translate(None, _CONTROLS.encode()) + b"\n\t"

# Hundredths of a token for each time the pattern occurs, without overlap.
_SOUND_WEIGHTS = ((b"cc", 9), (b"ccc", 21), (b"vvv", 20), (b"  ", 30))
_LETTER_WEIGHT = 26
_WORD_WEIGHT = 36
_INNER_CAPITAL_WEIGHT = 65
_CAPITAL_PAIR_WEIGHT = 18
_SIGN_WEIGHT = 64
_CONTROL_WEIGHT = 130
_DIGITS_WEIGHT = 97
_DIGITS_AFTER_SPACE_WEIGHT = 30
_FOREIGN_RUN_WEIGHT = 15

# What people draw lines and make room with; a vocabulary has tokens for long runs of it.
_RULE = 4
_RULES = tuple(character.encode() * _RULE for character in "-=*#_.~!+/\n\t")
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
    rest = data.translate(None, _COMMON_LETTERS)
    rest_letters = rest.translate(None, _NO_LETTERS)
    letters = len(data) - len(rest) + len(rest_letters)
    capitals = len(rest_letters.translate(None, _NO_CAPITALS))
    signs = rest.translate(None, _NO_SIGNS)
    short = _without_rules(data, signs)
    if len(short) < len(data):
        signs = short.translate(None, _NO_SIGNS)
    return (
        price
        + _LETTER_WEIGHT * letters
        + _weigh(rest_letters.lower(), _RARE_LETTER_WEIGHTS)
        + _sign_price(signs)
        + _word_price(short, capitals)
        + _sound_price(short)
    )


def _without_rules(data: bytes, signs: bytes) -> bytes:
    for rule in _RULES if len(signs) >= _RULE else ():
        if rule in signs:
            data = data.replace(rule, rule[:1]).replace(rule, rule[:1])
    return data.replace(b"\r\n", b"\n") if b"\r" in signs else data


def _sign_price(signs: bytes) -> int:
    controls = len(signs.translate(None, _NO_CONTROLS))
    return _SIGN_WEIGHT * (len(signs) - controls) + _CONTROL_WEIGHT * controls


def _word_price(data: bytes, capitals: int) -> int:
    # The space in front makes a word at the very beginning begin like any other.
    cases = b" " + data.translate(_CASES, _CONTINUATIONS)
    capitalized = cases.count(b" A")
    price = _WORD_WEIGHT * (cases.count(b" a") + capitalized)
    if capitals > capitalized:
        runs = cases.translate(_CAPITAL_RUNS).split()
        price += _INNER_CAPITAL_WEIGHT * (len(runs) - capitalized)
        price += _CAPITAL_PAIR_WEIGHT * b" ".join(runs).count(b"AA")
    return price


def _sound_price(data: bytes) -> int:
    sounds = b" " + data.translate(_SOUNDS, _CONTINUATIONS).replace(_MARGIN, b" ")
    price = _weigh(sounds, _SOUND_WEIGHTS)
    if b"1" in sounds:
        runs = sounds.translate(_DIGIT_RUNS).split()
        price += _DIGITS_WEIGHT * _digit_groups(b" ".join(runs))
        price += _DIGITS_AFTER_SPACE_WEIGHT * sounds.count(b" 1")
    return price


def _weigh(data: bytes, weights: tuple[tuple[bytes, int], ...]) -> int:
    return sum([weight * data.count(pattern) for pattern, weight in weights])


def _digit_groups(runs: bytes) -> int:
    # o200k_base and cl100k_base cut numbers into groups of up to three digits, each of them a token.
    rest = runs.replace(b"111", b"#")
    full_groups = (len(runs) - len(rest)) // 2
    return runs.count(b"1") - 2 * full_groups - rest.count(b"11")


def _foreign_price(data: bytes) -> int:
    foreign = data.translate(None, _ASCII)
    for rule in _FOREIGN_RULES:
        if rule in foreign:
            data = data.replace(rule, rule[: len(rule) // 8])
            foreign = data.translate(None, _ASCII)
    prices = foreign.decode("utf-8", "surrogatepass").translate(foreign_prices()).encode("latin-1")
    runs = data.translate(_FOREIGN, _CONTINUATIONS).split()
    return sum(prices) * _HUNDREDTHS // PRICE_UNITS + _FOREIGN_RUN_WEIGHT * len(runs)
