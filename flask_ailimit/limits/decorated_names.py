"""Keeps the names of decorated functions, and warns about functions that were decorated too late."""

import warnings
from collections.abc import Callable, Collection, Iterable
from types import FunctionType
from typing import Any
from weakref import WeakSet

from flask import Flask


class DecoratedNames(set[str]):
    """The names of decorated functions. It replaces the set in which Flask-Limiter keeps them.

    A decorator above ``@app.route`` comes too late: the app already has the function without the limit, and calls that.
    """

    def __init__(self, apps: Iterable[Flask]) -> None:
        super().__init__()
        self._apps = apps
        self._bare: WeakSet[Callable[..., Any]] = WeakSet()

    def mark(self, name: str, bare: Callable[..., Any]) -> None:
        """Add the new name of a decorated function, and warn if an app has the function without its limit."""
        self.add(name)
        if isinstance(bare, FunctionType):  # A bound method is a new object at each access.
            self._bare.add(bare)
        for app in self._apps:
            self.look_for_bypassed(app, (bare,), stacklevel=6)

    def look_for_bypassed(self, app: Flask, bare: Collection[Callable[..., Any]] = (), *, stacklevel: int = 3) -> None:
        """Warn of the app's views that were decorated too late: of these in ``bare``, or of all if it is empty."""
        wanted = bare or self._bare
        for view in app.view_functions.values():
            if isinstance(view, FunctionType) and view in wanted:
                warnings.warn(
                    f"{view.__qualname__} is called without its limit: the app had it before it was limited. "
                    "Put the limiter's decorators below @app.route.",
                    RuntimeWarning,
                    stacklevel=stacklevel,
                )
