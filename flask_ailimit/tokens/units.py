"""What a request used in units of the app's own, such as pages or seconds of audio."""

from collections.abc import Mapping

from flask_ailimit.engine.errors import ConfigurationError
from flask_ailimit.engine.quota import MAX_EXACT, require_own_unit


def checked_units(units: object) -> dict[str, int]:
    """The amounts by unit, if they can be counted; empty for None.

    Raises:
        ValueError: It is no mapping, a unit is no name of one's own, or an amount is no integer from 0 to 2**53 - 1.
    """
    if units is None:
        return {}
    if not isinstance(units, Mapping):
        raise ValueError(f"units: a mapping is needed, such as {{'pages': 3}}. Got {type(units).__name__}.")  # noqa: TRY004  as for each wrong usage
    for unit, amount in units.items():
        try:
            require_own_unit(unit)
        except ConfigurationError as error:
            raise ValueError(f"units: {error} Tokens have arguments of their own.") from None
        if type(amount) is not int or not 0 <= amount <= MAX_EXACT:
            raise ValueError(f"units: {unit}: a whole number from 0 to {MAX_EXACT} is needed. Got {amount!r:.40}.")
    return dict(units)


def added(units: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    """Both together. Each amount stays within 2**53 - 1."""
    return {**units, **{unit: min(units.get(unit, 0) + amount, MAX_EXACT) for unit, amount in more.items()}}
