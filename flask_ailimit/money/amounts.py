"""Amounts of money, in whole nano-units of a currency: 1 USD is 1,000,000,000 nano_usd.

Texts are read exactly. No amount is ever a float, and no currency is turned into another.
"""

import re
from fractions import Fraction
from functools import lru_cache
from math import ceil
from typing import NamedTuple

from flask_ailimit.engine import ConfigurationError
from flask_ailimit.engine.quota import MAX_EXACT, MONEY_PREFIX, NANO, decimal_of, is_money

_DECIMALS = 9
_LONGEST_AMOUNT = 60
_CURRENCY = re.compile(r"[A-Z]{3}")
_UNIT = re.compile(f"{MONEY_PREFIX}[a-z]{{3}}")
_AMOUNT = re.compile(r"([0-9]+)(?:\.([0-9]+))?[ \t]+([A-Z]{3})")
_HOW_TO_WRITE = (
    "Write digits, a point if need be, a space and the currency in three capital letters, such as '2.50 USD'"
)


class Money(NamedTuple):
    """An amount.

    Attributes:
        nano: Nano-units, 0 to 2**53 - 1.
        currency: Three capital letters, as in ISO 4217.
    """

    nano: int
    currency: str

    @property
    def unit(self) -> str:
        """The unit of a quota that counts such money."""
        return unit_of(self.currency)

    def __str__(self) -> str:
        return in_words(self.nano, self.currency)


def parse_money(text: object) -> Money:
    """Read an amount such as ``"50 USD"`` or ``"0.000000001 EUR"``.

    Raises:
        ConfigurationError: It is no such text, has more than nine decimals, or is more than 2**53 - 1 nano-units.
    """
    money, is_exact = _rounded_up(text)
    if not is_exact:
        raise ConfigurationError(
            f"money: an amount has at most {_DECIMALS} decimals, because it is counted in whole nano-units. "
            f"Got {shown(text)}."
        )
    return money


def _rounded_up(text: object) -> tuple[Money, bool]:
    """An amount with any number of decimals in whole nano-units, and whether it is one."""
    amount, currency = parse_rate(text)
    nano = ceil(amount * NANO)
    if nano > MAX_EXACT:
        raise ConfigurationError(
            f"money: an amount is at most {in_words(MAX_EXACT, currency)}, the largest that every store counts "
            f"exactly. Got {shown(text)}."
        )
    return Money(nano, currency), nano == amount * NANO


def amount_of(given: "Money | str | None") -> Money | None:
    """What something cost, which a caller gives as a text, or as what it is; None for None.

    A text may have any number of decimals, because sums of an upstream have: it is rounded up to a nano-unit.

    Raises:
        ValueError: It is neither, or a :class:`Money` that is no amount, such as one below zero.
    """
    if given is None:
        return None
    if isinstance(given, Money):
        return _checked(given)
    try:
        return _rounded_up(given)[0]
    except ConfigurationError as error:
        raise ValueError(str(error).replace("money:", "cost:", 1)) from None


def _checked(money: Money) -> Money:
    nano, currency = money
    if type(nano) is not int or not 0 <= nano <= MAX_EXACT:
        raise ValueError(f"cost: a whole number of nano-units from 0 to {MAX_EXACT} is needed. Got {shown(nano)}.")
    try:
        unit_of(currency)
    except ConfigurationError as error:
        raise ValueError(f"cost: {error}") from None
    return money


def parse_rate(text: object) -> tuple[Fraction, str]:
    """Read a rate such as ``"0.00000013 USD"``, which may have any number of decimals, with its currency.

    Raises:
        ConfigurationError: It is no such text, or has more than 60 characters.
    """
    if not isinstance(text, str):
        raise ConfigurationError(f"money: an amount is a text. {_HOW_TO_WRITE}. Got {shown(text)}.")
    written = text.strip()
    match = _AMOUNT.fullmatch(written)
    if match is None or len(written) > _LONGEST_AMOUNT:
        raise ConfigurationError(f"money: this is no amount. {_HOW_TO_WRITE}. Got {shown(text)}.")
    whole, decimals, currency = match.groups()
    decimals = decimals or ""
    return Fraction(int(whole + decimals), 10 ** len(decimals)), currency


def unit_of(currency: str) -> str:
    """The unit of a quota in this currency: ``nano_usd`` for ``USD``.

    Raises:
        ConfigurationError: It is not three capital letters.
    """
    if not isinstance(currency, str) or not _CURRENCY.fullmatch(currency):
        raise ConfigurationError(f"currency: three capital letters are needed, such as 'USD'. Got {shown(currency)}.")
    return MONEY_PREFIX + currency.lower()


@lru_cache(maxsize=256)
def currency_of(unit: str) -> str:
    """The currency of such a unit: ``USD`` for ``nano_usd``.

    Raises:
        ConfigurationError: It is not the unit of a currency.
    """
    if not isinstance(unit, str) or not _UNIT.fullmatch(unit):
        raise ConfigurationError(f"unit: that of a currency is needed, such as 'nano_usd'. Got {shown(unit)}.")
    return unit.removeprefix(MONEY_PREFIX).upper()


def in_words(nano: int, unit_or_currency: str) -> str:
    """An amount for people: ``12.345678901 USD``, ``50.00 USD``, ``-0.25 EUR``. It has two decimals or more.

    Raises:
        ConfigurationError: It is neither a unit of money nor a currency.
    """
    named = is_money(unit_or_currency)
    currency = currency_of(unit_or_currency) if named else currency_of(unit_of(unit_or_currency))
    return f"{decimal_of(nano)} {currency}"


def shown(value: object) -> str:
    """A wrong value for an error. Of what is no text and no number only its kind, since it may be anything."""
    is_short = isinstance(value, str | float) or (isinstance(value, int) and abs(value) <= MAX_EXACT)
    return repr(value)[:_LONGEST_AMOUNT] if is_short else type(value).__name__
