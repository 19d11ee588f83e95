"""Reads the prices of an app's own table.

A price is a table of rates, such as ``{"input": "2.50 USD", "output": "10.00 USD"}``: of a million tokens of each kind,
and of one ``request`` or ``image``. Besides rates it may have

- ``above``: rates for long inputs, by the number of input tokens above which they hold, for all tokens of the call;
- ``tiers``: rates, or a factor, by the tier of service that an answer names;
- ``confirmed``: true, if a rate above 1,000 is meant.

What a table in ``above`` or ``tiers`` doesn't name is as in the table around it.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Final, NoReturn

from flask_ailimit.engine import ConfigurationError
from flask_ailimit.tokens.usage import MAX_TOKENS, is_tier

from .amounts import parse_rate, shown
from .factors import read_factor
from .per_token import INPUT, OUTPUT, TOKEN_KINDS
from .price import BOUND, IMAGE, KINDS, REQUEST, STANDARD, Price, Table

OWN_TABLE: Final = "own table"

_ABOVE, _TIERS, _CONFIRMED = "above", "tiers", "confirmed"
_OF_TIER = (*KINDS, _ABOVE)
_OF_PRICE = (*_OF_TIER, _TIERS, _CONFIRMED)
_STANDARD_NAMES = ("", "auto", "default", "standard", "standard_only")
_MOST_FACTOR = 100
_LONGEST_SHOWN = 60


def read_price(name: str, given: object, place: str) -> Price:
    """Read one price.

    Args:
        name: What it is found by.
        given: The table.
        place: Where it stands, for errors.

    Raises:
        ConfigurationError: It is no such table.
    """
    return _Reader(place).price(name, given)


class _Reader:
    """Reads one price, and remembers where it stands and which currency it has."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._currency = ""

    def price(self, name: str, given: object) -> Price:
        table = self._table("", given, _OF_PRICE)
        standard = self._steps("", table)
        named = standard[0].keys()
        if not named:
            self._wrong("", "it has no rate. Write input = '2.50 USD' and output = '10 USD', for a million tokens")
        if named & TOKEN_KINDS:
            for kind in (INPUT, OUTPUT):
                if kind not in named:
                    self._wrong("", f"it has no rate for {kind}. Write {kind} = '0 USD' if that costs nothing")
        tiers = {STANDARD: standard} | self._tiers(table.get(_TIERS, {}), standard)
        price = Price.of(name, OWN_TABLE, self._currency, tiers)
        confirmed = table.get(_CONFIRMED, False)
        if type(confirmed) is not bool:
            self._wrong(_CONFIRMED, f"true or false is needed. Got {shown(confirmed)}")
        if price.highest_rate > BOUND and not confirmed:
            self._wrong(
                "",
                f"a rate is above {BOUND} {self._currency}, and rates are for a million tokens. "
                "If it is meant, write confirmed = true beside it",
            )
        return price

    def _tiers(self, given: object, standard: Table) -> dict[str, Table]:
        tiers: dict[str, Table] = {}
        for tier, value in self._table(_TIERS, given).items():
            at = f"{_TIERS}.{tier}"
            if not is_tier(tier) or tier.lower() in _STANDARD_NAMES:
                self._wrong(
                    at[:_LONGEST_SHOWN],
                    "it is no tier of its own. Write the rates of the standard tier above, without a tier, and here "
                    "tiers as answers name them, such as batch, flex or priority",
                )
            if tier.lower() in tiers:
                self._wrong(at, "this tier is there already: upper and lower case make no difference")
            tiers[tier.lower()] = self._tier(at, value, standard)
        return tiers

    def _tier(self, at: str, given: object, standard: Table) -> Table:
        if not isinstance(given, Mapping):
            factor = self._factor(at, given)
            return {
                above: {kind: rate if kind in (REQUEST, IMAGE) else rate * factor for kind, rate in rates.items()}
                for above, rates in standard.items()
            }
        table = self._table(at, given, _OF_TIER)
        if len(standard) > 1 and _ABOVE not in table:
            self._wrong(at, f"it has no rates for long inputs, and the standard tier has. Write {_ABOVE}")
        return self._steps(at, table, standard[0])

    def _steps(self, at: str, table: Mapping[str, Any], around: Mapping[str, Fraction] = MappingProxyType({})) -> Table:
        """The rates of a tier, with those for long inputs."""
        rates = {**around, **self._rates(at, table)}
        steps = {0: rates}
        inside = f"{at}.{_ABOVE}" if at else _ABOVE
        longer: dict[int, dict[str, Fraction]] = {}
        for key, value in self._table(inside, table.get(_ABOVE, {})).items():
            threshold = self._threshold(inside, key)
            if threshold in longer:
                self._wrong(f"{inside}.{key}", f"there are rates above {threshold} already. Remove one of them")
            longer[threshold] = self._rates(f"{inside}.{key}", self._table(f"{inside}.{key}", value, KINDS))
        for threshold in sorted(longer):
            steps[threshold] = rates = {**rates, **longer[threshold]}
        return steps

    def _threshold(self, at: str, key: str) -> int:
        if not (key.isascii() and key.isdigit() and len(key) <= len(str(MAX_TOKENS)) and 0 < int(key) <= MAX_TOKENS):
            self._wrong(at, f"a number of input tokens is needed as the key, such as 200000. Got {shown(key)}")
        return int(key)

    def _rates(self, at: str, table: Mapping[str, Any]) -> dict[str, Fraction]:
        rates = {}
        for kind in KINDS:
            if kind not in table:
                continue
            inside = f"{at}.{kind}" if at else kind
            try:
                rates[kind], currency = parse_rate(table[kind])
            except ConfigurationError as error:
                self._wrong(inside, str(error).removeprefix("money: ").removesuffix("."))
            if self._currency not in ("", currency):
                self._wrong(inside, f"all rates of a price are in one currency. Got {currency} and {self._currency}")
            self._currency = currency
        return rates

    def _factor(self, at: str, given: object) -> Fraction:
        try:
            return read_factor(given, _MOST_FACTOR)
        except ConfigurationError as error:
            self._wrong(at, f"a table of rates, or {str(error).removesuffix('.')}")

    def _table(self, at: str, value: object, keys: Iterable[str] = ()) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            self._wrong(at, f"a table is needed. Got {shown(value)}")
        for key in value:
            if not isinstance(key, str):
                self._wrong(at, f"each key is a text. Got {shown(key)}")
            if keys and key not in keys:
                close = get_close_matches(key[:_LONGEST_SHOWN], list(keys), n=1)
                meant = f"Did you mean {close[0]}? " if close else ""
                self._wrong(at, f"there is no such key as {shown(key)}. {meant}Allowed are {', '.join(keys)}")
        return value

    def _wrong(self, at: str, what: str) -> NoReturn:
        raise ConfigurationError(f"{self._place}{f'.{at}' if at else ''}: {what}.")
