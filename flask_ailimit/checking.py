"""What Flask-Limiter finds out at the first request, if at all: found out when it is written.

It logs a limit that it can't read and lets everybody pass, and it never sees a decorator above ``@app.route``.
"""

import re
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from types import FunctionType
from typing import Any
from weakref import WeakSet

from flask import Flask
from flask_limiter import Limit

from .config import require_policy
from .engine import ConfigurationError
from .engine.charge import require_cost
from .resolving import request_items
from .unlimited import UNLIMITED

_CALLED = ("deduct_when", "exempt_when", "key_func", "on_breach")
_METHOD = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_LISTS = ("application_limits", "default_limits", "in_memory_fallback", "meta_limits")


def require_options(options: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse options of the constructor that don't exist, and lists of limits that can't be read.

    Raises:
        ConfigurationError: The message says what was meant, or what to write.
    """
    names = sorted(known)
    for option in options:
        if option not in names:
            close = get_close_matches(option, names, n=1)
            hint = f"Did you mean {close[0]}?" if close else "See docs/configuration.md, and Flask-Limiter's."
            raise ConfigurationError(f"{option[:40]}: there is no such option. {hint}")
    for name in _LISTS:
        limits = options.get(name) or ()
        if isinstance(limits, str):
            raise ConfigurationError(f"{name}: a list is needed, such as ['10 per minute']. Got {limits[:80]!r}.")
        for limit in limits:
            require_request_limit(name, limit)


def require_decorator(name: str, limit: object, options: Mapping[str, Any]) -> None:
    """Refuse what can't be the limit or the options of a decorator for requests.

    Raises:
        ConfigurationError: The message says what to write.
    """
    require_request_limit(name, limit)
    require_methods(options.get("methods"))
    require_callables(**{name: options.get(name) for name in _CALLED})
    cost = options.get("cost", 1)
    if not callable(cost):
        try:
            require_cost(cost)
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
    require_policy_if_given(options.get("on_store_error"))


def require_request_limit(setting: str, limit: object) -> None:
    """Refuse a limit on requests that can't be read or counted. A callable is asked in each request.

    Raises:
        ConfigurationError: The message gives an example.
    """
    value = limit
    if isinstance(limit, Limit):
        value = limit.limit_provider
        require_methods(limit.methods)
    if callable(value) or value is UNLIMITED:
        return
    try:
        request_items(value if isinstance(value, str) else repr(value)[:80], "fixed-window")
    except ConfigurationError as error:
        raise ConfigurationError(f"{setting}: {error}.") from error


def require_methods(methods: object) -> None:
    """Refuse what is no list of HTTP methods. A text would be taken for its letters, and limit nothing.

    Raises:
        ConfigurationError: The message gives an example.
    """
    if methods is None:
        return
    names = methods if isinstance(methods, list | tuple | set | frozenset) else ()
    if not names or not all(isinstance(each, str) and _METHOD.fullmatch(each) for each in names):
        raise ConfigurationError(f"methods: a list of HTTP methods is needed, such as ['POST']. Got {methods!r:.80}.")


def require_policy_if_given(policy: object) -> None:
    """Refuse what is no failure policy. None is one that was not given.

    Raises:
        ConfigurationError: It is none.
    """
    if policy is not None:
        require_policy(policy)


def require_callables(**options: object) -> None:
    """Refuse an option that is to be called and can't be. None is an option that was not given.

    Raises:
        ConfigurationError: It can't be called.
    """
    for name, value in options.items():
        if value is not None and not callable(value):
            raise ConfigurationError(f"{name}: a callable is needed. Got {str(value)[:80]!r}.")


class Marked(set[str]):
    """The names of decorated functions, in the place where Flask-Limiter keeps them.

    A decorator above ``@app.route`` comes too late: the app has got the function below it and calls that, without the
    limit.
    """

    def __init__(self, apps: Iterable[Flask]) -> None:
        super().__init__()
        self._apps = apps
        self._bare: WeakSet[Callable[..., Any]] = WeakSet()

    def mark(self, name: str, bare: Callable[..., Any]) -> None:
        """Note a decorated function by its new name, and warn if an app has it as it was before."""
        self.add(name)
        if isinstance(bare, FunctionType):  # A bound method is another object each time.
            self._bare.add(bare)
        for app in self._apps:
            self.look_for_bypassed(app, (bare,), stacklevel=5)

    def look_for_bypassed(self, app: Flask, bare: Collection[Callable[..., Any]] = (), *, stacklevel: int = 3) -> None:
        """Warn of the app's views that were decorated too late: of some functions, or of all."""
        wanted = bare or self._bare
        for view in app.view_functions.values():
            if isinstance(view, FunctionType) and view in wanted:
                warnings.warn(
                    f"{view.__qualname__} is called without its limit: the app had it before it was limited. "
                    "Put the limiter's decorators below @app.route.",
                    RuntimeWarning,
                    stacklevel=stacklevel,
                )
