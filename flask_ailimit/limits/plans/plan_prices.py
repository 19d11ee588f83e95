"""Whether the budgets of a plan file can be counted: a price in their currency is needed."""

from collections.abc import Iterable, Iterator

from flask_ailimit.engine.quota import is_money
from flask_ailimit.limits.priced import no_price
from flask_ailimit.money import PriceBook

from .plan import BUDGET, Plan, PlanLimit

_NO_PRICES = (
    "the file has no prices, so nobody knows what a request costs. Write those of your models, for a million tokens, "
    """such as [prices."large-*"] with input = "2.50 USD" and output = "10 USD"; or genai_prices = true at the top """
    "for those of the package genai-prices"
)

Place = tuple[str, ...]


def without_a_price(plans: Iterable[tuple[Place, Plan]], prices: PriceBook | None) -> Iterator[tuple[Place, str]]:
    """The budgets that can't be counted: where each is, and what is wrong.

    Args:
        plans: All plans, each with its place in the file.
        prices: What models cost; None if the file doesn't say it.
    """
    for place, plan in plans:
        for at, limit in _budgets(place, plan):
            wrong = _NO_PRICES if prices is None else no_price(limit.unit, limit.unknown_price, prices)
            if wrong:
                yield at, wrong


def _budgets(place: Place, plan: Plan) -> Iterator[tuple[Place, PlanLimit]]:
    of_rules = [((*place, "models", rule.pattern), rule.limits) for rule in plan.models or ()]
    for at, limits in [(place, plan.limits), *of_rules]:
        yield from (((*at, BUDGET), limit) for limit in limits if is_money(limit.unit))
