"""What each kind of token counts for, as exact fractions, summed in integers.

Prices and weights are both such a sum: so much for each token of the input and of the output, and something else for
some parts of them. Each token counts once, as the part that it belongs to.
"""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import lcm
from types import MappingProxyType
from typing import Final

from flask_ailimit.tokens import Usage

INPUT: Final = "input"
OUTPUT: Final = "output"

PARENTS: Final = MappingProxyType(
    {
        "cached_input": INPUT,
        "cache_write": INPUT,
        "cache_write_1h": "cache_write",
        "audio_input": INPUT,
        "image_input": INPUT,
        "reasoning": OUTPUT,
        "audio_output": OUTPUT,
        "image_output": OUTPUT,
    }
)
"""A kind that has no number of its own has that of this kind. A parent stands before its children."""

TOKEN_KINDS: Final = (INPUT, OUTPUT, *PARENTS)
"""The kinds of tokens. The field of :class:`flask_ailimit.tokens.Usage` is the kind with ``_tokens``."""


class PerToken:
    """So much for each token, by kind. Immutable.

    Where the parts of a usage are more than their whole, some tokens belong to two of them, as sound that was read from
    a cache does. Then no more tokens are taken for such than must be, and each counts as the part that is worth more.
    So parts that are too large never make the sum smaller than parts that fit.

    Attributes:
        denominator: What the sums are to be divided by.

    Args:
        given: The numbers, from 0, by kind. Input and output must be among them.
    """

    __slots__ = ("_differences", "_input", "_numerators", "_output", "denominator")

    def __init__(self, given: Mapping[str, Fraction]) -> None:
        resolved = dict(given)
        for kind, parent in PARENTS.items():
            resolved.setdefault(kind, resolved[parent])
        self.denominator = lcm(*(number.denominator for number in resolved.values()))
        numerators = {kind: int(number * self.denominator) for kind, number in resolved.items()}
        self._input, self._output = numerators[INPUT], numerators[OUTPUT]
        self._numerators = tuple(numerators[kind] for kind in PARENTS)
        wholes = [self._input] * _OF_INPUT + [self._output] * (len(PARENTS) - _OF_INPUT)
        self._differences = tuple(map(int.__sub__, self._numerators, wholes))

    def input_sum(self, usage: Usage) -> int:
        """The sum over the input, times the denominator."""
        whole = usage.input_tokens
        cached, written, hour = usage.cached_input_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens
        sound, pictures = usage.audio_input_tokens, usage.image_input_tokens
        if cached + written + hour + sound + pictures > whole:
            parts = (cached, written, hour, sound, pictures)
            return _of_the_most_worth(whole, zip(self._numerators[:_OF_INPUT], parts, strict=True))
        of_cached, of_written, of_hour, of_sound, of_pictures = self._differences[:_OF_INPUT]
        more = cached * of_cached + written * of_written + hour * of_hour + sound * of_sound + pictures * of_pictures
        return whole * self._input + more

    def output_sum(self, usage: Usage) -> int:
        """The sum over the output, times the denominator."""
        whole = usage.output_tokens
        thought, sound, pictures = usage.reasoning_tokens, usage.audio_output_tokens, usage.image_output_tokens
        if thought + sound + pictures > whole:
            parts = (thought, sound, pictures)
            return _of_the_most_worth(whole, zip(self._numerators[_OF_INPUT:], parts, strict=True))
        of_thought, of_sound, of_pictures = self._differences[_OF_INPUT:]
        return whole * self._output + thought * of_thought + sound * of_sound + pictures * of_pictures


_OF_INPUT: Final = 5
"""So many of the parts are parts of the input; they come first."""


def _of_the_most_worth(whole: int, parts: Iterable[tuple[int, int]]) -> int:
    total = 0
    for worth, count in sorted(parts, reverse=True):
        taken = min(count, whole)
        total, whole = total + taken * worth, whole - taken
    return total
