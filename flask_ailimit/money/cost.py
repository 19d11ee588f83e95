"""What a settlement came to in money, and by which price."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from .amounts import in_words, unit_of


@dataclass(frozen=True, slots=True)
class Cost:
    """What the tokens of a settlement cost.

    Attributes:
        nano: Nano-units of the currency, 0 to 2**53 - 1, rounded up.
        currency: Three capital letters, as in ISO 4217.
        price: The name of the price: the pattern of an own table, or a model's id; "" for a cost that the app named.
        source: Where the price is from, such as ``own table`` or ``genai-prices 0.2.3``.
        rates: The rates that held, as decimal numbers by kind: of a million tokens, and of ``request`` and ``image``
            of one. Empty for a cost that the app named.
    """

    nano: int
    currency: str
    price: str = ""
    source: str = ""
    rates: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def unit(self) -> str:
        """The unit of the quotas that it is charged to."""
        return unit_of(self.currency)

    def __str__(self) -> str:
        return in_words(self.nano, self.currency)
