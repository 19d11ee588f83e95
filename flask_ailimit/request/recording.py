"""What an app records of a request: tokens of each kind, units of its own, and what they cost."""

from typing import NamedTuple

from flask_ailimit.money import Money
from flask_ailimit.money.amounts import amount_of
from flask_ailimit.tokens import Usage
from flask_ailimit.tokens.units import checked_units


class Record(NamedTuple):
    """What one call of ``record_usage`` says.

    Attributes:
        usage: The tokens; None if it names only units of the app's own.
        units: Amounts of such units.
        cost: What the tokens cost; None if it doesn't say so.
    """

    usage: Usage | None
    units: dict[str, int]
    cost: Money | None


def record_of(units: object, cost: Money | str | None, **tokens: object) -> Record:
    """What one call records.

    Args:
        units: Amounts by unit, or None.
        cost: An amount of money, such as ``"0.02 USD"``, or None.
        **tokens: The attributes of a :class:`flask_ailimit.Usage`, by their names.

    Raises:
        ValueError: As :meth:`Usage.checked`, :func:`checked_units` and :func:`amount_of`.
    """
    usage, own, money = Usage.checked(**tokens), checked_units(units), amount_of(cost)
    is_of_units = own and money is None and usage == Usage()
    return Record(None if is_of_units else usage, own, money)
