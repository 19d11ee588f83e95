"""The decorator that limits a view or a blueprint by plan."""

from collections.abc import Callable
from typing import Any, overload

from flask import Blueprint

from flask_ailimit.limits.view_limit import P, R, wrapped_once


class LimitByPlan:
    """Limits the requests of a view or a blueprint by the plans of their payers; a decorator, like a limit."""

    def __init__(self, limiter: Any) -> None:
        self._limiter = limiter

    @overload
    def __call__(self, obj: Callable[P, R]) -> Callable[P, R]: ...

    @overload
    def __call__(self, obj: Blueprint) -> None: ...

    def __call__(self, obj: Any) -> Any:
        """Limit a view or a blueprint. A view is wrapped once, as by a limit."""
        registry = self._limiter.limit_manager
        if isinstance(obj, Blueprint):
            registry.limit_blueprint_by_plan(obj.name)
            return None
        view = wrapped_once(obj, self._limiter)
        registry.limit_by_plan(registry.names.of(view))
        return view
