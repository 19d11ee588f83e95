"""What a limited function is called. Flask-Limiter keeps limits under qualified names.

Two lambdas, two functions that one factory made, and two views under a decorator without ``functools.wraps`` have the
same name, and would share each other's limits. So a function gets a name of its own when something is written on it.
"""

import itertools
from typing import Any

from flask import Flask

_numbers = itertools.count(1)


class Names:
    """The names by which one limiter knows functions; another one that limits the same view has its own."""

    def __init__(self) -> None:
        self._attribute = f"__flask_ailimit_name_{next(_numbers)}__"
        self._elsewhere: dict[Any, str] = {}  # Of what takes no attribute, such as a bound method.

    def of(self, function: Any) -> str:
        """The name under which something was written on a function, or on what it wraps; else its qualified name."""
        named: str | None = getattr(function, self._attribute, None)
        if named is None and self._elsewhere:
            named = self._elsewhere.get(function)
        return named or _qualified_name(function)

    def of_view(self, app: Flask, endpoint: str | None) -> str:
        """The name of an endpoint's view; empty if there is none."""
        view = app.view_functions.get(endpoint or "")
        return self.of(view) if view else ""

    def give(self, function: Any) -> str:
        """Give a function a name that no other has. What wraps it later, with ``functools.wraps``, has it too."""
        name = f"{_qualified_name(function)}#{next(_numbers)}"
        try:
            setattr(function, self._attribute, name)
        except (AttributeError, TypeError):
            self._elsewhere[function] = name
        return name

    def written_on(self, function: Any) -> str:
        """The name of a function that something is about to be written on."""
        name = self.of(function)
        return self.give(function) if name == _qualified_name(function) else name


def _qualified_name(function: Any) -> str:
    """As Flask-Limiter has it, also of a callable object, which has no name."""
    kind = type(function)
    name = getattr(function, "__name__", kind.__name__)
    return f"{function.__module__}.{name}.{getattr(function, '__qualname__', kind.__qualname__)}"
