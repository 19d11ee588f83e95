"""The price of a model: rates by kind, for tiers of service and for long inputs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import lcm
from typing import Final, Self

from flask_ailimit.engine.quota import MAX_EXACT, NANO
from flask_ailimit.tokens import Usage

from .cost import Cost
from .per_token import INPUT, OUTPUT, TOKEN_KINDS, PerToken

REQUEST: Final = "request"
IMAGE: Final = "image"

KINDS: Final = (*TOKEN_KINDS, REQUEST, IMAGE)
"""What may have a rate: the kinds of tokens, of which it is that of a million, and ``request`` and ``image``."""

STANDARD: Final = ""
"""The name of the tier that holds where no other does."""

BOUND: Final = 1000
"""Units of the currency. A rate above it is more likely a mistake than a price."""

_MILLION = 10**6
_NOTHING = Fraction(0)

Table = Mapping[int, Mapping[str, Fraction]]
"""Rates by kind, by the number of input tokens above which they hold; 0 for those that hold from the first on."""


@dataclass(frozen=True, slots=True)
class Rates:
    """The rates that hold at once. Immutable and hashable.

    Attributes:
        above: They hold for more input tokens than this; 0 for those that hold from the first token on.
        given: The rates by kind, sorted: units of the currency for a million tokens, a request or an image. A kind of
            tokens that isn't there costs what the kind costs that it is a part of.
    """

    above: int
    given: tuple[tuple[str, Fraction], ...]
    _per_token: PerToken = field(init=False, repr=False, compare=False)
    _scale: int = field(init=False, repr=False, compare=False)
    _request: int = field(init=False, repr=False, compare=False)
    _image: int = field(init=False, repr=False, compare=False)
    _denominator: int = field(init=False, repr=False, compare=False)
    _texts: dict[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given = dict(self.given)
        nano = {kind: given[kind] * NANO / _MILLION for kind in TOKEN_KINDS if kind in given}
        per_token = PerToken({INPUT: _NOTHING, OUTPUT: _NOTHING} | nano)
        request, image = given.get(REQUEST, _NOTHING) * NANO, given.get(IMAGE, _NOTHING) * NANO
        denominator = lcm(per_token.denominator, request.denominator, image.denominator)
        for name, value in {
            "_per_token": per_token,
            "_scale": denominator // per_token.denominator,
            "_request": int(request * denominator),
            "_image": int(image * denominator),
            "_denominator": denominator,
            "_texts": {kind: decimal_text(rate) for kind, rate in self.given},
        }.items():
            object.__setattr__(self, name, value)

    @property
    def texts(self) -> dict[str, str]:
        """The rates as decimal numbers, in a dictionary of its own."""
        return {**self._texts}

    def cost(self, usage: Usage, images: int) -> int:
        """As :meth:`Price.cost`."""
        return min(-(-self._total(usage, images) // self._denominator), MAX_EXACT)

    def exact(self, usage: Usage, images: int) -> Fraction:
        """As :meth:`Price.exact`."""
        return Fraction(self._total(usage, images), self._denominator)

    def exact_of_images(self, images: int) -> Fraction:
        """As :meth:`Price.exact_of_images`."""
        return Fraction(images * self._image, self._denominator)

    def _total(self, usage: Usage, images: int) -> int:
        tokens = self._per_token.input_sum(usage) + self._per_token.output_sum(usage)
        return tokens * self._scale + self._request + images * self._image


@dataclass(frozen=True)
class Price:
    """What the tokens of a model cost. Immutable and hashable.

    Attributes:
        name: What it is found by: the pattern of an own table, or a model's id.
        source: Where it is from, such as ``own table`` or ``genai-prices 0.2.3``.
        currency: Three capital letters, as in ISO 4217.
        tiers: The rates of each tier of service, by its name in lower case; those for the longest inputs first. The
            tier ``""`` is the standard, and holds for every answer that names none of the others.
    """

    name: str
    source: str
    currency: str
    tiers: tuple[tuple[str, tuple[Rates, ...]], ...]
    _standard: tuple[Rates, ...] = field(init=False, repr=False, compare=False)
    _by_tier: Mapping[str, tuple[Rates, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_tier = dict(self.tiers)
        object.__setattr__(self, "_by_tier", by_tier)
        object.__setattr__(self, "_standard", by_tier[STANDARD])

    @classmethod
    def of(cls, name: str, source: str, currency: str, tiers: Mapping[str, Table]) -> Self:
        """A price from the table of each tier. Each has rates from the first token on, above 0 input tokens."""
        return cls(
            name,
            source,
            currency,
            tuple(
                (
                    tier.lower(),
                    tuple(Rates(above, tuple(sorted(table[above].items()))) for above in sorted(table, reverse=True)),
                )
                for tier, table in tiers.items()
            ),
        )

    def cost(self, usage: Usage, images: int = 0) -> int:
        """What a usage costs at the tier that its answer names.

        Args:
            usage: The tokens of one call of the model. Whether an input is a long one is asked of each call.
            images: How many images were made, where these are paid by the piece.

        Returns:
            Nano-units of the currency, rounded up once, at most 2**53 - 1.
        """
        return self._rates(usage).cost(usage, images)

    def exact(self, usage: Usage, images: int = 0) -> Fraction:
        """The same in nano-units, not rounded: for what is rounded only when other calls were added."""
        return self._rates(usage).exact(usage, images)

    def exact_of_images(self, images: int) -> Fraction:
        """What images cost that were made by no call of which the tokens are known. Not rounded, in nano-units."""
        return self._standard[-1].exact_of_images(images)

    def bill(self, usage: Usage, images: int = 0) -> Cost:
        """The same, with the price and the rates that held."""
        rates = self._rates(usage)
        return Cost(rates.cost(usage, images), self.currency, self.name, self.source, rates.texts)

    @property
    def highest_rate(self) -> Fraction:
        """The highest of all rates, whatever they are of."""
        return max((rate for _, steps in self.tiers for rates in steps for _, rate in rates.given), default=_NOTHING)

    def _rates(self, usage: Usage) -> Rates:
        tier = usage.service_tier
        steps = self._by_tier.get(tier.lower(), self._standard) if tier else self._standard
        given = usage.input_tokens
        for rates in steps:
            if given > rates.above:
                return rates
        return steps[-1]


def decimal_text(number: Fraction) -> str:
    """A number as a decimal one: ``2.5``. It is exact if the number has so many decimals, as all rates have."""
    digits = 0
    while (number * 10**digits).denominator != 1 and digits < _MOST_DIGITS:
        digits += 1
    whole = f"{int(number * 10**digits):0{digits + 1}}"
    return f"{whole[:-digits]}.{whole[-digits:]}" if digits else whole


_MOST_DIGITS = 60
