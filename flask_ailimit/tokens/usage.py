"""What a request used, in tokens."""

from dataclasses import dataclass
from typing import Final, Self

from flask_ailimit.engine.quota import INPUT_TOKENS, OUTPUT_TOKENS, TOKENS

MAX_TOKENS: Final = 2**53 - 1
"""The largest count: up to here an integer is exact in every store, Lua's doubles included."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that went in and came out.

    Attributes:
        input_tokens: Tokens of the prompt, those read from a cache included.
        output_tokens: Tokens generated, reasoning included.
        cached_input_tokens: How many of the input tokens were read from a prompt cache.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0

    @classmethod
    def checked(cls, input_tokens: object = 0, output_tokens: object = 0, cached_input_tokens: object = 0) -> Self:
        """The usage, if the values can be one.

        Raises:
            ValueError: A value is not a whole number from 0 to 2**53 - 1 (a bool, a float and NaN are none), the
                sum of input and output is larger than that, or more input was cached than there was.
        """
        usage = cls(
            _count("input_tokens", input_tokens),
            _count("output_tokens", output_tokens),
            _count("cached_input_tokens", cached_input_tokens),
        )
        if usage.total_tokens > MAX_TOKENS:
            raise ValueError(f"input_tokens + output_tokens: at most {MAX_TOKENS} together.")
        if usage.cached_input_tokens > usage.input_tokens:
            raise ValueError(
                "cached_input_tokens: a part of input_tokens, so it can't be larger. "
                f"Got {usage.cached_input_tokens} of {usage.input_tokens}."
            )
        return usage

    def __add__(self, other: "Usage") -> "Usage":
        """Both together, as when an agent calls its model several times. Stays within 2**53 - 1."""
        return Usage.clamped(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
        )

    @classmethod
    def clamped(cls, input_tokens: int, output_tokens: int, cached_input_tokens: int = 0) -> Self:
        """The usage, cut so that the total is at most 2**53 - 1; for whole numbers from 0 that may be larger."""
        inputs = min(input_tokens, MAX_TOKENS)
        return cls(inputs, min(output_tokens, MAX_TOKENS - inputs), min(cached_input_tokens, inputs))

    def without_cached(self) -> "Usage":
        """The same, less the input that was read from a cache."""
        return Usage(self.input_tokens - self.cached_input_tokens, self.output_tokens)

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def of(self, unit: str) -> int:
        """What a quota of this unit is charged: ``tokens``, ``input_tokens`` or ``output_tokens``.

        Raises:
            ValueError: The unit counts something else.
        """
        if unit == TOKENS:
            return self.total_tokens
        if unit == INPUT_TOKENS:
            return self.input_tokens
        if unit == OUTPUT_TOKENS:
            return self.output_tokens
        raise ValueError(f"unit: use {TOKENS!r}, {INPUT_TOKENS!r} or {OUTPUT_TOKENS!r}. Got {unit!r:.40}.")


def _count(name: str, value: object) -> int:
    if type(value) is int and 0 <= value <= MAX_TOKENS:
        return value
    # It may be anything, a text with a secret in it included; only a number of usual size is shown.
    shown = repr(value) if type(value) is int and abs(value) < MAX_TOKENS else type(value).__name__
    raise ValueError(f"{name}: a whole number of tokens from 0 to {MAX_TOKENS} is needed. Got {shown}.")
