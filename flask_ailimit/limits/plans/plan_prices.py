"""Whether the budgets of a plan file can be counted: a price in their currency is needed."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from flask_ailimit.engine.quota import is_money
from flask_ailimit.money import PriceBook, currency_of
from flask_ailimit.money.unknown import PRICE_AS

from .plan import BUDGET, Plan, PlanLimit
from .said import listed

_ANY_TIME = datetime(2100, 1, 1, tzinfo=UTC)  # A model that has a price has one then: the latest.

Place = tuple[str, ...]


def without_a_price(plans: Iterable[tuple[Place, Plan]], prices: PriceBook | None) -> Iterator[tuple[Place, str]]:
    """The budgets that can't be counted: where each is, and what is wrong.

    Args:
        plans: All plans, each with its place in the file.
        prices: What models cost; None if the file doesn't say it.
    """
    for place, plan in plans:
        for at, limit in _budgets(place, plan):
            wrong = _no_price(limit, prices)
            if wrong:
                yield at, wrong


def _budgets(place: Place, plan: Plan) -> Iterator[tuple[Place, PlanLimit]]:
    of_rules = [((*place, "models", rule.pattern), rule.limits) for rule in plan.models or ()]
    for at, limits in [(place, plan.limits), *of_rules]:
        yield from (((*at, BUDGET), limit) for limit in limits if is_money(limit.unit))


def _no_price(limit: PlanLimit, prices: PriceBook | None) -> str:
    if prices is None:
        return (
            "the file has no prices, so nobody knows what a request costs. Write those of your models, for a million "
            """tokens, such as [prices."large-*"] with input = "2.50 USD" and output = "10 USD"; or genai_prices = """
            "true at the top for those of the package genai-prices"
        )
    currency = currency_of(limit.unit)
    if currency not in prices.currencies:
        return (
            f"no price is in {currency}, and no currency is turned into another. Prices are in "
            f"{listed(prices.currencies)}"
        )
    kind, model = limit.unknown_price
    if kind == PRICE_AS and prices.price_for(model, _ANY_TIME) is None:
        return f"unknown_price: {PRICE_AS}: {model[:60]!r} has no price either. Name a model that has one"
    return ""
