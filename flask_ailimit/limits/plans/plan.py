"""What a plan allows, as it was read: immutable, and the same for every payer that has it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import translate
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

from flask_ailimit.engine import Calendar
from flask_ailimit.engine.limit_text import USUAL
from flask_ailimit.engine.quota import REQUESTS, UTC
from flask_ailimit.money import PriceBook, Weights
from flask_ailimit.money.unknown import REFUSED, UnknownPrice
from flask_ailimit.unlimited import Unlimited
from flask_ailimit.upstream.settings import UpstreamSettings

ANY = "*"
"""The pattern of every model, and the only one that a request without a model matches."""

BUDGET = "budget"
"""What a plan calls its limit on money."""

NO_PAYERS, ALL_PAYERS = 0, 100
"""Of the payers of a plan, in percent."""


class Source(NamedTuple):
    """Where the value of a limit was set.

    Attributes:
        kind: ``plan``, ``candidate`` (a value that the plan tries), ``change`` (an operator has changed it for one
            payer), ``boost`` (for a time) or ``try`` (an operator tries it on one payer).
        until: The end of a boost, seconds since the epoch; else None.
    """

    kind: str
    until: int | None = None


IN_PLAN = Source("plan")
CANDIDATE = Source("candidate")
TRY = "try"


@dataclass(frozen=True)
class PlanLimit:
    """A limit of a plan, in the words of the decorators.

    Attributes:
        unit: What is counted.
        value: A text such as ``10 per minute``; of calls in flight a number; UNLIMITED for no limit; of money 0 for
            nothing.
        burst: The most that a token bucket gives at once; None for the limit.
        algorithm: How it is counted; None for the usual.
        lease: Seconds after which the slot of a killed process is free; only calls in flight have it.
        cost: What a request costs in a unit of the app's own.
        name: What clients call it; "" for the name that is made of unit and period.
        in_headers: Whether clients may be told of it.
        candidate: A value that is tried in place of this one; None without one.
        enforced_percent: The part of the payers for whom the candidate holds; without a candidate, the limit itself.
            For the others it is only tried. None for the usual: no payer for a candidate, else all.
        soft_percent: From which part on is told that it is nearly used up; None for the app's own.
        source: Where its value was set.
        shadow: It is only tried: it refuses nothing.
        beside: It is tried beside a limit of the same window that holds, and so has a count of its own.
        calendar: The calendar of its windows.
        weights: How much each kind of token counts for in a limit on tokens; None for what it is.
        unknown_price: What becomes of a request in a limit on money, if its model has no price.
    """

    unit: str
    value: str | int | Unlimited
    burst: int | None = None
    algorithm: str | None = None
    lease: int = 60
    cost: int = 1
    name: str = ""
    in_headers: bool = True
    candidate: str | int | Unlimited | None = None
    enforced_percent: int | None = None
    soft_percent: int | None = None
    source: Source = IN_PLAN
    shadow: bool = False
    beside: bool = False
    calendar: Calendar = UTC
    weights: Weights | None = None
    unknown_price: UnknownPrice = REFUSED

    @property
    def percent(self) -> int:
        """The part of the payers for whom the candidate holds; without a candidate, the limit itself."""
        if self.enforced_percent is not None:
            return self.enforced_percent
        return ALL_PAYERS if self.candidate is None else NO_PAYERS

    @property
    def tries(self) -> bool:
        """Whether payers differ in what holds for them."""
        return self.candidate is not None or self.percent < ALL_PAYERS

    def usual_algorithm(self, algorithm_of_requests: str) -> str:
        """How it is counted over a fixed length of time, in an app that counts requests by this algorithm."""
        return algorithm_of_requests if self.unit == REQUESTS and self.burst is None else USUAL


@dataclass(frozen=True)
class ModelRule:
    """What a plan says of the models that match a pattern. All of them share the counts of its limits.

    Attributes:
        pattern: As of :func:`fnmatch.fnmatchcase`.
        is_allowed: Whether the plan has these models.
        limits: Their limits, besides those of all models.
    """

    pattern: str
    is_allowed: bool = True
    limits: tuple[PlanLimit, ...] = ()
    _compiled: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_compiled", re.compile(translate(self.pattern)))

    @property
    def is_only_tried(self) -> bool:
        """Whether it has limits, and each of them is only tried."""
        return bool(self.limits) and all(limit.shadow for limit in self.limits)

    def matches(self, model: str | None) -> bool:
        """Whether the model matches; None for a request that names none."""
        return self.pattern == ANY if model is None else self._compiled.match(model) is not None


@dataclass(frozen=True)
class Plan:
    """A plan.

    Attributes:
        name: Its name.
        limits: The limits over all models together.
        models: The rules for models; the first that matches holds. None if the plan says nothing of models.
        has_others: Whether the plan also has models that no rule matches.
        service_class: The class in which a request of its payers takes from the service's limits; None for none.
        floor: Percent of each of its limits that a request leaves to others. Only the service's plan has one, as it
            holds for a class.
        key: What tells it from other plans: its name, unless values in it were changed for a payer.
        variants: What it comes to for payers, see :mod:`.tried`; made as they come.
    """

    name: str
    limits: tuple[PlanLimit, ...]
    models: tuple[ModelRule, ...] | None = None
    has_others: bool = True
    service_class: str | None = None
    floor: int = 0
    key: str = ""
    variants: dict[int, "Plan"] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.key:
            object.__setattr__(self, "key", self.name)

    @cached_property
    def percents(self) -> tuple[int, ...]:
        """The parts of the payers for whom something that is tried holds, in percent, rising; empty without any."""
        every = [*self.limits, *(limit for rule in self.models or () for limit in rule.limits)]
        return tuple(sorted({limit.percent for limit in every if limit.tries}))

    @cached_property
    def needs_model(self) -> bool:
        """Whether the answer to a request depends on its model: not if the plan only tries limits of models."""
        return self.models is not None and not (self.has_others and all(rule.is_only_tried for rule in self.models))

    def rule_for(self, model: str | None) -> ModelRule | None:
        """The first rule that the model matches; None if there is none.

        One whose limits are only tried is passed over if another one matches: it changes nothing of what holds.
        """
        tried = None
        for rule in self.models or ():
            if rule.matches(model):
                if not rule.is_only_tried:
                    return rule
                tried = tried or rule
        return tried

    def leaving(self, floor: int) -> "Plan":
        """This plan, under which a request leaves so many percent of each limit to others."""
        # No name has this sign: so it is no other plan's key.
        return replace(self, floor=floor, key=f"{self.key}%{floor}") if floor else self

    def has(self, rule: ModelRule | None) -> bool:
        """Whether the plan has the models of a rule; of None: those that no rule matches."""
        return self.has_others if rule is None else rule.is_allowed


class Plans(NamedTuple):
    """All plans of an app.

    Attributes:
        source: Where they were read, for messages.
        plans: The plans by name.
        service: The limits of everybody together; None without any.
        default: The plan of a payer without one; None if such a payer is turned away.
        classes: The service's plan as it holds for each class, by the class's name.
        prices: What models cost; None if the file doesn't say it.
        upstreams: What the file says of upstreams, by their names.
    """

    source: str
    plans: Mapping[str, Plan]
    service: Plan | None
    default: Plan | None
    classes: Mapping[str, Plan] = MappingProxyType({})
    prices: PriceBook | None = None
    upstreams: Mapping[str, UpstreamSettings] = MappingProxyType({})
