"""What an app records of a request: tokens of each kind, units of its own, and what they cost."""

from typing import NamedTuple, TypedDict, Unpack

from flask_ailimit.money import Money
from flask_ailimit.money.amounts import amount_of
from flask_ailimit.tokens import Usage
from flask_ailimit.tokens.units import checked_units


class Tokens(TypedDict, total=False):
    """The attributes of a :class:`flask_ailimit.Usage`, as keywords. Those that are not named are 0."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    audio_input_tokens: int
    image_input_tokens: int
    reasoning_tokens: int
    audio_output_tokens: int
    image_output_tokens: int
    service_tier: str


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


def record_of(units: object, cost: Money | str | None, **tokens: Unpack[Tokens]) -> Record:
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
