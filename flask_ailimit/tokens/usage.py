"""What a request used, in tokens."""

from dataclasses import dataclass, fields
from typing import Any, Final, Self

from flask_ailimit.engine.quota import INPUT_TOKENS, OUTPUT_TOKENS, TOKENS

MAX_TOKENS: Final = 2**53 - 1
"""The largest count: up to here an integer is exact in every store, Lua's doubles included."""

LONGEST_TIER: Final = 32
"""Characters. A longer name of a service tier is none that a provider gives."""

_BY_CACHE: Final = ("cache_write_1h_tokens", "cache_write_tokens", "cached_input_tokens")
_BY_MODALITY: Final = ("image_input_tokens", "audio_input_tokens")
_OF_OUTPUT: Final = ("image_output_tokens", "audio_output_tokens", "reasoning_tokens")
_PARTS: Final = ((INPUT_TOKENS, _BY_CACHE), (INPUT_TOKENS, _BY_MODALITY), (OUTPUT_TOKENS, _OF_OUTPUT))
"""Kinds that have no token in common, and what they are parts of. Those that usually cost most come first."""

PARTS: Final = (*_BY_CACHE, *_BY_MODALITY, *_OF_OUTPUT)
"""The kinds that are a part of the input or of the output."""

COUNTS: Final = (INPUT_TOKENS, OUTPUT_TOKENS, *PARTS)
"""Every field of a usage that is a number."""


@dataclass(frozen=True, slots=True, repr=False)
class Usage:
    """Tokens that went in and came out. Each part is 0 where nobody said how large it is.

    Attributes:
        input_tokens: Tokens of the prompt, those read from a cache included.
        output_tokens: Tokens generated, reasoning included.
        cached_input_tokens: How many of the input tokens were read from a prompt cache.
        cache_write_tokens: How many of the input tokens were written to a prompt cache, for five minutes or for a time
            that nobody named. These, those of ``cache_write_1h_tokens`` and those that were read have none in common.
        cache_write_1h_tokens: How many of the input tokens were written to a prompt cache for an hour.
        audio_input_tokens: How many of the input tokens were sound; they may have been cached as well.
        image_input_tokens: How many of the input tokens were pictures; they may have been cached as well.
        reasoning_tokens: How many of the output tokens were reasoning.
        audio_output_tokens: How many of the output tokens were sound.
        image_output_tokens: How many of the output tokens were pictures.
        service_tier: The tier that the answer names, such as ``batch`` or ``priority``; "" if it names none.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    audio_input_tokens: int = 0
    image_input_tokens: int = 0
    reasoning_tokens: int = 0
    audio_output_tokens: int = 0
    image_output_tokens: int = 0
    service_tier: str = ""

    @classmethod
    def checked(
        cls,
        input_tokens: object = 0,
        output_tokens: object = 0,
        cached_input_tokens: object = 0,
        service_tier: object = "",
        **parts: object,
    ) -> Self:
        """The usage, if the values can be one.

        Args:
            input_tokens: As the attribute.
            output_tokens: As the attribute.
            cached_input_tokens: As the attribute.
            service_tier: As the attribute.
            **parts: The other attributes, by their names.

        Raises:
            ValueError: A value is not a whole number from 0 to 2**53 - 1 (a bool, a float and NaN are none), the
                sum of input and output is larger than that, parts that have nothing in common are more than their
                whole, such as more cached input than input, or the tier is no printable text of 0 to 32 characters.
            TypeError: A usage has no such attribute.
        """
        given = {"input_tokens": input_tokens, "output_tokens": output_tokens} | parts
        given["cached_input_tokens"] = cached_input_tokens
        counts = {name: _count(name, value) for name, value in given.items()}
        if not is_tier(service_tier):
            raise ValueError(f"service_tier: a text of 0 to {LONGEST_TIER} printable characters is needed.")
        usage = cls(**counts, service_tier=service_tier)  # type: ignore[arg-type]  # is_tier has told that it is a text
        if usage.total_tokens > MAX_TOKENS:
            raise ValueError(f"input_tokens + output_tokens: at most {MAX_TOKENS} together.")
        for whole, names in _PARTS:
            most, together = getattr(usage, whole), sum(getattr(usage, name) for name in names)
            if together > most:
                named = [name for name in names if getattr(usage, name)]
                what = "a part of" if len(named) == 1 else "together a part of"
                raise ValueError(
                    f"{' + '.join(named)}: {what} {whole}, so it can't be larger. Got {together} of {most}."
                )
        return usage

    def __add__(self, other: "Usage") -> "Usage":
        """Both together, as when an agent calls its model several times. Stays within 2**53 - 1.

        The tier is the later one that is named.
        """
        counts = {name: getattr(self, name) + getattr(other, name) for name in COUNTS}
        return Usage.clamped(**counts, service_tier=other.service_tier or self.service_tier)

    @classmethod
    def clamped(
        cls,
        input_tokens: int,
        output_tokens: int,
        cached_input_tokens: int = 0,
        service_tier: str = "",
        **parts: int,
    ) -> Self:
        """The usage, cut so that the total is at most 2**53 - 1 and no parts are more than their whole.

        Of parts that are together more than their whole, that which costs least is cut first: cached input before
        what was written to a cache.

        Args:
            input_tokens: As the attribute; this and all others may be any whole numbers from 0.
            output_tokens: As the attribute.
            cached_input_tokens: As the attribute.
            service_tier: As the attribute.
            **parts: The other attributes, by their names.
        """
        inputs = min(input_tokens, MAX_TOKENS)
        outputs = min(output_tokens, MAX_TOKENS - inputs)
        if not parts and not service_tier:  # Most usages.
            return cls(inputs, outputs, min(cached_input_tokens, inputs))
        parts["cached_input_tokens"] = cached_input_tokens
        for whole, names in _PARTS:
            left = inputs if whole == INPUT_TOKENS else outputs
            for name in names:
                parts[name] = min(parts.get(name, 0), left)
                left -= parts[name]
        return cls(inputs, outputs, **parts, service_tier=service_tier)

    def without_cached(self) -> "Usage":
        """The same, less the input that was read from a cache."""
        if not self.cached_input_tokens:
            return self
        counts = self.counts | {"input_tokens": self.input_tokens - self.cached_input_tokens, "cached_input_tokens": 0}
        return Usage.clamped(**counts, service_tier=self.service_tier)

    def beyond(self, before: "Usage") -> "Usage":
        """The tokens of each kind beyond those in ``before``; 0 where ``before`` has more."""
        counts = {name: max(0, getattr(self, name) - getattr(before, name)) for name in COUNTS}
        return Usage.clamped(**counts, service_tier=self.service_tier)

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    @property
    def counts(self) -> dict[str, int]:
        """The number of each kind, by the attributes' names."""
        return {name: getattr(self, name) for name in COUNTS}

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

    def __repr__(self) -> str:
        """All of what is always known, and of the rest what is there."""
        shown: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        said = [f"{name}={value!r}" for at, (name, value) in enumerate(shown.items()) if value or at < _ALWAYS_SHOWN]
        return f"Usage({', '.join(said)})"


_ALWAYS_SHOWN = 3


def is_tier(value: object) -> bool:
    """Whether a value can be the name of a service tier: a printable text of 0 to 32 characters."""
    return isinstance(value, str) and len(value) <= LONGEST_TIER and value.isprintable()


def _count(name: str, value: object) -> int:
    if type(value) is int and 0 <= value <= MAX_TOKENS:
        return value
    # It may be anything, a text with a secret in it included; only a number of usual size is shown.
    shown = repr(value) if type(value) is int and abs(value) < MAX_TOKENS else type(value).__name__
    raise ValueError(f"{name}: a whole number of tokens from 0 to {MAX_TOKENS} is needed. Got {shown}.")
