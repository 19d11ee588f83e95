"""Unique names of limited functions.

Flask-Limiter keeps limits under qualified names. Two lambdas, two functions that one factory made, and two views under
a decorator without ``functools.wraps`` have the same qualified name, and would get each other's limits. So a function
gets a unique name when it gets a limit or an exemption.
"""

import itertools
from typing import Any

from flask import Flask

_numbers = itertools.count(1)


class Names:
    """The names of functions for one limiter. Another limiter of the same view has its own names."""

    def __init__(self) -> None:
        self._attribute = f"__flask_ailimit_name_{next(_numbers)}__"
        self._elsewhere: dict[Any, str] = {}  # For objects that take no attribute, such as bound methods.

    def of(self, function: Any) -> str:
        """The unique name given to the function, or to the one that it wraps. Without one, the qualified name."""
        named: str | None = getattr(function, self._attribute, None)
        if named is None and self._elsewhere:
            named = self._elsewhere.get(function)
        return named or _qualified_name(function)

    def of_view(self, app: Flask, endpoint: str | None) -> str:
        """The name of an endpoint's view; empty if there is none."""
        view = app.view_functions.get(endpoint or "")
        return self.of(view) if view else ""

    def give(self, function: Any) -> str:
        """Give a function a unique name. A later wrapper with ``functools.wraps`` has the same name."""
        name = f"{_qualified_name(function)}#{next(_numbers)}"
        try:
            setattr(function, self._attribute, name)
        except (AttributeError, TypeError):
            self._elsewhere[function] = name
        return name

    def name_or_new(self, function: Any) -> str:
        """The unique name of a function. It is given now, if the function has none."""
        name = self.of(function)
        return self.give(function) if name == _qualified_name(function) else name


def _qualified_name(function: Any) -> str:
    """The name that Flask-Limiter uses; for a callable object, which has none, that of its class."""
    kind = type(function)
    name = getattr(function, "__name__", kind.__name__)
    return f"{function.__module__}.{name}.{getattr(function, '__qualname__', kind.__qualname__)}"
