"""What becomes of a request under a limit on money if nobody knows the price of its model."""

from collections.abc import Mapping
from typing import NamedTuple

from flask_ailimit.engine import ConfigurationError

REFUSE, FREE, PRICE_AS = "refuse", "free", "price_as"


class UnknownPrice(NamedTuple):
    """What becomes of it.

    Attributes:
        kind: ``refuse``; ``free``, it costs nothing; or ``price_as``, it costs what another model costs.
        model: That model; "" for the others.
    """

    kind: str = REFUSE
    model: str = ""


REFUSED = UnknownPrice()


def read_unknown_price(given: object) -> UnknownPrice:
    """Read ``"refuse"``, ``"free"`` or ``{"price_as": "large-1"}``.

    Raises:
        ConfigurationError: It is none of these.
    """
    if given in (REFUSE, FREE):
        return UnknownPrice(str(given))
    model = given[PRICE_AS] if isinstance(given, Mapping) and set(given) == {PRICE_AS} else None
    if isinstance(model, str) and model:
        return UnknownPrice(PRICE_AS, model)
    shown = repr(given)[:60] if isinstance(given, str | int | float | Mapping) else type(given).__name__
    raise ConfigurationError(
        f"unknown_price: '{REFUSE}', '{FREE}' or {{ {PRICE_AS} = 'large-1' }} is needed, with a model that has a "
        f"price. Got {shown}."
    )
