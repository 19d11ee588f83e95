"""Plans that are being imported, until they are written as a plan file."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from flask_ailimit.engine import ConfigurationError, parse_quotas
from flask_ailimit.engine.algorithms import OVER_TIME
from flask_ailimit.engine.quota import CONCURRENCY, MOST_IN_FLIGHT, REQUESTS
from flask_ailimit.limits.plans.plan import ANY
from flask_ailimit.money.book import LONGEST_MODEL

from .values import shown

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_WILD = re.compile(r"[*?[]")
_NO_LIMIT = "unlimited"
OPEN = "# There was no limit that a plan file can have. Without one, this plan is open."
"""The line of a plan that allows everything."""


@dataclass
class Limits:
    """Limits, by unit and period.

    Attributes:
        amounts: What is allowed of a unit in a period, such as ``{("tokens", "minute"): 9000}``.
        in_flight: Calls in flight; None for no limit.
        remarks: What could not be carried over.
    """

    amounts: dict[tuple[str, str], int] = field(default_factory=dict)
    in_flight: int | None = None
    remarks: list[str] = field(default_factory=list)

    def add(self, unit: str, period: str, amount: int | None) -> None:
        """Allow so much of a unit in a period. Of two amounts the smaller holds; None is no limit."""
        if amount is not None:
            before = self.amounts.get((unit, period), amount)
            self.amounts[unit, period] = min(before, amount)

    def values(self) -> dict[str, str | int]:
        """The values that a plan file has for them, by key. A remark is made of each that can't be counted."""
        found: dict[str, str | int] = {}
        for unit in dict.fromkeys(unit for unit, _ in self.amounts):
            of_unit = {period: amount for (each, period), amount in self.amounts.items() if each == unit}
            counted = []
            for period, amount in of_unit.items():
                if _is_countable(unit, f"{amount} per {period}"):
                    counted.append(f"{amount} per {period}")
                else:
                    self.remarks.append(f"{unit}: {shown(amount)} a {period}, more than can be counted")
            found[unit] = 0 if 0 in of_unit.values() else "; ".join(counted) or _NO_LIMIT
        if self.in_flight is not None and self.in_flight > MOST_IN_FLIGHT:
            self.remarks.append(
                f"calls in flight: {shown(self.in_flight)}, more than the {MOST_IN_FLIGHT} that can be counted"
            )
            found[CONCURRENCY] = _NO_LIMIT
        elif self.in_flight is not None:
            found[CONCURRENCY] = self.in_flight
        return found


@dataclass
class Draft:
    """A plan.

    Attributes:
        name: Its name in the file.
        limits: The limits over all models.
        models: The limits of patterns; None for models that are not allowed.
        others: Whether models that match no pattern are allowed.
    """

    name: str
    limits: Limits = field(default_factory=Limits)
    models: dict[str, Limits | None] = field(default_factory=dict)
    others: bool = True

    def remark(self, *remarks: str) -> None:
        """Say what could not be carried over."""
        self.limits.remarks += remarks

    def limits_of(self, pattern: str) -> Limits | None:
        """The limits of a pattern, to add some; None, with a remark, if no request can match the pattern."""
        if 0 < len(pattern) <= LONGEST_MODEL and pattern.isprintable():
            limits = self.models.setdefault(pattern, Limits())
            assert limits is not None  # noqa: S101  only what the file writes itself is None
            return limits
        self.remark(f"model {shown(pattern)}: no model can have this name")
        return None

    def lines(self) -> Iterator[str]:
        """The plan as lines of a plan file."""
        values = self.limits.values()
        of_models = {pattern: None if each is None else each.values() for pattern, each in self.models.items()}
        if not self.others:
            of_models[ANY] = None
        table = f"plans.{key(self.name)}"
        yield f"[{table}]"
        yield from comments(self.limits.remarks)
        if not values and not any(of_models.values()):
            values = {REQUESTS: _NO_LIMIT}
            yield OPEN
        yield from (f"{each} = {_value(value)}" for each, value in values.items())
        if of_models:
            yield ""
            yield f"[{table}.models]"
            for pattern, of_model in of_models.items():
                limits = self.models.get(pattern)
                yield from comments(limits.remarks if limits else ())
                yield f"{key(pattern)} = {_rule(of_model)}"


def comments(remarks: Iterable[str]) -> Iterator[str]:
    """Remarks as comments."""
    return (f"# Not carried over: {each}." for each in remarks)


def literally(model: str) -> str:
    """The pattern that matches a model and no other."""
    return _WILD.sub(lambda sign: f"[{sign[0]}]", model)


def key(name: str) -> str:
    """A printable name as a key of a TOML table."""
    return name if _PLAIN.fullmatch(name) else _value(name)


def _value(value: str | int) -> str:
    return json.dumps(value, ensure_ascii=False)  # A basic string of TOML, if all of it is printable.


def _rule(values: dict[str, str | int] | None) -> str:
    if not values:
        return "false" if values is None else "true"
    return "{ " + ", ".join(f"{each} = {_value(value)}" for each, value in values.items()) + " }"


def _is_countable(unit: str, text: str) -> bool:
    """Whether every algorithm can count a limit. An app may choose any for limits on requests."""
    try:
        for algorithm in OVER_TIME:
            parse_quotas(text, unit=unit, algorithm=algorithm)
    except ConfigurationError:
        return text.startswith("0 ")
    return True
