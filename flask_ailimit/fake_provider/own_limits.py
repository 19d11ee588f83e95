"""The rate limit that the provider really enforces, with the engine of this package, in memory."""

from collections.abc import Mapping

from flask_ailimit.engine import Charge, Clock, Engine, Reservation, open_store, parse_quotas

_UNITS = ("requests", "tokens", "input_tokens", "output_tokens")


class OwnLimits:
    """Limits of one account, whatever key a call has and whatever model it asks for.

    Args:
        limits: By unit, as a text or as a number per minute.
        clock: Whose time counts.

    Raises:
        ConfigurationError: A limit can't be read.
        ValueError: A unit is unknown.
    """

    def __init__(self, limits: Mapping[str, str | int], clock: Clock) -> None:
        unknown = [unit for unit in limits if unit not in _UNITS]
        if unknown:
            raise ValueError(f"limits: {', '.join(_UNITS)} can be limited. Got {unknown[0]!r:.40}.")
        self._engine = Engine(open_store("memory://", name="fake-provider", clock=clock, options={}))
        account = self._engine.subject("account")
        self._charges = [
            Charge(account, quota, 0)
            for unit, text in limits.items()
            for quota in parse_quotas(f"{text} per minute" if isinstance(text, int) else text, unit=unit)
        ]

    def reserve(self, costs: Mapping[str, int]) -> Reservation:
        """Take so much of each unit that is limited, or nothing."""
        return self._engine.reserve([charge.costing(costs.get(charge.quota.unit, 0)) for charge in self._charges])

    def require(self, units: Mapping[str, int]) -> None:
        """Raise :class:`ValueError` if one of these units is not limited."""
        known = {charge.quota.unit for charge in self._charges}
        for unit in units:
            if unit not in known:
                raise ValueError(
                    f"take: {unit} are not limited here. Limited: {', '.join(sorted(known)) or 'nothing'}."
                )

    def close(self) -> None:
        """End its threads."""
        self._engine.close()


def costs_of(input_tokens: int, output_tokens: int) -> dict[str, int]:
    """What a call costs, by unit."""
    return {
        "requests": 1,
        "tokens": input_tokens + output_tokens,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
    }
