"""Whether a limit on money can be counted: a price in its currency is needed."""

from datetime import UTC, datetime

from flask_ailimit.engine import ConfigurationError
from flask_ailimit.money import PriceBook, currency_of
from flask_ailimit.money.unknown import PRICE_AS, UnknownPrice

from .unit_limit import UnitLimit

_ANY_TIME = datetime(2100, 1, 1, tzinfo=UTC)  # A model that has a price has one then: the latest.


def require_price(limit: UnitLimit, prices: PriceBook | None) -> None:
    """Check that a budget of a decorator has a price in its currency.

    Args:
        limit: The budget.
        prices: What models cost in the app; None if nobody says it.

    Raises:
        ConfigurationError: It has none.
    """
    if prices is None:
        raise ConfigurationError(
            "prices: there is a limit on money, and nobody knows what a request costs. Give the prices of your models, "
            "for a million tokens, such as prices={'large-*': {'input': '2.50 USD', 'output': '10 USD'}}; or "
            "genai_prices=True for those of the package genai-prices."
        )
    wrong = no_price(limit.unit, limit.unknown_price, prices)
    if wrong:
        raise ConfigurationError(f"limit_budget: {wrong}.")


def no_price(unit: str, unknown: UnknownPrice, prices: PriceBook) -> str:
    """Why a budget can't be counted by these prices; "" if it can.

    Args:
        unit: Its unit.
        unknown: What becomes of a request whose model has no price.
        prices: The prices.
    """
    currency = currency_of(unit)
    if currency not in prices.currencies:
        there_are = ", ".join(prices.currencies)
        return f"no price is in {currency}, and no currency is turned into another. Prices are in {there_are}"
    if unknown.kind == PRICE_AS and prices.price_for(unknown.model, _ANY_TIME) is None:
        return f"unknown_price: {PRICE_AS}: {unknown.model[:60]!r} has no price either. Name a model that has one"
    return ""
