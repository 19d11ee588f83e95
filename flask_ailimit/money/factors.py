"""Factors, read exactly as they were written."""

from decimal import Decimal
from fractions import Fraction
from typing import Final

from flask_ailimit.engine import ConfigurationError

from .amounts import shown

MOST_DECIMALS: Final = 18
"""Decimals of a factor. More would make the integers that it is counted with long, and no bill any better."""


def read_factor(value: object, most: int) -> Fraction:
    """A number from 0 to ``most``. TOML's 0.1 is a double, which is read as it was written.

    Raises:
        ConfigurationError: It is something else, or has more than 18 decimals.
    """
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        number = Decimal(str(value)) if isinstance(value, float) else Decimal(value)
        if number.is_finite() and 0 <= number <= most and number == round(number, MOST_DECIMALS):
            return Fraction(number)
    raise ConfigurationError(
        f"a number from 0 to {most} of at most {MOST_DECIMALS} decimals is needed, such as 0.1 or 5. "
        f"Got {shown(value)}."
    )
