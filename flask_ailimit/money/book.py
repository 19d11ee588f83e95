"""Which price a model has: that of the app's own table, then that of genai-prices, then none."""

import re
from collections.abc import Mapping
from datetime import datetime
from fnmatch import fnmatchcase, translate
from functools import lru_cache
from typing import Final

from flask_ailimit.engine import ConfigurationError

from .amounts import shown
from .genai import CURRENCY, GenaiPrices, ModelPrices
from .price import Price
from .price_table import read_price

LONGEST_MODEL: Final = 256
"""Characters of a model's name. A longer one belongs to no plan and has no price."""

_MOST_NAMES = 1024
"""Names whose price is remembered. Clients make names up."""


class PriceBook:
    """Finds the price of a model by its name.

    Args:
        own: Prices by the pattern of a model's name (``*`` and ``?`` are wildcards, ``[ab]`` is one of some
            characters; upper and lower case differ). The first that matches holds. Each is a table, as
            :mod:`.price_table` reads it.
        genai: Whether models that no pattern matches are looked up in the package genai-prices.
        place: Where the table stands, for errors.

    Raises:
        ConfigurationError: The table is wrong, or genai-prices is not installed.
    """

    def __init__(self, own: object = None, *, genai: bool = False, place: str = "prices") -> None:
        self._own = _read(own, place)
        self._matchers = [(re.compile(translate(price.name)).match, price) for price in self._own]
        self._genai = GenaiPrices() if genai else None
        self._found = lru_cache(maxsize=_MOST_NAMES)(self._find)

    @property
    def own(self) -> tuple[Price, ...]:
        """The prices of the own table, in its order."""
        return self._own

    @property
    def has_genai(self) -> bool:
        """Whether models that no pattern matches are looked up in the package genai-prices."""
        return self._genai is not None

    @property
    def currencies(self) -> tuple[str, ...]:
        """The currencies of its prices, each once."""
        every = [price.currency for price in self._own] + ([CURRENCY] if self._genai else [])
        return tuple(dict.fromkeys(every))

    @property
    def of_every_model(self) -> Price | None:
        """The price that all models have, if the own table has the pattern ``*`` alone; else None."""
        # No pattern may stand after it.
        return self._own[0] if self._own and self._own[0].name.strip("*") == "" else None

    def price_for(self, model: str, at: datetime) -> Price | None:
        """The price of a model at a time, which is in UTC if it has no zone; None if there is none.

        Args:
            model: The name, as the app or its client wrote it. One of more than 256 characters has no price.
            at: When the model was called: prices change.
        """
        if len(model) > LONGEST_MODEL:
            return None
        found = self._found(model)
        return found.at(at) if isinstance(found, ModelPrices) else found

    def _find(self, model: str) -> Price | ModelPrices | None:
        for matches, price in self._matchers:
            if matches(model):
                return price
        return None if self._genai is None else self._genai.find(model)


def _read(own: object, place: str) -> tuple[Price, ...]:
    if own is None:
        return ()
    if not isinstance(own, Mapping):
        raise ConfigurationError(
            f"{place}: a table is needed, of prices by the pattern of a model's name, such as "
            f'[{place}."large-*"] with input = "2.50 USD" and output = "10 USD". Got {shown(own)}.'
        )
    before: list[str] = []
    prices = []
    for pattern, given in own.items():
        if not isinstance(pattern, str) or not 0 < len(pattern) <= LONGEST_MODEL or not pattern.isprintable():
            raise ConfigurationError(
                f"{place}: a pattern is a text of 1 to {LONGEST_MODEL} printable characters, such as 'small-*'. "
                f"Got {shown(pattern)}."
            )
        earlier = next((each for each in before if _covers(each, pattern)), None)
        if earlier is not None:
            raise ConfigurationError(
                f"{place}: {shown(pattern)} never matches, because {shown(earlier)} before it matches first. "
                "Write it above that one, or remove it."
            )
        before.append(pattern)
        prices.append(read_price(pattern, given, f"{place}.{shown(pattern)}"))
    return tuple(prices)


def _covers(earlier: str, later: str) -> bool:
    """Whether a pattern is known to match every name that a later one matches.

    If the earlier one has no wildcard but ``*``, it matches the later one as a text only if its ``*`` take the later
    one's wildcards, and so whatever those match. Of characters in brackets they might take a part.
    """
    return not set(earlier) & set("?[") and "[" not in later and fnmatchcase(later, earlier)
