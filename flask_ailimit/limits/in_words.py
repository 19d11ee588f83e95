"""Limits and the app's functions in words, as the commands and ``peek`` say them."""

from functools import partial

from flask_ailimit.engine.quota import REQUESTS, is_money
from flask_ailimit.money import currency_of

from .listed import LISTED
from .phase import RuntimeLimit
from .plans.payer_key import PayerKey
from .resolve import NotAsked, allows_nothing, is_no_limit
from .unit_limit import UnitCost, options_of, quota_of


def name_of(function: object) -> str:
    """The module and the qualified name of a callable; of a lambda, which has no name, also the line."""
    if isinstance(function, PayerKey):
        return f"the {function.role}"
    if isinstance(function, partial):
        return f"partial of {name_of(function.func)}"
    named = function if hasattr(function, "__qualname__") else type(function)
    name: str = named.__qualname__
    code = getattr(function, "__code__", None)
    line = f" (line {code.co_firstlineno})" if code and name.endswith("<lambda>") else ""
    module = getattr(named, "__module__", None)  # A method of a built-in type has none.
    return f"{module}.{name}{line}" if module else name


def setting_of(value: object) -> str:
    """A setting's value; a function of the app by its name, and a limit with options as it was written."""
    return value if isinstance(value, str) else _written(value)


def _written(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, LISTED):
        options = (f"{name}={_written(each)}" for name, each in value.options.items())
        return f"{type(value).__name__}({', '.join([_written(value.limit_value), *options])})"
    return name_of(value) if callable(value) else repr(value)


def label_of(limit: RuntimeLimit) -> str:
    """What clients call a limit; "" if the app gave it no name."""
    options = options_of(limit.cost)
    return options.label if options else ""


def text_of(limit: RuntimeLimit, algorithm: str) -> str:
    """What a limit allows: ``100 tokens per 60 s``, ``unlimited tokens``, ``nothing is allowed``.

    Of a callable limit that was not asked, only what it limits: ``tokens``.

    Args:
        limit: The limit.
        algorithm: The algorithm of the app's limits on requests.
    """
    if allows_nothing(limit):
        return "nothing is allowed"
    counted = limit.cost.limit.unit if isinstance(limit.cost, UnitCost) else REQUESTS
    unit = currency_of(counted) if is_money(counted) else counted.replace("_", " ")
    if isinstance(limit.limit, NotAsked):
        return unit
    return f"unlimited {unit}" if is_no_limit(limit) else quota_of(limit.limit, algorithm).text
