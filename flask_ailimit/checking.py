"""What Flask-Limiter finds out at the first request, if at all: found out when it is written.

It logs a limit that it can't read and lets everybody pass, and it never sees a decorator above ``@app.route``.
"""

import warnings
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from flask import Flask
from flask_limiter import Limit
from flask_limiter.util import get_qualified_name
from limits import parse_many

from .engine import ConfigurationError
from .engine.charge import require_cost
from .token_limit import quota_of
from .wrapping import WRAPPER

_CALLED = ("deduct_when", "exempt_when", "key_func", "on_breach")
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
    require_callables(**{name: options.get(name) for name in _CALLED})
    cost = options.get("cost", 1)
    if not callable(cost):
        try:
            require_cost(cost)
        except ValueError as error:
            raise ConfigurationError(str(error)) from error


def require_request_limit(setting: str, limit: object) -> None:
    """Refuse a limit on requests that can't be read or counted. A callable is asked in each request.

    Raises:
        ConfigurationError: The message gives an example.
    """
    value = limit.limit_provider if isinstance(limit, Limit) else limit
    if callable(value):
        return
    try:
        for item in parse_many(value):  # type: ignore[arg-type]  # it checks
            quota_of(item, "fixed-window")
    except ValueError as error:
        raise ConfigurationError(
            f"{setting}: {str(value)[:80]!r} can't be used. Write a count from 1 and a period, such as "
            "'10 per minute', '100/second' or '5000 per 2 hours'; separate several with ';'."
        ) from error


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
    limit, and without the default limits too, since its name is among these.
    """

    def __init__(self, apps: Iterable[Flask]) -> None:
        super().__init__()
        self._apps = apps

    def add(self, name: str) -> None:
        """Note a decorated function, and warn if an app has it as it was before."""
        super().add(name)
        for app in self._apps:
            self.look_for_bypassed(app, {name}, stacklevel=4)

    def look_for_bypassed(self, app: Flask, names: Iterable[str] = (), *, stacklevel: int = 3) -> None:
        """Warn of the app's views that were decorated too late: of those of some names, or of all."""
        wanted = names or self
        for view in app.view_functions.values():
            if not hasattr(view, WRAPPER) and get_qualified_name(view) in wanted:
                warnings.warn(
                    f"{view.__qualname__} is called without its limit: the app had it before it was limited. "
                    "Put the limiter's decorators below @app.route.",
                    RuntimeWarning,
                    stacklevel=stacklevel,
                )
