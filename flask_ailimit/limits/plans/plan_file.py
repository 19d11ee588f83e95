"""Reads plans from a TOML file or a dictionary of the same form.

Each error says where the mistake is, what was found there, and what to write. It names the keys that are allowed.
"""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

from flask_ailimit.engine import Calendar, ConfigurationError
from flask_ailimit.engine.limit_text import unit_of_money
from flask_ailimit.engine.quota import (
    CONCURRENCY,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    REQUESTS,
    TOKEN_UNITS,
    TOKENS,
    UTC,
    is_money,
    require_bool,
    require_name,
    require_own_unit,
    require_soft_percent,
)
from flask_ailimit.limits.checks import require_enforced_percent
from flask_ailimit.money import PriceBook, Weights
from flask_ailimit.money.book import LONGEST_MODEL
from flask_ailimit.money.unknown import REFUSED, UnknownPrice, read_unknown_price
from flask_ailimit.money.weights import WEIGHED
from flask_ailimit.unlimited import UNLIMITED
from flask_ailimit.upstream.from_environment import FromEnvironment
from flask_ailimit.upstream.reusing import CacheSettings
from flask_ailimit.upstream.settings import OPTIONS_OF_LIMIT, TIMED, UpstreamSettings

from .caller import SERVICE
from .derived import with_value
from .plan import ALL_PAYERS, ANY, BUDGET, CANDIDATE, NO_PAYERS, ModelRule, Plan, PlanLimit, Plans
from .plan_countable import NO_LIMIT, require_countable, written
from .plan_prices import without_a_price
from .said import did_you_mean, is_too_large, key_of, listed, one_line, shown

_CALENDAR, _PRICES, _GENAI = "calendar", "prices", "genai_prices"
_WEIGHTS, _UNKNOWN_PRICE = "weights", "unknown_price"
_UPSTREAMS, _HEADERS = "upstreams", "headers"
_FILE = ("plans", SERVICE, "default_plan", _CALENDAR, _PRICES, _GENAI, _UPSTREAMS)
_TIMED = (REQUESTS, TOKENS, INPUT_TOKENS, OUTPUT_TOKENS)
_UNITS, _MODELS, _SOFT_PERCENT = "units", "models", "soft_percent"
_CLASS, _CLASSES = "class", "classes"
_LIMITS = (*_TIMED, CONCURRENCY, BUDGET, _UNITS)
_ENFORCED = "enforced_percent"
_OF_EACH = (_ENFORCED, _SOFT_PERCENT)
"""What a plan says for each of its limits that doesn't say it itself."""
_OF_RULE = (*_LIMITS, _WEIGHTS)
_PLAN = (*_LIMITS, _MODELS, *_OF_EACH, _CALENDAR, _WEIGHTS, _UNKNOWN_PRICE, _CLASS)
_SERVICE = (*(key for key in _PLAN if key != _CLASS), _CLASSES)
_OF_ALL = ("limit", "candidate", _ENFORCED, "name", "in_headers")
_OF_BUDGET = (*_OF_ALL, _SOFT_PERCENT)
_OF_TIMED = (*_OF_ALL, "burst", "algorithm", _SOFT_PERCENT)
_OF_OWN = (*_OF_TIMED, "cost")
_OF_CONCURRENCY = (*_OF_ALL, "lease")
_OF_CALENDAR = tuple(each.name for each in fields(Calendar) if each.init)
_OF_CACHE = tuple(each.name for each in fields(CacheSettings))
_OF_UPSTREAM = tuple(each.name for each in fields(UpstreamSettings) if each.name != "name")
_OF_NO_MONEY = unit_of_money("0 USD")
_ALL = 100


class _Around(NamedTuple):
    """What a plan says for all of its limits.

    Attributes:
        options: Options of each limit that doesn't say them itself.
        calendar: The calendar of their windows.
        weights: Those of its limits on tokens.
        unknown_price: That of its budgets.
    """

    options: Mapping[str, Any]
    calendar: Calendar
    weights: Weights | None = None
    unknown_price: UnknownPrice = REFUSED

    def of(self, unit: str) -> dict[str, Any]:
        """What it says of a limit on this unit, besides the options."""
        said: dict[str, Any] = {"calendar": self.calendar}
        if unit in TOKEN_UNITS:
            said["weights"] = self.weights
        return said | {"unknown_price": self.unknown_price} if is_money(unit) else said


def read_plans(
    given: object,
    folder: str,
    algorithm_of_requests: str,
    calendar: Calendar = UTC,
    prices: PriceBook | None = None,
    *,
    names_costs: bool = False,
) -> Plans:
    """Read the plans of an app.

    Args:
        given: The path of a TOML file, or a dictionary.
        folder: The folder to which a path is relative.
        algorithm_of_requests: The algorithm of the app's limits on requests.
        calendar: The app's own calendar.
        prices: What models cost by the app's own settings; None if they don't say it.
        names_costs: Whether the app has a function that says what a request costs, so that budgets need no prices.

    Raises:
        ConfigurationError: They can't be read, or something in them is wrong.
    """
    if isinstance(given, Mapping):
        return _Reader("plans", algorithm_of_requests).plans(given, calendar, prices, names_costs=names_costs)
    if not isinstance(given, str | PathLike) or not str(given):
        raise ConfigurationError(
            "plans: the path of a TOML file is needed, such as 'plans.toml', or a dictionary of the same form. "
            f"Got {type(given).__name__}."
        )
    path = Path(folder, given)
    return _Reader(path.name, algorithm_of_requests).plans(_toml(path), calendar, prices, names_costs=names_costs)


def _toml(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ConfigurationError(f"plans: {path} can't be read: {error.strerror or type(error).__name__}.") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path.name}: it is not written in UTF-8 (at byte {error.start}).") from error
    except ValueError as error:  # Python raises it also for a path with a zero byte, and for a number of 5000 digits.
        raise ConfigurationError(f"{path.name}: it can't be read as TOML: {one_line(error)}.") from error
    except RecursionError as error:
        raise ConfigurationError(f"{path.name}: it can't be read as TOML: it is nested too deep.") from error


class _Reader:
    """Reads what a file holds, and remembers its name for errors."""

    def __init__(self, source: str, algorithm_of_requests: str) -> None:
        self._source = source
        self._algorithm_of_requests = algorithm_of_requests

    def plans(
        self, file: Mapping[Any, Any], calendar: Calendar, of_app: PriceBook | None, *, names_costs: bool
    ) -> Plans:
        table = self._table((), file, _FILE)
        calendar = self._calendar((), table, calendar)
        prices = self._prices(table, of_app)
        named = self._table(("plans",), table.get("plans", {}))
        if not named:
            self._wrong((), "it has no plan. Write one, such as [plans.free] with requests = '10 per minute'")
        plans = {name: self._plan(("plans", name), name, value, calendar) for name, value in named.items()}
        given = table.get(SERVICE)
        service = None if given is None else self._plan((SERVICE,), SERVICE, given, calendar, _SERVICE)
        classes = {} if service is None or given is None else dict(self._classes(service, given.get(_CLASSES)))
        for name, plan in plans.items():
            if plan.service_class is not None:
                self._named(("plans", name, _CLASS), "class", plan.service_class, classes, "[service.classes] has")
        every: list[tuple[tuple[str, ...], Plan]] = [(("plans", name), plan) for name, plan in plans.items()]
        every += [] if service is None else [((SERVICE,), service)]
        for place, wrong in () if names_costs else without_a_price(every, prices):
            self._wrong(place, wrong)
        return Plans(
            self._source,
            MappingProxyType(plans),
            service,
            self._default(plans, table.get("default_plan")),
            MappingProxyType(classes),
            prices,
            MappingProxyType(self._upstreams(table.get(_UPSTREAMS, {}))),
        )

    def _upstreams(self, given: object) -> dict[str, UpstreamSettings]:
        """The upstreams. Those that one falls back on are in the file, too, so that it can be checked alone."""
        found = {name: self._upstream((_UPSTREAMS, name), name, value) for name, value in self._named_tables(given)}
        for name, settings in found.items():
            for other in settings.fallback:
                if other not in found or other == name:
                    others = listed(each for each in found if each != name) or "none"
                    self._wrong(
                        (_UPSTREAMS, name, "fallback"), f"there is no other upstream {shown(other)}. There are {others}"
                    )
                if found[other].base_url is None:
                    self._wrong((_UPSTREAMS, other), f"it needs a base_url, as a fallback of {name!r}")
        return found

    def _named_tables(self, given: object) -> Iterator[tuple[str, object]]:
        for name, value in self._table((_UPSTREAMS,), given).items():
            with self._at((_UPSTREAMS, name)):
                require_name(name)
            yield name, value

    def _upstream(self, place: tuple[str, ...], name: str, value: object) -> UpstreamSettings:
        settings = {**self._table(place, value, _OF_UPSTREAM)}
        for key, given in settings.items():
            if key in TIMED and isinstance(given, Mapping):
                self._table((*place, key), given, OPTIONS_OF_LIMIT)
        if "cache" in settings:
            self._table((*place, "cache"), settings["cache"], _OF_CACHE)
        with self._at(place):
            if _HEADERS in settings:
                settings[_HEADERS] = FromEnvironment(self._table((*place, _HEADERS), settings[_HEADERS]))
            try:
                return UpstreamSettings(name=name, **settings)
            except ConfigurationError as error:
                raise ConfigurationError(str(error).removeprefix(f"upstream {name!r}: ")) from error

    def _prices(self, table: Mapping[str, Any], of_app: PriceBook | None) -> PriceBook | None:
        with self._at((_GENAI,)):
            require_bool(_GENAI, table.get(_GENAI, False))
        if _PRICES not in table and not table.get(_GENAI):
            return of_app
        if of_app is not None:
            self._wrong((_PRICES,), "the app's settings have prices, too. Write all of them in one of the two places")
        own = table.get(_PRICES)
        if own is not None and not self._table((_PRICES,), own):
            self._wrong((_PRICES,), "it has no price. Write one, such as [prices.\"large-*\"] with input = '2.50 USD'")
        return PriceBook(own, genai=table.get(_GENAI, False), place=f"{self._source}: {_PRICES}")

    def _calendar(self, place: tuple[str, ...], table: Mapping[str, Any], usual: Calendar) -> Calendar:
        if _CALENDAR not in table:
            return usual
        given = self._table((*place, _CALENDAR), table[_CALENDAR], _OF_CALENDAR)
        with self._at((*place, _CALENDAR)):
            return Calendar(**given)

    def _weights(self, place: tuple[str, ...], table: Mapping[str, Any], usual: Weights | None) -> Weights | None:
        if _WEIGHTS not in table:
            return usual
        given = self._table((*place, _WEIGHTS), table[_WEIGHTS], WEIGHED)
        with self._at((*place, _WEIGHTS)):
            try:
                return Weights.of(given)
            except ConfigurationError as error:
                raise ConfigurationError(str(error).removeprefix("weights: ")) from error

    def _unknown_price(self, place: tuple[str, ...], table: Mapping[str, Any]) -> UnknownPrice:
        with self._at(place):
            return read_unknown_price(table[_UNKNOWN_PRICE]) if _UNKNOWN_PRICE in table else REFUSED

    def _default(self, plans: Mapping[str, Plan], name: object) -> Plan | None:
        return None if name is None else self._named(("default_plan",), "plan", name, plans, "The plans are")

    def _named(
        self, place: tuple[str, ...], what: str, name: object, known: Mapping[str, Plan], known_are: str
    ) -> Plan:
        """The plan of this name, which must be one of the known."""
        if not isinstance(name, str):
            self._wrong(place, f"the name of a {what} is needed. Got {shown(name)}")
        if name not in known:
            names = listed(known) or "none"
            self._wrong(place, f"there is no {what} {shown(name)}. {did_you_mean(name, known)}{known_are} {names}")
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
            self._wrong(place, f"{SERVICE} has only {NO_LIMIT!r}, and nothing to leave to others. Write a limit")
        for name, floor in table.items():
            with self._at((*place, name)):
                require_name(name)
            if name in _SERVICE:
                self._wrong(
                    (*place, name), f"it is no name of a class, but a key of [{SERVICE}]. Write it above this table"
                )
            if type(floor) is not int or not 0 <= floor <= _ALL:
                self._wrong((*place, name), f"a whole number of percent from 0 to {_ALL} is needed. Got {shown(floor)}")
            yield name, service.leaving(floor)

    def _plan(
        self, place: tuple[str, ...], name: str, value: object, calendar: Calendar, keys: Iterable[str] = _PLAN
    ) -> Plan:
        with self._at(place):
            require_name(name)
        table = self._table(place, value, keys)
        models, options = table.get(_MODELS), {key: table[key] for key in _OF_EACH if key in table}
        with self._at(place):
            require_soft_percent(options.get(_SOFT_PERCENT, 0), REQUESTS)
        around = _Around(
            options,
            self._calendar(place, table, calendar),
            self._weights(place, table, None),
            self._unknown_price(place, table),
        )
        limits = tuple(self._limits(place, table, around))
        rules = None if models is None else tuple(self._rules((*place, _MODELS), models, around))
        self._require_use(place, table, [*limits, *(each for rule in rules or () for each in rule.limits)])
        if not limits and not any(rule.limits for rule in rules or ()):
            self._wrong(place, f"it has no limit. Write one of {listed(_LIMITS)}; {NO_LIMIT!r} is a limit, too")
        has_others = not isinstance(models, list | tuple)
        return Plan(name, limits, rules, has_others, service_class=table.get(_CLASS))

    def _require_use(self, place: tuple[str, ...], table: Mapping[str, Any], limits: Iterable[PlanLimit]) -> None:
        """Refuse what changes nothing, because no limit is there to which it belongs."""
        units = {limit.unit for limit in limits}
        if _WEIGHTS in table and not units & {*TOKEN_UNITS}:
            self._wrong(
                (*place, _WEIGHTS), "there is no limit on tokens that they could weigh. Write one, or leave it out"
            )
        if _UNKNOWN_PRICE in table and not any(map(is_money, units)):
            self._wrong((*place, _UNKNOWN_PRICE), "there is no budget that it could be for. Write one, or leave it out")

    def _rules(self, place: tuple[str, ...], models: object, around: _Around) -> Iterator[ModelRule]:
        if not isinstance(models, Mapping | list | tuple) or not models:
            self._wrong(
                place,
                "a list of patterns is needed, such as ['small-*'], or a table of patterns with their limits. "
                f"Got {shown(models)}",
            )
        seen: list[object] = []
        for pattern in models:
            self._require_pattern(place, pattern, seen)
            seen.append(pattern)
            is_table = isinstance(models, Mapping)
            yield self._rule((*place, pattern), models[pattern], around) if is_table else ModelRule(pattern)

    def _require_pattern(self, place: tuple[str, ...], pattern: object, before: list[object]) -> None:
        if not isinstance(pattern, str) or not 0 < len(pattern) <= LONGEST_MODEL or not pattern.isprintable():
            self._wrong(
                place,
                f"a pattern is a text of 1 to {LONGEST_MODEL} printable characters, such as 'small-*'. "
                f"Got {shown(pattern)}",
            )
        if pattern in before or ANY in before:
            self._wrong((*place, pattern), "it never matches, because a pattern before it matches first. Remove it")

    def _rule(self, place: tuple[str, ...], value: object, around: _Around) -> ModelRule:
        if isinstance(value, bool):
            return ModelRule(place[-1], is_allowed=value)
        if not isinstance(value, Mapping):
            self._wrong(place, f"a table of limits, true or false is needed. Got {shown(value)}")
        table = self._table(place, value, _OF_RULE)
        around = around._replace(weights=self._weights(place, table, around.weights))
        limits = tuple(self._limits(place, table, around))
        self._require_use(place, table, limits)
        if not limits:
            self._wrong(place, f"it has no limit. Write one of {listed(_LIMITS)}, or true in place of the table")
        return ModelRule(place[-1], limits=limits)

    def _limits(self, place: tuple[str, ...], table: Mapping[str, Any], around: _Around) -> Iterator[PlanLimit]:
        """The limits of a plan or of a rule for models."""
        for key, value in table.items():
            if key == _UNITS:
                for unit, own in self._table((*place, _UNITS), value).items():
                    with self._at((*place, _UNITS, unit)):
                        require_own_unit(unit)
                    yield self._limit((*place, _UNITS, unit), unit, own, _OF_OWN, around)
            elif key == BUDGET:
                unit = self._unit_of_budget((*place, key), value)
                yield self._limit((*place, key), unit, value, _OF_BUDGET, around)
            elif key in _LIMITS:
                options = _OF_CONCURRENCY if key == CONCURRENCY else _OF_TIMED
                yield self._limit((*place, key), key, value, options, around)

    def _unit_of_budget(self, place: tuple[str, ...], value: object) -> str:
        """The unit of a budget, whose texts say the currency. One without a text counts nothing in any currency."""
        values = [value.get("limit"), value.get("candidate")] if isinstance(value, Mapping) else [value]
        text = next((each for each in values if isinstance(each, str) and each != NO_LIMIT), None)
        with self._at(place):
            return _OF_NO_MONEY if text is None else unit_of_money(text)

    def _limit(
        self, place: tuple[str, ...], unit: str, value: object, options: Iterable[str], around: _Around
    ) -> PlanLimit:
        table: Mapping[str, Any] = {"limit": value}
        if isinstance(value, Mapping):
            if unit == CONCURRENCY and _SOFT_PERCENT in value:
                with self._at((*place, _SOFT_PERCENT)):
                    require_soft_percent(1, unit)  # Says why there is none.
            table = self._table(place, value, options)
        if "limit" not in table:
            self._wrong(place, f"the table has no limit. Allowed are {listed(options)}")
        own: dict[str, Any] = {key: each for key, each in table.items() if key not in ("limit", "candidate", "name")}
        own = {key: each for key, each in around.options.items() if key in options} | own
        limit = PlanLimit(unit, written(table["limit"], unit), name=table.get("name", ""), **around.of(unit), **own)
        with self._at(place):
            require_countable(limit, self._algorithm_of_requests, is_named="name" in table)
            require_enforced_percent(limit.percent)
            if place[0] == SERVICE and NO_PAYERS < limit.percent < ALL_PAYERS:
                raise ConfigurationError(
                    f"{_ENFORCED}: everybody together is one payer, so it is {NO_PAYERS} or {ALL_PAYERS}"
                )
        if "candidate" in table:
            candidate = written(table["candidate"], unit)
            limit = replace(limit, candidate=candidate)
            with self._at((*place, "candidate")):
                require_countable(with_value(limit, candidate, CANDIDATE), self._algorithm_of_requests)
        return limit

    def _table(self, place: tuple[str, ...], value: object, keys: Iterable[str] = ()) -> Mapping[str, Any]:
        """The value as a table of these keys; without any, of names that its author gives."""
        if not isinstance(value, Mapping):
            self._wrong(place, f"a table is needed. Got {shown(value)}")
        for key in value:
            if not isinstance(key, str):
                self._wrong(place, f"each key is a text. Got {shown(key)}")
            if keys and key not in keys:
                self._wrong((*place, key), f"there is no such key. {did_you_mean(key, keys)}Allowed are {listed(keys)}")
            if is_too_large(value[key]):
                self._wrong((*place, key), f"{shown(value[key])} is too large")
        return value

    @contextmanager
    def _at(self, place: tuple[str, ...]) -> Iterator[None]:
        """Say in each error of the block where the mistake is."""
        try:
            yield
        except ConfigurationError as error:
            self._wrong(place, str(error).removesuffix("."))

    def _wrong(self, place: tuple[str, ...], what: str) -> NoReturn:
        where = ".".join(map(key_of, place))
        raise ConfigurationError(f"{self._source}: {where}: {what}." if where else f"{self._source}: {what}.")
