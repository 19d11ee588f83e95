"""The estimator against the same weights written plainly: one regular expression for each thing that costs."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_prose import PROSE
from token_texts import HOSTILE, STRUCTURED

from flask_ailimit.tokens import open_counter
from flask_ailimit.tokens.scripts import PRICE_UNITS, foreign_prices

LETTER = r"[A-Za-z\u00c0-\u027f]"
CONSONANT, VOWEL = "[b-df-hj-np-tv-xzB-DF-HJ-NP-TV-XZ]", "[aeiouyAEIOUY]"
WEIGHTS = {
    LETTER: 26,
    LETTER + "+": 36,
    CONSONANT + "{2}": 9,
    CONSONANT + "{3}": 21,
    VOWEL + "{3}": 20,
    r"(?<=[a-z\u00c0-\u027f])[A-Z]": 65,
    "[A-Z]{2}": 18,
    r"[!-/:-@\[-`{-~\n\t]": 64,
    r"[\x00-\x08\x0b-\x1f\x7f]": 130,
    "[0-9]{1,3}": 97,
    " [0-9]": 30,
    "  ": 30,
    "[jJxXzZ]": 22,
    "[qQ]": 36,
    r"[^\x00-\x7f]+": 15,
}
"""Hundredths of a token for each match."""

PIECES = (
    *("----", "=" * 16, "#" * 5, "." * 4, "\t" * 4, "\n" * 4, " " * 8, " " * 9, "  ", " ", "\r\n", "\r", "\x00"),
    *("Hello", "world", "API", "camelCase", "strengths", "aeiou", "jqxz", "JQXZ", "A", "a", "I'm", "1", "12345", " 67"),
    *("é", "ñandú", "ɏ", "\u0280", "я", "漢字", "한국", "😀", "\ud800", "\xa0" * 8, "─" * 17, "—" * 8, "…", "!", "_"),
)


def weighed(text):
    """Of a text shorter than the estimator's slices."""
    for character in "─━═—…\xa0":
        text = text.replace(character * 8, character)
    prices = sum(ord(foreign_prices()[ord(character)]) for character in text if character > "\x7f")
    for character in "-=*#_.~!+/\n\t":
        text = text.replace(character * 4, character).replace(character * 4, character)
    # A space in front, so that what begins the text begins like any other.
    spaced = " " + text.replace(" " * 8, " ").replace("\r\n", "\n")
    weight = sum(weight * len(re.findall(pattern, spaced)) for pattern, weight in WEIGHTS.items())
    return -(-(prices * 100 // PRICE_UNITS + weight) // 100) if text else 0


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=20).map("".join))
def test_any_text_costs_what_the_weights_say(text):
    assert open_counter()(text) == weighed(text)


@pytest.mark.parametrize(
    "text", [*PROSE.values(), *STRUCTURED.values(), *HOSTILE.values()], ids=[*PROSE, *STRUCTURED, *HOSTILE]
)
def test_texts_of_many_kinds_cost_what_the_weights_say(text):
    assert open_counter()(text[:16_384]) == weighed(text[:16_384])
