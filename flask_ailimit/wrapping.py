"""The wrapper of a limited view, which asks for its limits before it calls it.

Flask-Limiter wraps a view once for each decorator, and its wrapper looks a few things up in each request that are the
same in all of them.
"""

from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, ParamSpec, TypeVar, overload

from flask import Blueprint
from flask_limiter import RouteLimit
from flask_limiter.util import get_qualified_name

from .current import current_app

P = ParamSpec("P")
R = TypeVar("R")

WRAPPER = "__wrapper-limiter-instance"
"""Where Flask-Limiter notes on a view that it has wrapped whose limits the wrapper asks for."""


class ViewLimit(RouteLimit):
    """A limit of a view or a blueprint; a decorator, as Flask-Limiter's own."""

    @overload
    def __call__(self, obj: Callable[P, R]) -> Callable[P, R]: ...

    @overload
    def __call__(self, obj: Blueprint) -> None: ...

    def __call__(self, obj: Any) -> Any:
        """Limit a view or a blueprint. A view is wrapped once, and that wrapper asks for all of its limits."""
        if isinstance(obj, Blueprint):
            return super().__call__(obj)
        limiter, name = self.limiter, get_qualified_name(obj)
        limiter._marked_for_limiting.add(name)
        limiter.limit_manager.add_decorated_limit(name, self)
        return obj if getattr(obj, WRAPPER, None) == limiter else _wrapped(obj, limiter, name)


def _wrapped(view: Callable[..., Any], limiter: Any, name: str) -> Callable[..., Any]:
    check = limiter._check_request_limit
    is_async = iscoroutinefunction(view)

    @wraps(view)
    def call(*args: Any, **kwargs: Any) -> Any:
        check(name, in_middleware=False)
        return current_app().ensure_sync(view)(*args, **kwargs) if is_async else view(*args, **kwargs)

    setattr(call, WRAPPER, limiter)
    return call
