"""What tokens cost, and how much they weigh, without Flask.

Example:
    >>> from flask_ailimit.money import Weights, parse_money
    >>> from flask_ailimit.tokens import Usage
    >>> parse_money("2.50 USD")
    Money(nano=2500000000, currency='USD')
    >>> Weights.of({"cached_input_tokens": 0.1, "output_tokens": 5}).weigh(Usage(1000, 200, 900), "tokens")
    1190
"""

from .amounts import Money, currency_of, in_words, parse_money, unit_of
from .book import PriceBook
from .cost import Cost
from .price import Price
from .weights import Weights

__all__ = [
    "Cost",
    "Money",
    "Price",
    "PriceBook",
    "Weights",
    "currency_of",
    "in_words",
    "parse_money",
    "unit_of",
]
