"""Limits and the app's functions in words, as the commands and ``peek`` say them."""

from functools import partial

from flask_ailimit.engine.quota import REQUESTS

from .phase import RuntimeLimit
from .resolve import NotAsked, allows_nothing, is_no_limit
from .unit_limit import UnitCost, quota_of


def name_of(function: object) -> str:
    """The module and the qualified name of a callable; of a lambda, which has no name, also the line."""
    if isinstance(function, partial):
        return f"partial of {name_of(function.func)}"
    named = function if hasattr(function, "__qualname__") else type(function)
    name: str = named.__qualname__
    code = getattr(function, "__code__", None)
    line = f" (line {code.co_firstlineno})" if code and name.endswith("<lambda>") else ""
    module = getattr(named, "__module__", None)  # A method of a built-in type has none.
    return f"{module}.{name}{line}" if module else name


def text_of(limit: RuntimeLimit, algorithm: str) -> str:
    """What a limit allows: ``100 tokens per 60 s``, ``unlimited tokens``, ``nothing is allowed``.

    Of a callable limit that was not asked, only what it limits: ``tokens``.

    Args:
        limit: The limit.
        algorithm: The algorithm of the app's limits on requests.
    """
    if allows_nothing(limit):
        return "nothing is allowed"
    unit = (limit.cost.limit.unit if isinstance(limit.cost, UnitCost) else REQUESTS).replace("_", " ")
    if isinstance(limit.limit, NotAsked):
        return unit
    return f"unlimited {unit}" if is_no_limit(limit) else quota_of(limit.limit, algorithm).text
