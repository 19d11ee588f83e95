"""Flask-Limiter's list of limits and exemptions, which says when it has changed: then what was planned is void."""

import itertools
from collections.abc import Iterable
from typing import Any

from flask_limiter import ExemptionScope, Limit
from flask_limiter._manager import LimitManager

from .planning import Phase


class WatchedLimits(LimitManager):
    """Flask-Limiter's limits, which say when they have changed, and which of them may change by themselves.

    Attributes:
        start: Where every request begins; another one after a change.
    """

    def __init__(self, limits: LimitManager) -> None:
        super().__init__(
            limits._application_limits,
            limits._default_limits,
            limits._decorated_limits,
            limits._blueprint_limits,
            limits._route_exemptions,
            limits._blueprint_exemptions,
        )
        self._temporary: set[str] = set()
        self.changed()

    def changed(self) -> None:
        """Resolve everything again."""
        self.start = Phase()

    def set_application_limits(self, limits: Any) -> None:  # noqa: D102  the base's, as those below
        super().set_application_limits(limits)
        self.changed()

    def set_default_limits(self, limits: Any) -> None:  # noqa: D102
        super().set_default_limits(limits)
        self.changed()

    def add_decorated_limit(self, route: str, limit: Limit | None, override: bool = False) -> None:  # noqa: D102
        before = self._decorated_limits.get(route)
        super().add_decorated_limit(route, limit, override)
        if override and before is not None:  # A context manager's, added again in each request.
            if route in self._temporary or before == self._decorated_limits[route]:
                return
            self._temporary.add(route)
        self.changed()

    def add_blueprint_limit(self, blueprint: str, limit: Limit | None) -> None:  # noqa: D102
        super().add_blueprint_limit(blueprint, limit)
        self.changed()

    def add_route_exemption(self, route: str, scope: ExemptionScope) -> None:  # noqa: D102
        super().add_route_exemption(route, scope)
        self.changed()

    def add_blueprint_exemption(self, blueprint: str, scope: ExemptionScope) -> None:  # noqa: D102
        super().add_blueprint_exemption(blueprint, scope)
        self.changed()

    def add_endpoint_hint(self, endpoint: str, callable: str) -> None:  # noqa: A002, D102
        known = callable in self._endpoint_hints.get(endpoint, ())
        super().add_endpoint_hint(endpoint, callable)
        if not known:
            self.changed()

    def may_change(self, endpoint: str, caller: str, others: Iterable[Limit]) -> bool:
        """Whether the limits of an endpoint, or ``others``, may be different ones in the next request."""
        names = {caller, *self._endpoint_hints.get(endpoint, ())}
        groups = itertools.chain(
            others,
            self._application_limits,
            self._default_limits,
            *(self._decorated_limits.get(name, ()) for name in names),
            *self._blueprint_limits.values(),
        )
        return not names.isdisjoint(self._temporary) or any(map(_is_asked_each_time, groups))


def _is_asked_each_time(limit: object) -> bool:
    """Whether a callable says what the limit is, or what one of its meta limits is."""
    asked = getattr(limit, "limit_provider", limit)
    return callable(asked) or any(map(_is_asked_each_time, getattr(limit, "meta_limits", None) or ()))
