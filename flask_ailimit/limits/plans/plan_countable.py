"""What a plan file says for a limit, and whether it can be counted."""

from typing import Any

from flask_ailimit.engine import ConfigurationError
from flask_ailimit.engine.charge import require_cost
from flask_ailimit.engine.quota import CONCURRENCY, is_money
from flask_ailimit.limits.checks import require_algorithm, require_lease, require_told
from flask_ailimit.limits.unit_limit import slots, timed_items
from flask_ailimit.unlimited import UNLIMITED

from .plan import PlanLimit
from .said import shown

NO_LIMIT = "unlimited"
"""What a plan file says for UNLIMITED."""

_NOTHING = "0 per second"
_EXAMPLE, _EXAMPLE_OF_MONEY = "10 per minute", "50 USD per calendar month"


def written(value: Any, unit: str) -> Any:
    """The value of a limit as a decorator takes it."""
    if value == NO_LIMIT or value is UNLIMITED:
        return UNLIMITED
    has_text = unit != CONCURRENCY and not is_money(unit)
    return _NOTHING if type(value) is int and value == 0 and has_text else value


def require_countable(limit: PlanLimit, algorithm_of_requests: str, *, is_named: bool = False) -> None:
    """Check a limit as its decorator would.

    Args:
        limit: The limit.
        algorithm_of_requests: The algorithm of the app's limits on requests.
        is_named: Whether the file gives it a name.

    Raises:
        ConfigurationError: It can't be counted.
    """
    require_told(limit.name if is_named else None, limit.in_headers, limit.soft_percent, limit.unit)
    if limit.unit == CONCURRENCY:
        _require_slots(limit)
    elif is_money(limit.unit):
        if limit.value is not UNLIMITED and not (type(limit.value) is int and limit.value == 0):
            timed_items(_text_of(limit, _EXAMPLE_OF_MONEY), limit.unit, None, None, limit.name, limit.in_headers)
    else:
        _require_timed(limit, algorithm_of_requests)


def _require_slots(limit: PlanLimit) -> None:
    require_lease(limit.lease)
    if limit.value is not UNLIMITED:
        if type(limit.value) is not int:
            raise ConfigurationError(
                f"a number of calls in flight is needed, such as 4, or {NO_LIMIT!r}. Got {shown(limit.value)}"
            )
        slots(limit.value, limit.lease, limit.name, limit.in_headers)


def _require_timed(limit: PlanLimit, algorithm_of_requests: str) -> None:
    try:
        require_cost(limit.cost)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    if limit.algorithm is not None:
        require_algorithm("algorithm", limit.algorithm)
    if limit.burst is not None and type(limit.burst) is not int:
        raise ConfigurationError(f"burst: a whole number is needed, 1 or more. Got {shown(limit.burst)}")
    text = _NOTHING if limit.value is UNLIMITED else _text_of(limit, _EXAMPLE)
    usual, told = limit.usual_algorithm(algorithm_of_requests), (limit.name, limit.in_headers)
    for item in timed_items(text, limit.unit, limit.algorithm, limit.burst, *told, limit.calendar, usual):
        quota = getattr(item, "quota", None)
        if quota is not None and limit.cost > quota.burst:
            raise ConfigurationError(f"cost: {limit.cost} never fits a limit of {quota.text}. Raise the limit")


def _text_of(limit: PlanLimit, example: str) -> str:
    if not isinstance(limit.value, str):
        raise ConfigurationError(
            f"a text is needed, such as {example!r}, or {NO_LIMIT!r}, or 0 for nothing. Got {shown(limit.value)}"
        )
    return limit.value
