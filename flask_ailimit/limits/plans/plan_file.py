"""Reads plans from a TOML file or a dictionary of the same form.

Each error says where the mistake is, what was found there, and what to write. It names the keys that are allowed.
"""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from flask_ailimit.engine import ConfigurationError
from flask_ailimit.engine.charge import require_cost
from flask_ailimit.engine.quota import (
    CONCURRENCY,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    REQUESTS,
    TOKENS,
    require_name,
    require_own_unit,
    require_soft_percent,
)
from flask_ailimit.limits.checks import require_algorithm, require_enforced_percent, require_lease, require_told
from flask_ailimit.limits.unit_limit import slots, timed_items
from flask_ailimit.unlimited import UNLIMITED

from .caller import SERVICE
from .derived import with_value
from .plan import ALL_PAYERS, ANY, CANDIDATE, LONGEST_MODEL, NO_PAYERS, ModelRule, Plan, PlanLimit, Plans

_FILE = ("plans", SERVICE, "default_plan")
_TIMED = (REQUESTS, TOKENS, INPUT_TOKENS, OUTPUT_TOKENS)
_UNITS, _MODELS, _SOFT_PERCENT = "units", "models", "soft_percent"
_CLASS, _CLASSES = "class", "classes"
_LIMITS = (*_TIMED, CONCURRENCY, _UNITS)
_ENFORCED = "enforced_percent"
_OF_EACH = (_ENFORCED, _SOFT_PERCENT)
"""What a plan says for each of its limits that doesn't say it itself."""
_PLAN = (*_LIMITS, _MODELS, *_OF_EACH, _CLASS)
_SERVICE = (*(key for key in _PLAN if key != _CLASS), _CLASSES)
_OF_ALL = ("limit", "candidate", _ENFORCED, "name", "in_headers")
_OF_TIMED = (*_OF_ALL, "burst", "algorithm", _SOFT_PERCENT)
_OF_OWN = (*_OF_TIMED, "cost")
_OF_CONCURRENCY = (*_OF_ALL, "lease")
_NO_LIMIT = "unlimited"
_NOTHING = "0 per second"
_ALL = 100
_MOST_SHOWN = 20
_CLOSE = 0.65
"""So alike are two names of which one may be meant: soft_percent and enforced_percent are not."""
_LARGEST = 10**100
"""Python writes no number of more than some thousand digits as a text. TOML may have one, in hexadecimal."""


def read_plans(given: object, folder: str, algorithm_of_requests: str) -> Plans:
    """Read the plans of an app.

    Args:
        given: The path of a TOML file, or a dictionary.
        folder: The folder to which a path is relative.
        algorithm_of_requests: The algorithm of the app's limits on requests.

    Raises:
        ConfigurationError: They can't be read, or something in them is wrong.
    """
    if isinstance(given, Mapping):
        return _Reader("plans", algorithm_of_requests).plans(given)
    if not isinstance(given, str | PathLike) or not str(given):
        raise ConfigurationError(
            "plans: the path of a TOML file is needed, such as 'plans.toml', or a dictionary of the same form. "
            f"Got {type(given).__name__}."
        )
    path = Path(folder, given)
    return _Reader(path.name, algorithm_of_requests).plans(_toml(path))


def _toml(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ConfigurationError(f"plans: {path} can't be read: {error.strerror or type(error).__name__}.") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path.name}: it is not written in UTF-8 (at byte {error.start}).") from error
    except ValueError as error:  # Python raises it also for a path with a zero byte, and for a number of 5000 digits.
        raise ConfigurationError(f"{path.name}: it can't be read as TOML: {_one_line(error)}.") from error
    except RecursionError as error:
        raise ConfigurationError(f"{path.name}: it can't be read as TOML: it is nested too deep.") from error


class _Reader:
    """Reads what a file holds, and remembers its name for errors."""

    def __init__(self, source: str, algorithm_of_requests: str) -> None:
        self._source = source
        self._algorithm_of_requests = algorithm_of_requests

    def plans(self, file: Mapping[Any, Any]) -> Plans:
        table = self._table((), file, _FILE)
        named = self._table(("plans",), table.get("plans", {}))
        if not named:
            self._wrong((), "it has no plan. Write one, such as [plans.free] with requests = '10 per minute'")
        plans = {name: self._plan(("plans", name), name, value) for name, value in named.items()}
        given = table.get(SERVICE)
        service = None if given is None else self._plan((SERVICE,), SERVICE, given, _SERVICE)
        classes = {} if service is None or given is None else dict(self._classes(service, given.get(_CLASSES)))
        for name, plan in plans.items():
            if plan.service_class is not None:
                self._named(("plans", name, _CLASS), "class", plan.service_class, classes, "[service.classes] has")
        return Plans(
            self._source,
            MappingProxyType(plans),
            service,
            self._default(plans, table.get("default_plan")),
            MappingProxyType(classes),
        )

    def _default(self, plans: Mapping[str, Plan], name: object) -> Plan | None:
        return None if name is None else self._named(("default_plan",), "plan", name, plans, "The plans are")

    def _named(
        self, place: tuple[str, ...], what: str, name: object, known: Mapping[str, Plan], known_are: str
    ) -> Plan:
        """The plan of this name, which must be one of the known."""
        if not isinstance(name, str):
            self._wrong(place, f"the name of a {what} is needed. Got {_shown(name)}")
        if name not in known:
            listed = _listed(known) or "none"
            self._wrong(place, f"there is no {what} {_shown(name)}. {_did_you_mean(name, known)}{known_are} {listed}")
        return known[name]

    def _classes(self, service: Plan, given: object) -> Iterator[tuple[str, Plan]]:
        """The service's plan as it holds for each class."""
        if given is None:
            return
        place = (SERVICE, _CLASSES)
        table = self._table(place, given)
        if not table:
            self._wrong(place, "it has no class. Write one with its floor in percent, such as batch = 50")
        of_all = [service.limits, *(rule.limits for rule in service.models or ())]
        if all(each.value is UNLIMITED and each.candidate is None for limits in of_all for each in limits):
            self._wrong(place, f"{SERVICE} has only {_NO_LIMIT!r}, and nothing to leave to others. Write a limit")
        for name, floor in table.items():
            with self._at((*place, name)):
                require_name(name)
            if name in _SERVICE:
                self._wrong(
                    (*place, name), f"it is no name of a class, but a key of [{SERVICE}]. Write it above this table"
                )
            if type(floor) is not int or not 0 <= floor <= _ALL:
                self._wrong(
                    (*place, name), f"a whole number of percent from 0 to {_ALL} is needed. Got {_shown(floor)}"
                )
            yield name, service.leaving(floor)

    def _plan(self, place: tuple[str, ...], name: str, value: object, keys: Iterable[str] = _PLAN) -> Plan:
        with self._at(place):
            require_name(name)
        table = self._table(place, value, keys)
        models, given = table.get(_MODELS), {key: table[key] for key in _OF_EACH if key in table}
        with self._at(place):
            require_soft_percent(given.get(_SOFT_PERCENT, 0), REQUESTS)
        limits = tuple(self._limits(place, table, given))
        rules = None if models is None else tuple(self._rules((*place, _MODELS), models, given))
        if not limits and not any(rule.limits for rule in rules or ()):
            self._wrong(place, f"it has no limit. Write one of {_listed(_LIMITS)}; {_NO_LIMIT!r} is a limit, too")
        has_others = not isinstance(models, list | tuple)
        return Plan(name, limits, rules, has_others, service_class=table.get(_CLASS))

    def _rules(self, place: tuple[str, ...], models: object, given: Mapping[str, Any]) -> Iterator[ModelRule]:
        if not isinstance(models, Mapping | list | tuple) or not models:
            self._wrong(
                place,
                "a list of patterns is needed, such as ['small-*'], or a table of patterns with their limits. "
                f"Got {_shown(models)}",
            )
        seen: list[object] = []
        for pattern in models:
            self._require_pattern(place, pattern, seen)
            seen.append(pattern)
            is_table = isinstance(models, Mapping)
            yield self._rule((*place, pattern), models[pattern], given) if is_table else ModelRule(pattern)

    def _require_pattern(self, place: tuple[str, ...], pattern: object, before: list[object]) -> None:
        if not isinstance(pattern, str) or not 0 < len(pattern) <= LONGEST_MODEL or not pattern.isprintable():
            self._wrong(
                place,
                f"a pattern is a text of 1 to {LONGEST_MODEL} printable characters, such as 'small-*'. "
                f"Got {_shown(pattern)}",
            )
        if pattern in before or ANY in before:
            self._wrong((*place, pattern), "it never matches, because a pattern before it matches first. Remove it")

    def _rule(self, place: tuple[str, ...], value: object, given: Mapping[str, Any]) -> ModelRule:
        if isinstance(value, bool):
            return ModelRule(place[-1], is_allowed=value)
        if not isinstance(value, Mapping):
            self._wrong(place, f"a table of limits, true or false is needed. Got {_shown(value)}")
        limits = tuple(self._limits(place, self._table(place, value, _LIMITS), given))
        if not limits:
            self._wrong(place, f"it has no limit. Write one of {_listed(_LIMITS)}, or true in place of the table")
        return ModelRule(place[-1], limits=limits)

    def _limits(
        self, place: tuple[str, ...], table: Mapping[str, Any], given: Mapping[str, Any]
    ) -> Iterator[PlanLimit]:
        """The limits of a plan or of a rule for models. ``given`` holds for those that don't say it themselves."""
        for key, value in table.items():
            if key == _UNITS:
                for unit, own in self._table((*place, _UNITS), value).items():
                    with self._at((*place, _UNITS, unit)):
                        require_own_unit(unit)
                    yield self._limit((*place, _UNITS, unit), unit, own, _OF_OWN, given)
            elif key in _LIMITS:
                options = _OF_CONCURRENCY if key == CONCURRENCY else _OF_TIMED
                yield self._limit((*place, key), key, value, options, given)

    def _limit(
        self, place: tuple[str, ...], unit: str, value: object, options: Iterable[str], given: Mapping[str, Any]
    ) -> PlanLimit:
        table: Mapping[str, Any] = {"limit": value}
        if isinstance(value, Mapping):
            if unit == CONCURRENCY and _SOFT_PERCENT in value:
                with self._at((*place, _SOFT_PERCENT)):
                    require_soft_percent(1, unit)  # Says why there is none.
            table = self._table(place, value, options)
        if "limit" not in table:
            self._wrong(place, f"the table has no limit. Allowed are {_listed(options)}")
        own: dict[str, Any] = {key: each for key, each in table.items() if key not in ("limit", "candidate", "name")}
        own = {key: each for key, each in given.items() if key in options} | own
        limit = PlanLimit(unit, _written(table["limit"], unit), name=table.get("name", ""), **own)
        with self._at(place):
            self._require_countable(limit, is_named="name" in table)
            require_enforced_percent(limit.percent)
            if place[0] == SERVICE and NO_PAYERS < limit.percent < ALL_PAYERS:
                raise ConfigurationError(
                    f"{_ENFORCED}: everybody together is one payer, so it is {NO_PAYERS} or {ALL_PAYERS}"
                )
        if "candidate" in table:
            candidate = _written(table["candidate"], unit)
            limit = replace(limit, candidate=candidate)
            with self._at((*place, "candidate")):
                self._require_countable(with_value(limit, candidate, CANDIDATE))
        return limit

    def _require_countable(self, limit: PlanLimit, *, is_named: bool = False) -> None:
        """Check a limit as its decorator would.

        Raises:
            ConfigurationError: It can't be counted.
        """
        require_told(limit.name if is_named else None, limit.in_headers, limit.soft_percent, limit.unit)
        if limit.unit == CONCURRENCY:
            require_lease(limit.lease)
            if limit.value is not UNLIMITED:
                if type(limit.value) is not int:
                    raise ConfigurationError(
                        f"a number of calls in flight is needed, such as 4, or {_NO_LIMIT!r}. Got {_shown(limit.value)}"
                    )
                slots(limit.value, limit.lease, limit.name, limit.in_headers)
            return
        try:
            require_cost(limit.cost)
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
        algorithm = limit.algorithm_in(self._algorithm_of_requests)
        require_algorithm("algorithm", algorithm)
        if limit.burst is not None and type(limit.burst) is not int:
            raise ConfigurationError(f"burst: a whole number is needed, 1 or more. Got {_shown(limit.burst)}")
        text: Any = _NOTHING if limit.value is UNLIMITED else limit.value
        if not isinstance(text, str):
            raise ConfigurationError(
                f"a text is needed, such as '10 per minute', or {_NO_LIMIT!r}, or 0 for nothing. Got {_shown(text)}"
            )
        for item in timed_items(text, limit.unit, algorithm, limit.burst, limit.name, limit.in_headers):
            quota = getattr(item, "quota", None)
            if quota is not None and limit.cost > quota.burst:
                raise ConfigurationError(f"cost: {limit.cost} never fits a limit of {quota.text}. Raise the limit")

    def _table(self, place: tuple[str, ...], value: object, keys: Iterable[str] = ()) -> Mapping[str, Any]:
        """The value as a table of these keys; without any, of names that its author gives."""
        if not isinstance(value, Mapping):
            self._wrong(place, f"a table is needed. Got {_shown(value)}")
        for key in value:
            if not isinstance(key, str):
                self._wrong(place, f"each key is a text. Got {_shown(key)}")
            if keys and key not in keys:
                self._wrong(
                    (*place, key), f"there is no such key. {_did_you_mean(key, keys)}Allowed are {_listed(keys)}"
                )
            if _is_too_large(value[key]):
                self._wrong((*place, key), f"{_shown(value[key])} is too large")
        return value

    @contextmanager
    def _at(self, place: tuple[str, ...]) -> Iterator[None]:
        """Say in each error of the block where the mistake is."""
        try:
            yield
        except ConfigurationError as error:
            self._wrong(place, str(error).removesuffix("."))

    def _wrong(self, place: tuple[str, ...], what: str) -> NoReturn:
        where = ".".join(map(_key, place))
        raise ConfigurationError(f"{self._source}: {where}: {what}." if where else f"{self._source}: {what}.")


def _written(value: Any, unit: str) -> Any:
    """The value of a limit as a decorator takes it."""
    if value == _NO_LIMIT or value is UNLIMITED:
        return UNLIMITED
    return _NOTHING if type(value) is int and value == 0 and unit != CONCURRENCY else value


def _key(name: str) -> str:
    """A key as TOML writes it in a dotted name, in quotation marks if it is not plain."""
    shown = name if len(name) <= LONGEST_MODEL else f"{name[:LONGEST_MODEL]}…"
    return shown if shown.isascii() and shown.replace("-", "").replace("_", "").isalnum() else _quoted(shown)


def _quoted(text: str) -> str:
    """A text in double quotation marks, in one line."""
    escaped = repr(text)[1:-1].replace('"', '\\"')
    return f'"{escaped}"'


def _is_too_large(value: object) -> bool:
    return isinstance(value, int) and abs(value) >= _LARGEST


def _shown(value: object) -> str:
    if _is_too_large(value):
        return "a number of more than 100 digits"
    kind = "a table" if isinstance(value, Mapping) else "a list" if isinstance(value, list) else type(value).__name__
    return f"{value!r:.60}" if isinstance(value, str | int | float) else kind


def _listed(names: Iterable[str]) -> str:
    every = [*names]
    return ", ".join([*map(_key, every[:_MOST_SHOWN]), *(["…"] if len(every) > _MOST_SHOWN else [])])


def _did_you_mean(name: object, known: Iterable[str]) -> str:
    close = get_close_matches(name[:64], [*known], n=1, cutoff=_CLOSE) if isinstance(name, str) else []
    return f"Did you mean {_key(close[0])}? " if close else ""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).removesuffix(".")
