"""How much a token of each kind counts for in a limit on tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final, Self

from flask_ailimit.engine import ConfigurationError
from flask_ailimit.engine.quota import INPUT_TOKENS, MAX_EXACT, OUTPUT_TOKENS, TOKENS
from flask_ailimit.tokens import Usage

from .factors import read_factor
from .per_token import TOKEN_KINDS, PerToken

MOST_WEIGHT: Final = 1000

_SUFFIX = "_tokens"


@dataclass(frozen=True)
class Weights:
    """Factors by kind of token. Immutable and hashable.

    A kind without a factor weighs what the kind that it is a part of weighs; input and output weigh 1. Each token
    counts once: cached input is a part of the input, and weighs what cached input weighs.

    Attributes:
        factors: The factors that were given, by the name of the field of :class:`flask_ailimit.tokens.Usage`, sorted.
    """

    factors: tuple[tuple[str, Fraction], ...] = ()
    _per_token: PerToken = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given = {kind: Fraction(1) for kind in ("input", "output")}
        given |= {name.removesuffix(_SUFFIX): factor for name, factor in self.factors}
        object.__setattr__(self, "_per_token", PerToken(given))

    @classmethod
    def of(cls, table: object) -> Self:
        """Read a table such as ``{"cached_input_tokens": 0.1, "output_tokens": 5}``. Its numbers are read as written.

        Raises:
            ConfigurationError: It is no table, a key is no kind of token, or a factor is no number from 0 to 1000.
        """
        if not isinstance(table, Mapping):
            raise ConfigurationError(
                "weights: a table of factors is needed, such as { cached_input_tokens = 0.1, output_tokens = 5 }. "
                f"Got {type(table).__name__}."
            )
        return cls(tuple(sorted((_kind(name), _factor(name, value)) for name, value in table.items())))

    def weigh(self, usage: Usage, unit: str) -> int:
        """What a usage counts for in a limit on ``tokens``, ``input_tokens`` or ``output_tokens``.

        Returns:
            Whole tokens, rounded up once, at most 2**53 - 1.

        Raises:
            ValueError: The unit counts something else.
        """
        if not self.factors:
            return usage.of(unit)
        per_token = self._per_token
        if unit == TOKENS:
            total = per_token.input_sum(usage) + per_token.output_sum(usage)
        elif unit == INPUT_TOKENS:
            total = per_token.input_sum(usage)
        elif unit == OUTPUT_TOKENS:
            total = per_token.output_sum(usage)
        else:
            return usage.of(unit)
        return min(-(-total // per_token.denominator), MAX_EXACT)


WEIGHED: Final = tuple(kind + _SUFFIX for kind in TOKEN_KINDS)
"""The names of the factors."""


def _kind(name: Any) -> str:
    if name not in WEIGHED:
        raise ConfigurationError(f"weights: {name!r:.40} is no kind of token. Write one of {', '.join(WEIGHED)}.")
    return str(name)


def _factor(name: str, value: Any) -> Fraction:
    try:
        return read_factor(value, MOST_WEIGHT)
    except ConfigurationError as error:
        raise ConfigurationError(f"weights: {name}: {error}") from None
