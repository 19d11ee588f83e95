"""The wrapper of a limited view, which decides the view's limits before it calls the view.

Flask-Limiter wraps a view once for each decorator, and its wrapper looks up in each request what is the same in all
requests. It also keeps limits under qualified names. Here each wrapper has a unique name, and its limits are forgotten
when the wrapper is gone, because a view may decorate a new function in each request.
"""

import sys
from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, ParamSpec, TypeVar, overload
from weakref import finalize

from flask import Blueprint
from flask_limiter import RouteLimit

from flask_ailimit.current import current_app

P = ParamSpec("P")
R = TypeVar("R")

WRAPPER = "__wrapper-limiter-instance"
"""Attribute of a wrapped view: the limiter that wrapped it."""

_ITSELF = "__flask_ailimit_wrapper__"


class ViewLimit(RouteLimit):
    """A limit of a view or a blueprint; a decorator, like Flask-Limiter's limits."""

    @overload
    def __call__(self, obj: Callable[P, R]) -> Callable[P, R]: ...

    @overload
    def __call__(self, obj: Blueprint) -> None: ...

    def __call__(self, obj: Any) -> Any:
        """Limit a view or a blueprint. A view is wrapped once, and this wrapper decides all of its limits."""
        if isinstance(obj, Blueprint):
            return super().__call__(obj)
        limiter = self.limiter
        view = wrapped_once(obj, limiter)
        limiter.limit_manager.add_decorated_limit(limiter.limit_manager.names.of(view), self)
        return view

    def __enter__(self) -> None:
        """Decide this limit for a ``with`` block, under a name for this place in the code and this limit."""
        frame = sys._getframe(1)
        place = f"{frame.f_code.co_filename}:{frame.f_code.co_name}:{frame.f_lineno}"
        name = self.limiter.limit_manager.name_of_block(place, self)
        self.limiter._check_request_limit(callable_name=name, in_middleware=False)


def wrapped_once(view: Callable[..., Any], limiter: Any) -> Callable[..., Any]:
    """The wrapper of a view, which decides all limits of this limiter: the view itself, if it is such a wrapper."""
    is_wrapper = getattr(view, WRAPPER, None) == limiter and getattr(view, _ITSELF, None) == id(view)
    return view if is_wrapper else _wrapped(view, limiter)


def _wrapped(view: Callable[..., Any], limiter: Any) -> Callable[..., Any]:
    check = limiter._check_request_limit
    is_async = iscoroutinefunction(view)
    # If a decorator of the app stands between two limits, the outer wrapper decides the inner limits, too.
    names = limiter.limit_manager.names
    inner = names.of(view) if getattr(view, WRAPPER, None) == limiter else None

    @wraps(view)
    def call(*args: Any, **kwargs: Any) -> Any:
        check(name, in_middleware=False)
        if inner is not None:
            limiter.note_decided(inner)
        return current_app().ensure_sync(view)(*args, **kwargs) if is_async else view(*args, **kwargs)

    setattr(call, WRAPPER, limiter)
    setattr(call, _ITSELF, id(call))
    before, name = names.of(view), names.give(call)
    limiter._marked_for_limiting.mark(name, view)
    limiter.limit_manager.inherit(name, before, limits=inner is not None)
    finalize(call, _forget, limiter, name).atexit = False
    return call


def _forget(limiter: Any, name: str) -> None:
    try:
        limiter._marked_for_limiting.discard(name)
        limiter.limit_manager.forget(name)
    except ReferenceError:
        pass  # The limiter is gone, too.
