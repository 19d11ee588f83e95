"""All limits and exemptions of a limiter. When one changes, all kept phases are forgotten."""

import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator
from copy import copy
from dataclasses import replace
from functools import partial, reduce
from operator import or_
from types import FunctionType
from typing import Any, TypeGuard

import flask
from flask import Flask
from flask_limiter import ExemptionScope, Limit
from flask_limiter._limits import RuntimeLimit
from flask_limiter._manager import LimitManager

from flask_ailimit.engine import Clock
from flask_ailimit.engine.quota import is_money

from .counting import CountingNow
from .methods import is_on, meets
from .names import Names
from .phase import BlueprintLimit, Phase
from .refused_lately import RefusedLately
from .resolve import resolve
from .same_counts import SameCounts
from .unit_limit import UnitLimit

_MOST_PHASES = 4096
_MOST_BLOCKS = 4096

EXEMPTIONS = ExemptionScope.APPLICATION | ExemptionScope.DEFAULT | ExemptionScope.META
"""What an exempt view is exempt from."""


class LimitRegistry(LimitManager):
    """Flask-Limiter's ``LimitManager``, which also keeps phases, and forgets them when a limit changes.

    Attributes:
        root: The phase before the first one of every request; a new one after each change.
        names: The names of functions.
        refused_lately: The counts that refused a moment ago.
        money_limited: Called when a limit on money is added.
    """

    def __init__(
        self,
        limits: LimitManager,
        clock: Clock,
        counting_now: CountingNow,
        listed_now: Callable[[], Iterable[Limit]],
    ) -> None:
        super().__init__(
            limits._application_limits,
            limits._default_limits,
            limits._decorated_limits,
            limits._blueprint_limits,
            limits._route_exemptions,
            limits._blueprint_exemptions,
        )
        self.names = Names()
        self._listed_now = listed_now
        self._same_counts = SameCounts(self._everywhere, self._on, counting_now)
        self._resolve: Callable[[Limit], list[RuntimeLimit]] = partial(
            resolve, counting_now=counting_now, mark_of=self._same_counts.mark_of
        )
        self._unasked: Callable[[Limit], list[RuntimeLimit]] = partial(self._resolve, ask=False)
        self._inner: dict[str, str] = {}
        self._blocks: dict[tuple[str, Limit], str] = {}
        self._block_numbers = itertools.count(1)
        self._by_plan: set[str] = set()
        self._unlimited: set[str] = set()
        self._blueprints_by_plan: set[str] = set()
        self.refused_lately = RefusedLately(clock)
        self.money_limited: Callable[[], object] = _nothing
        self.changed()

    def resolved(self, limits: Iterable[Limit]) -> list[RuntimeLimit]:
        """Resolve limits for the current request. Raises the same errors as :func:`.resolve.resolve`."""
        return [each for limit in limits for each in self._resolve(limit)]

    def on_method(self, method: str, *, ask: bool) -> "LimitRegistry":
        """A copy that has only the limits on one HTTP method, whatever the method of the current request.

        Args:
            method: The method.
            ask: Call callable limits. Without it, a :class:`.resolve.NotAsked` stands for what each would return.
        """
        resolved = self._resolve if ask else self._unasked

        def on_this_method(limit: Limit) -> list[RuntimeLimit]:
            if not is_on(limit.methods, method):
                return []
            return [replace(each, methods=None) for each in resolved(limit)]

        copied = copy(self)
        copied._resolve = on_this_method
        return copied

    def of_inner_functions(self, app: Flask) -> list[tuple[str, list[RuntimeLimit]]]:
        """The limits of each function that is no view of the app, unasked: views may call them."""
        views = {self.names.of(view) for view in app.view_functions.values()}
        wrapped = {name for view in views for name in self._names_within(view)}
        blocks = {*self._blocks.values()}
        return [
            (name.partition("#")[0], [each for limit in limits for each in self._unasked(limit)])
            for name, limits in self._decorated_limits.items()
            if name not in wrapped | blocks
        ]

    def providers_for_all(self) -> list[object]:
        """The limits of every route as the app wrote them: texts and callables."""
        return [limit.limit_provider for limit in (*self._application_limits, *self._default_limits)]

    def changed(self) -> None:
        """Forget all kept phases, so that all limits are resolved again."""
        self.root = Phase()
        self._remembered = 0
        self._same_counts.changed()

    def remember(self, before: Phase, key: Hashable, phase: Phase) -> None:
        """Keep a phase in the phase before it. When there are too many phases, all of them are forgotten.

        A client may be able to make new phases, if it can choose how often a helper is called, or an endpoint's name.
        """
        if self._remembered >= _MOST_PHASES:
            self.changed()
        else:
            self._remembered += 1
            before.next_phases[key] = phase

    def set_application_limits(self, limits: Any) -> None:  # noqa: D102  the base's, as those below
        super().set_application_limits(limits)
        self.changed()

    def set_default_limits(self, limits: Any) -> None:  # noqa: D102
        super().set_default_limits(limits)
        self.changed()

    def add_decorated_limit(self, route: str, limit: Limit | None, override: bool = False) -> None:  # noqa: D102
        self._see_to_money(limit)
        before = [*self._decorated_limits.get(route, ())]
        super().add_decorated_limit(route, limit, override)
        if before != [*self._decorated_limits.get(route, ())]:
            self.changed()

    def add_blueprint_limit(self, blueprint: str, limit: Limit | None) -> None:  # noqa: D102
        self._see_to_money(limit)
        super().add_blueprint_limit(blueprint, limit)
        self.changed()

    def add_route_exemption(self, route: str, scope: ExemptionScope) -> None:  # noqa: D102
        super().add_route_exemption(route, scope)
        self.changed()

    def add_blueprint_exemption(self, blueprint: str, scope: ExemptionScope) -> None:  # noqa: D102
        super().add_blueprint_exemption(blueprint, scope)
        self.changed()

    def limit_by_plan(self, name: str) -> None:
        """Limit a function by plan."""
        self._by_plan.add(name)
        self.changed()

    def limit_blueprint_by_plan(self, blueprint: str) -> None:
        """Limit the views of a blueprint by plan."""
        self._blueprints_by_plan.add(blueprint)
        self.changed()

    @property
    def on_money(self) -> list[UnitLimit]:
        """The limits on money of functions and blueprints."""
        written = itertools.chain(*self._decorated_limits.values(), *self._blueprint_limits.values())
        return [limit for limit in written if _is_of_money(limit)]

    def _see_to_money(self, limit: Limit | None) -> None:
        if _is_of_money(limit):
            self.money_limited()

    @property
    def has_any_by_plan(self) -> bool:
        """Whether any function or blueprint is limited by plan."""
        return bool(self._by_plan or self._blueprints_by_plan)

    def is_function_by_plan(self, name: str) -> bool:
        """Whether a function, or one that it wraps, is limited by plan."""
        return any(each in self._by_plan for each in self._names_within(name))

    def is_view_by_plan(self, app: Flask, endpoint: str, blueprint: str | None, *, everywhere: bool) -> bool:
        """Whether an endpoint's view is limited by plan. What lifts the limits of the application lifts those, too.

        Args:
            app: The app.
            endpoint: Flask's name of the endpoint.
            blueprint: The name of its blueprint.
            everywhere: Whether every route is, unless it is exempt.
        """
        name = self._name_of_view(app, endpoint)
        if self._route_exemptions.get(name, ExemptionScope.NONE) & ExemptionScope.APPLICATION:
            return False
        if self.is_function_by_plan(name):
            return True
        if self.exemption_scope(app, endpoint, blueprint) & ExemptionScope.APPLICATION:
            return False
        return everywhere or self._is_blueprint_by_plan(app, blueprint or "")

    def _is_blueprint_by_plan(self, app: Flask, blueprint: str) -> bool:
        parts = blueprint.split(".")
        for end in range(len(parts), 0, -1):
            found = app.blueprints.get(".".join(parts[:end]))
            if found is not None and found.name in self._blueprints_by_plan:
                return True
            if found is not None and self._blueprint_exemptions.get(found.name, ExemptionScope.NONE) & (
                ExemptionScope.ANCESTORS
            ):
                return False
        return False

    def has_hints(self, endpoint: str) -> bool:  # noqa: ARG002, D102
        return False  # A limited function in a view must not lift the view's limits: the next request may not call it.

    def leave_unlimited(self, view: Callable[..., object]) -> None:
        """Exempt a view of ours from all limits, unless the app decorates it."""
        name = self.names.of(view)
        self._unlimited.add(name)
        self.add_route_exemption(name, EXEMPTIONS)

    def inherit(self, name: str, before: str, *, limits: bool) -> None:
        """Give a wrapper the exemption of the function ``before``, which it wraps, and with ``limits`` its limits."""
        if before in self._route_exemptions and before not in self._unlimited:
            self._route_exemptions[name] = self._route_exemptions[before]
        if limits:
            self._inner[name] = before
        self.changed()

    def forget(self, name: str) -> None:
        """Drop the limits and the exemption of a function that is gone."""
        self._inner.pop(name, None)
        self._route_exemptions.pop(name, None)
        self._by_plan.discard(name)
        if self._decorated_limits.pop(name, None) is not None:
            self.changed()

    def name_of_block(self, place: str, limit: Limit) -> str:
        """The name of a ``with`` block with this limit. A block may have another limit each time that it runs."""
        name = self._blocks.get((place, limit))
        if name is None:
            self._see_to_money(limit)
            if len(self._blocks) >= _MOST_BLOCKS:
                self._forget_blocks()
            name = self._blocks[place, limit] = f"{place}#{next(self._block_numbers)}"
            super().add_decorated_limit(name, limit)
        return name

    def _forget_blocks(self) -> None:
        blocks, self._blocks = self._blocks, {}
        for name in blocks.values():
            self._decorated_limits.pop(name, None)
        self.changed()

    def _name_of_view(self, app: Flask, endpoint: str | None) -> str:
        """The name of an endpoint's view. If the app gives endpoints its own names, the name of the request's view."""
        return self.names.of_view(app, endpoint if endpoint in app.view_functions else flask.request.endpoint)

    def _written_on(self, name: str) -> Iterator[Limit]:
        """The limits of a function and of the functions that it wraps."""
        for each in self._names_within(name):
            yield from self._decorated_limits.get(each, ())

    def _names_within(self, name: str) -> Iterator[str]:
        """The names of a function and of the functions that it wraps."""
        within: str | None = name
        while within is not None:
            yield within
            within = self._inner.get(within)

    @property
    def application_limits(self) -> list[RuntimeLimit]:
        """The limits of every route, for the current request."""
        return self.resolved(self._application_limits)

    @property
    def default_limits(self) -> list[RuntimeLimit]:
        """The limits of every route that has none of its own, for the current request."""
        return self.resolved(self._default_limits)

    def decorated_limits(self, callable_name: str) -> list[RuntimeLimit]:  # noqa: D102
        if self._route_exemptions.get(callable_name):
            return []
        return _on_get_and_head(self.resolved(self._written_on(callable_name)))

    def exemption_scope(self, app: Flask, endpoint: str | None, blueprint: str | None) -> ExemptionScope:  # noqa: D102
        exempt = self._route_exemptions.get(self._name_of_view(app, endpoint), ExemptionScope.NONE)
        if blueprint not in app.blueprints:
            return exempt
        scope, of_ancestors = self._blueprint_exemption_scope(app, blueprint)
        if scope & ~(ExemptionScope.DEFAULT | ExemptionScope.APPLICATION) or of_ancestors:
            scope = reduce(or_, of_ancestors.values(), scope)
        return exempt | scope

    def blueprint_limits(self, app: Flask, blueprint: str) -> list[RuntimeLimit]:  # noqa: D102
        found = app.blueprints.get(blueprint)
        if found is None:
            return []
        exempt, exempt_ancestors = self._blueprint_exemption_scope(app, blueprint)
        if exempt & ~(ExemptionScope.DEFAULT | ExemptionScope.APPLICATION):
            return []
        own: Iterable[Limit] = self._blueprint_limits.get(found.name, [])
        alone = self._blueprint_exemptions.get(found.name, ExemptionScope.NONE) & ExemptionScope.ANCESTORS
        if not alone:
            family = [name for name in self._blueprint_limits if name in blueprint.split(".")]
            of_all = itertools.chain(*(self._blueprint_limits[name] for name in family if name not in exempt_ancestors))
            if own and all(limit.override_defaults for limit in own):  # They lift only other limits on requests.
                own = [*own, *(limit for limit in of_all if isinstance(limit, UnitLimit))]
            else:
                own = of_all
        return _on_get_and_head([BlueprintLimit(**vars(limit)) for limit in self.resolved(own)])

    def resolve_limits(  # noqa: D102
        self,
        app: Flask,
        endpoint: str | None = None,
        blueprint: str | None = None,
        callable_name: str | None = None,
        in_middleware: bool = False,
        marked_for_limiting: bool = False,
    ) -> tuple[list[RuntimeLimit], ...]:
        view = self._name_of_view(app, endpoint)
        exempt = self.exemption_scope(app, endpoint, blueprint)
        if in_middleware and marked_for_limiting:
            return [], []  # The view's decorator decides all limits at once.
        if not in_middleware and callable_name and callable_name != view:
            # The view called this function, and the limits of the view are decided already.
            return [], self.decorated_limits(callable_name)
        asked = in_middleware or callable_name  # Otherwise the application limits are left out.
        limits = self.application_limits if asked and not exempt & ExemptionScope.APPLICATION else []
        if not endpoint:
            return limits, []
        decorated = [] if in_middleware else self.decorated_limits(view)
        if blueprint and not _override(decorated):
            decorated += self.blueprint_limits(app, blueprint)
        if not exempt & ExemptionScope.DEFAULT and not _override(decorated):
            limits += self.default_limits
        return limits, decorated

    def _everywhere(self, app: Flask) -> Iterator[Limit]:
        """The limits of all routes: those of lists, of blueprints and of views."""
        yield from (*self._application_limits, *self._listed_now(), *self._default_limits)
        yield from itertools.chain(*self._blueprint_limits.values())
        for view in app.view_functions.values():
            yield from self._on_view(view)

    def _on(self, app: Flask, endpoint: str) -> Iterator[Limit]:
        """The limits that an endpoint's view may meet; none if the app names the endpoints of counts itself."""
        view = app.view_functions.get(endpoint)
        if view is None:
            return
        yield from self._on_view(view)
        path = endpoint.rpartition(".")[0]
        found = app.blueprints.get(path)
        names = {*path.split("."), found.name if found else ""}
        yield from itertools.chain(*(limits for name, limits in self._blueprint_limits.items() if name in names))
        yield from (*self._listed_now(), *self._default_limits)

    def _on_view(self, view: Callable[..., object]) -> Iterator[Limit]:
        """The limits of a view, and if it is a class, of its methods."""
        yield from self._written_on(self.names.of(view))
        for each in reversed(getattr(getattr(view, "view_class", None), "__mro__", ())):
            for method in vars(each).values():
                if isinstance(method, FunctionType):
                    yield from self._written_on(self.names.of(method))

    def may_change(self, name: str, others: Iterable[Limit]) -> bool:
        """Whether the next request may have other limits, because a callable returns one of them."""
        groups = itertools.chain(
            others,
            self._application_limits,
            self._default_limits,
            self._written_on(name),
            *self._blueprint_limits.values(),
        )
        return any(map(_is_asked_each_time, groups))


class ResolvedInTurn(list[Limit]):
    """Limits over which Flask-Limiter iterates. Each is resolved for the current request when its turn comes."""

    def __init__(self, limits: Iterable[Limit], registry: LimitRegistry) -> None:
        super().__init__(limits)
        self._registry = registry

    def __iter__(self) -> Any:
        return map(self._resolved, super().__iter__())

    def _resolved(self, limit: Limit) -> list[RuntimeLimit]:
        return self._registry.resolved([limit])


def _override(limits: Iterable[RuntimeLimit]) -> bool:
    """Whether one of the limits on the current request's method overrides others."""
    return any(limit.override_defaults and meets(limit.methods, flask.request) for limit in limits)


def _on_get_and_head(limits: list[RuntimeLimit]) -> list[RuntimeLimit]:
    """Add HEAD to the limits on GET, so that Flask-Limiter applies them to it. Changes and returns the limits."""
    for limit in limits:
        if limit.methods is not None and "get" in limit.methods:
            limit.methods = (*limit.methods, "head")
    return limits


def _is_of_money(limit: Limit | None) -> TypeGuard[UnitLimit]:
    return isinstance(limit, UnitLimit) and is_money(limit.unit)


def _nothing() -> None:
    """What follows from a limit on money where no app is served yet."""


def _is_asked_each_time(limit: object) -> bool:
    """Whether a callable returns the limit or one of its meta limits."""
    asked = getattr(limit, "limit_provider", limit)
    return callable(asked) or any(map(_is_asked_each_time, getattr(limit, "meta_limits", None) or ()))
