"""What the calls of a model that one request made cost together."""

from collections.abc import Sequence
from fractions import Fraction
from math import ceil
from typing import NamedTuple

from flask_ailimit.engine.quota import MAX_EXACT
from flask_ailimit.tokens import Usage

from .amounts import Money
from .cost import Cost
from .price import Price

NAMED = "recorded"
"""The source of a cost that the app named itself."""


class Call(NamedTuple):
    """One call of a model.

    Attributes:
        usage: What it used; None of images alone, which are no call and whose tokens are paid by another.
        price: The model's price; None if there is none.
        cost: What it cost, if no price says so. Then the price doesn't matter.
        images: How many images it made, where these are paid by the piece.
        source: Who says the cost.
    """

    usage: Usage | None
    price: Price | None = None
    cost: Money | None = None
    images: int = 0
    source: str = NAMED

    @property
    def currency(self) -> str | None:
        """The currency in which its cost is known; None if it isn't known."""
        if self.cost is not None:
            return self.cost.currency
        return None if self.price is None else self.price.currency


def bill(calls: Sequence[Call], currency: str) -> Cost | None:
    """What the calls cost together, rounded up once to a whole nano-unit.

    Returns:
        The cost; None if that of one of the calls is not known in this currency. The price is that of the calls, if
        they have one; of several prices their names. It has rates if the same rates held for all of the calls.
    """
    if any(call.currency != currency for call in calls):
        return None
    if len(calls) == 1:
        (call,) = calls
        if call.cost is not None:
            return Cost(call.cost.nano, currency, source=call.source)
        if call.price is not None and call.usage is not None:
            return call.price.bill(call.usage, call.images)
    exact = sum((_exact(call) for call in calls), Fraction(0))
    prices = list(dict.fromkeys(call.price for call in calls if call.cost is None and call.price is not None))
    sources = [price.source for price in prices]
    sources += [call.source for call in calls if call.cost is not None]
    held = [call.price.bill(call.usage or Usage()).rates for call in calls if call.cost is None and call.price]
    is_one = len(held) == len(calls) > 0 and len(prices) == 1 and all(rates == held[0] for rates in held)
    names = ", ".join(price.name for price in prices)
    rates = held[0] if is_one else {}
    return Cost(min(ceil(exact), MAX_EXACT), currency, names, ", ".join(dict.fromkeys(sources)), rates)


def _exact(call: Call) -> Fraction:
    if call.cost is not None:
        return Fraction(call.cost.nano)
    assert call.price is not None  # noqa: S101  see bill
    if call.usage is None:
        return call.price.exact_of_images(call.images)
    return call.price.exact(call.usage, call.images)
