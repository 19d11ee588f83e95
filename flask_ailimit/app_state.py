"""The state of one app: settings, token counter, default limits, engine. One limiter may serve several apps."""

import logging
import os
import re
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from hashlib import blake2b
from typing import Any

from flask import Flask
from flask_limiter import ApplicationLimit, Limit
from flask_limiter.constants import ConfigVars

from .config import PREFIX, Settings, read_settings, unread_variables
from .durable import Durability
from .engine import Calendar, ConfigurationError, Engine, Store, StoreError, open_store
from .engine.clock import Clock
from .engine.mutex import Mutex, mutex
from .engine.quota import is_money
from .engine.stores import places
from .engine.stores.base import Shared
from .limits.checks import require_algorithm, require_request_limit
from .limits.counting import Counting
from .limits.decorators import Decorators
from .limits.flask_limiter_access import FlaskLimiterAccess
from .limits.keys import remote_address
from .limits.listed import (
    LISTED,
    RequestsLimit,
    limits_of_all_routes,
    limits_of_each_route,
    listed_requests,
)
from .limits.misconfigured import misconfigured
from .limits.plans.caller import SERVICE, is_role
from .limits.plans.derived import all_keyed
from .limits.plans.plan import ModelRule, Plan, Plans
from .limits.plans.plan_file import read_plans
from .limits.plans.plan_limits import LimitsOfPlans, limits_of_plans, windows_of_budgets
from .limits.plans.tried import all_enforced
from .limits.plans.watching import LiveChanges
from .limits.priced import require_price
from .limits.unit_limit import UnitLimit
from .money import PriceBook
from .secret import require_agreement, secret_of
from .signals import store_changed, tell
from .tokens import TokenCounter
from .upstream.settings import UpstreamSettings, require_target

_log = logging.getLogger("flask_ailimit")

DEFAULT_URI = "local://"
TESTS_URI = "memory://"
_NOT_OF_LIMITS = (ConfigVars.STORAGE_URI, ConfigVars.STORAGE_OPTIONS, ConfigVars.ENABLED)
_LIMITS = (
    ConfigVars.APPLICATION_LIMITS,
    ConfigVars.DEFAULT_LIMITS,
    ConfigVars.IN_MEMORY_FALLBACK,
    ConfigVars.META_LIMITS,
)


@dataclass(frozen=True, eq=False)
class AppState:
    """The state of one app.

    Attributes:
        settings: Our settings.
        counter: Counts the tokens of a text.
        algorithm: The algorithm of limits on requests: Flask-Limiter's ``strategy``.
        own_prices: What models cost by the settings; None if they don't say it.
        default_token_limits: The token limits of every route that has none of its own.
        application_limits: The limits on tokens and calls in flight of all routes together.
        address_limits: The limits on each address, which are decided before all others.
        plans: The plans; None if no route is limited by plan.
        limits_of_plans: Their limits.
        limits_of_derived: Makes those of a plan in which values were changed for a payer.
        changes: What operators changed for single payers.
        durability: Whether money lasts in the store.
        read_again: Reads the plans and their limits again, from the same file.
        clock: Returns microseconds since the epoch.
        opened: The engine over the store that was opened with the app.
        in_tests: Opens an engine in memory, if the app is ``TESTING`` and names no store; else returns None.
    """

    settings: Settings
    counter: TokenCounter
    algorithm: str
    own_prices: PriceBook | None
    default_token_limits: list[UnitLimit]
    application_limits: list[UnitLimit]
    address_limits: list[Limit]
    plans: Plans | None
    limits_of_plans: LimitsOfPlans
    limits_of_derived: Callable[[Plan], LimitsOfPlans] = field(repr=False)
    changes: LiveChanges
    durability: Durability
    read_again: Callable[[], tuple[Plans, LimitsOfPlans]] = field(repr=False)
    clock: Clock
    opened: Engine
    in_tests: Callable[[], Engine | None] = field(repr=False)
    first_use: Mutex = field(default_factory=mutex, repr=False)

    @cached_property
    def engine(self) -> Engine:
        """The engine over the app's store.

        Many tests set ``TESTING`` after ``init_app``. So it is read again when the engine is first used, because a test
        must not count in the store of a live server, or reset it.
        """
        return self.first_use.run(self._chosen)

    @property
    def counting(self) -> Counting:
        """How the app counts what a limit doesn't say itself."""
        return Counting(self.algorithm, self.settings.calendar)

    @property
    def prices(self) -> PriceBook | None:
        """What models cost: by the plan file, or by the settings; None if nobody says it."""
        return self.own_prices if self.plans is None or self.plans.prices is None else self.plans.prices

    @cached_property
    def windows_of_credit(self) -> Mapping[str, tuple[tuple[int, str], ...]]:
        """By their units, the windows without a calendar of budgets that may have taken a payer's credit."""
        return windows_of_budgets(self.limits_of_plans)

    def limits_of(self, plan: Plan, rule: ModelRule | None) -> Sequence[UnitLimit]:
        """The limits of a plan over all models, or those of one of its rules for models."""
        found = self.limits_of_plans.get((plan, rule))
        return self.limits_of_derived(plan)[plan, rule] if found is None else found

    def reload_plans(self) -> None:
        """Take the plans as they are in the file now. If it can't be read, the log says why, and nothing changes."""
        try:
            plans, limits = self.read_again()
            _require_usable(plans.upstreams, self.opened, self.clock)
        except ConfigurationError as error:
            _log.error("The plans stay as they were: %s", error)
            return
        # What was used beside the budgets of the file before stays used.
        windows = windows_of_budgets(limits, self.windows_of_credit)
        # A request that comes in between makes the limits of its plans itself.
        self.__dict__.update(plans=plans, limits_of_plans=limits, windows_of_credit=windows)
        _log.info("The plans were read again from %s.", plans.source)

    def _chosen(self) -> Engine:
        if "engine" not in self.__dict__:
            engine_of_tests = self.in_tests()
            if engine_of_tests:
                self.changes.use(engine_of_tests.store)
            self.__dict__["engine"] = engine_of_tests or self.opened
        engine: Engine = self.__dict__["engine"]
        return engine


def _require_usable(upstreams: Mapping[str, UpstreamSettings], engine: Engine, clock: Clock) -> None:
    """Check that calls can be sent to upstreams that were read again: they would all fail otherwise.

    Raises:
        ConfigurationError: A cache can't be used, or a fallback's header has no value.
    """
    for settings in upstreams.values():
        if settings.kept is not None:
            settings.kept.open(engine, clock).close()
        for other in settings.fallback:
            require_target(settings, upstreams[other])


def open_app_state(
    limiter: Decorators,
    flask_limiter: FlaskLimiterAccess,
    app: Flask,
    given: Mapping[str, Any],
    storage: tuple[str | None, Any],
    clock: Clock,
    first_app: tuple[str, str],
) -> AppState:
    """Read the app's configuration, and open its store.

    Args:
        limiter: The limiter, to which the default limits belong.
        flask_limiter: The Flask-Limiter part of the limiter.
        app: The app.
        given: The settings of ours that the limiter's constructor got.
        storage: The address and options of the store that it got; None for those of the app's config.
        clock: Returns integer microseconds.
        first_app: The import name and name of the limiter's first app. If the limiter was given a name, all its apps
            count together on purpose.

    Raises:
        ConfigurationError: Something is wrong; the message says the fix.
        StoreError: The store can't be used.
    """
    with misconfigured():
        settings = read_settings(given, app.config)
        for variable in unread_variables(os.environ, given, app.config):
            _log.warning(
                "%s is set in the environment, and nothing reads it: settings are keywords of AILimiter or keys of "
                "app.config. Call it FLASK_%s and call app.config.from_prefixed_env().",
                *(variable, variable),
            )
        algorithm = flask_limiter.strategy or app.config.get(ConfigVars.STRATEGY) or "fixed-window"
        require_algorithm("strategy", algorithm, of_limit=False)
        for key in _LIMITS:
            if app.config.get(key):
                require_request_limit(key, app.config[key])
        defaults = limits_of_each_route(limiter, settings.default_token_limits)
        application = limits_of_all_routes(limiter, settings.application_token_limits, settings.application_concurrency)
        own_prices = _open_prices(settings)
        plans = _open_plans(settings, own_prices, flask_limiter, app, algorithm)
        _require_prices(settings, flask_limiter, own_prices if plans is None else plans.prices)
        of_plans = limits_of_plans(limiter, plans, algorithm) if plans else {}
        sets_output = "default_output_tokens" in given or f"{PREFIX}DEFAULT_OUTPUT_TOKENS" in app.config
        output_tokens = settings.default_output_tokens if sets_output else None
        _require_room((*defaults, *application), output_tokens)
        if plans:
            _require_room_in(plans, limiter, algorithm, output_tokens)
        addresses = [*_address_limits(limiter, settings)]
        counter = settings.open_counter()
        name = settings.name or store_name(app)
        store = _open_store(app, storage, name, clock)
        secret = secret_of(app, settings, store)
        engine = Engine(store, secret=secret)
        try:
            engine.peek(())  # Raises now if the store can't be used.
            require_agreement(store, settings, secret)
        except BaseException:
            engine.close()  # It has threads by now.
            raise
        engine.store.watch(partial(_tell, app))
        if isinstance(engine.store, Shared):
            names = first_app if "name" in given else (app.import_name, app.name)
            engine.store.introduce(_fingerprint(flask_limiter, app, given, algorithm, names), app.name)
        changes = LiveChanges(store, clock)
        engine.at_close(changes.close)
        durability = _durability(engine, app, settings, flask_limiter)
        derived = partial(_limits_of_plan, limiter, algorithm)
        place = app.root_path
        again = partial(
            _read_again, limiter, flask_limiter, settings, own_prices, place, algorithm, output_tokens, durability
        )
        late = partial(_in_tests, weakref.ref(app), storage[0] is not None, engine, clock, settings)
        state = AppState(
            settings,
            counter,
            algorithm,
            own_prices,
            defaults,
            application,
            addresses,
            plans,
            of_plans,
            derived,
            changes,
            durability,
            again,
            clock,
            engine,
            late,
        )
        try:
            _begin(state, flask_limiter)
        except BaseException:
            engine.close()
            raise
        return state


def _open_plans(
    settings: Settings, prices: PriceBook | None, flask_limiter: FlaskLimiterAccess, app: Flask, algorithm: str
) -> Plans | None:
    for role in settings.told_roles:
        if role != SERVICE and not is_role(role):
            raise ConfigurationError(
                f"told_roles: names of roles are needed, such as 'organisation'. Got {role!r:.40}."
            )
    if settings.plans is not None:
        return _read_plans(settings, prices, app.root_path, algorithm)
    if flask_limiter.payer_key is None:
        raise ConfigurationError("key_func: a callable is needed, such as api_key. Only with plans it may be left out.")
    if flask_limiter.registry.has_any_by_plan:
        raise ConfigurationError(
            "plans: routes are limited by plan, and there are none. Give plans='plans.toml', or a dictionary."
        )
    return None


def _read_plans(settings: Settings, prices: PriceBook | None, folder: str, algorithm: str) -> Plans:
    has_costs = settings.cost_of is not None
    return read_plans(settings.plans, folder, algorithm, settings.calendar, prices, names_costs=has_costs)


def _address_limits(limiter: Decorators, settings: Settings) -> Iterator[Limit]:
    for each in settings.address_limits:
        listed = each if isinstance(each, RequestsLimit) else RequestsLimit(each)
        # Otherwise the view's own would be requests-per-minute-2.
        named = RequestsLimit(listed.limit_value, **{"name": "address", **listed.options})
        preset = {"key_func": remote_address, "scope": "address"}
        for limit in listed_requests("address_limits", [named], ApplicationLimit, **preset):
            yield limit.bind(limiter)


def _open_prices(settings: Settings) -> PriceBook | None:
    if settings.prices is None and not settings.genai_prices:
        return None
    return PriceBook(settings.prices, genai=settings.genai_prices)


def _begin(state: AppState, flask_limiter: FlaskLimiterAccess) -> None:
    """Check that money lasts, if there is any, and learn what operators changed."""
    of_lists = {"lists": [*state.default_token_limits, *state.application_limits]}
    if flask_limiter.registry.on_money or _has_money(state.limits_of_plans) or _has_money(of_lists):
        state.durability.require()
    if state.plans:
        state.changes.reload = state.reload_plans
        _begin_with(state.changes)


def _begin_with(changes: LiveChanges) -> None:
    """Read the changes of plans, and say if the store may lose them. One that is away is asked again later."""
    try:
        changes.look()
    except StoreError as error:
        if not error.transient:
            raise  # Who is suspended would be so no more.
        _log.error("Changes of plans are not known yet: %s", error)
        return
    may_lose = changes.store.may_lose_changes() if changes.store and changes.store.shares_changes else None
    if may_lose:
        places.say_once(may_lose)


def _require_prices(settings: Settings, flask_limiter: FlaskLimiterAccess, prices: PriceBook | None) -> None:
    """Check that the budgets of decorators have a price, unless the app itself says what a request costs."""
    for limit in () if settings.cost_of else flask_limiter.registry.on_money:
        require_price(limit, prices)


def _read_again(
    limiter: Decorators,
    flask_limiter: FlaskLimiterAccess,
    settings: Settings,
    prices: PriceBook | None,
    folder: str,
    algorithm: str,
    output_tokens: int | None,
    durability: Durability,
) -> tuple[Plans, LimitsOfPlans]:
    if isinstance(settings.plans, Mapping):
        raise ConfigurationError("plans: they are a dictionary of the app. Change it there, and restart the app.")
    try:
        plans = all_keyed(_read_plans(settings, prices, folder, algorithm))
        _require_prices(settings, flask_limiter, plans.prices)
        found = limits_of_plans(limiter, plans, algorithm)
        _require_room_in(plans, limiter, algorithm, output_tokens)
        if _has_money(found):
            durability.require()
    except ConfigurationError as error:
        raise ConfigurationError(f"{error} No process of the app can start until the file is put right.") from error
    return plans, found


def _has_money(limits: Mapping[Any, Iterable[UnitLimit]]) -> bool:
    """Whether any of the limits, by whatever they belong to, is on money."""
    return any(is_money(limit.unit) for some in limits.values() for limit in some)


def _durability(engine: Engine, app: Flask, settings: Settings, flask_limiter: FlaskLimiterAccess) -> Durability:
    is_accepted = partial(_accepts_money_loss, weakref.ref(app), settings)
    found = Durability(engine.store, is_accepted, flask_limiter.options_for_errors(app))
    engine.at_close(found.close)
    return found


def _accepts_money_loss(app: weakref.ref[Flask], settings: Settings) -> bool:
    """Whether an app accepts that money is lost. One that is ``TESTING`` does: what it counts is nobody's money."""
    found = app()
    return settings.accept_money_loss or found is None or found.testing


def _require_room(limits: Iterable[UnitLimit], output_tokens: int | None) -> None:
    """Check that the output that is reserved by default is no whole limit; None if the app has not set it."""
    if output_tokens is not None:
        for limit in limits:
            limit.require_room_for(output_tokens)


def _require_room_in(plans: Plans, limiter: Decorators, algorithm: str, output_tokens: int | None) -> None:
    """The same of all limits of plans, also of those that are only tried."""
    for plan in [*plans.plans.values(), *([plans.service] if plans.service else [])]:
        for each in {plan, all_enforced(plan)}:
            for limits in _limits_of_plan(limiter, algorithm, each).values():
                _require_room(limits, output_tokens)


def _limits_of_plan(limiter: Decorators, algorithm: str, plan: Plan) -> LimitsOfPlans:
    return limits_of_plans(limiter, Plans("", {plan.name: plan}, None, None), algorithm)


def _tell(app: Flask, available: bool) -> None:
    tell(store_changed, app, available=available)


def _in_tests(app: weakref.ref[Flask], named: bool, opened: Engine, clock: Clock, settings: Settings) -> Engine | None:
    """Close the default store and open an engine in memory, if the app is ``TESTING`` by now; else return None."""
    found = app()
    if named or found is None or not isinstance(opened.store, Shared) or not _is_of_tests(found):
        return None
    opened.close()
    opened.store.discard()
    return Engine(open_store(TESTS_URI, name="", clock=clock, options={}), secret=settings.secret_bytes)


def _is_of_tests(app: Flask) -> bool:
    return app.config.get(ConfigVars.STORAGE_URI) is None and app.testing


def _fingerprint(
    flask_limiter: FlaskLimiterAccess, app: Flask, given: Mapping[str, Any], algorithm: str, names: tuple[str, str]
) -> str:
    """A hash of an app's names and of the configuration of the limits, which is the same in all workers."""
    config = {
        key: value
        for key, value in app.config.items()
        if str(key).startswith((PREFIX, "RATELIMIT_")) and not str(key).startswith((*_NOT_OF_LIMITS, f"{PREFIX}SECRET"))
    }
    parts = [
        *(*names, app.config.get("SERVER_NAME"), algorithm, config),
        {key: value for key, value in given.items() if key != "secret"},
        flask_limiter.registry.providers_for_all(),
        flask_limiter.key_prefix,
    ]
    return blake2b(_in_words(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _in_words(value: object) -> str:
    """The value as text without memory addresses, so that it is the same in all processes."""
    if isinstance(value, Mapping):
        return repr(sorted((str(key), _in_words(part)) for key, part in value.items()))
    if isinstance(value, LISTED):
        return _in_words([type(value).__name__, value.limit_value, value.options])
    if isinstance(value, (list, tuple)):
        return repr([_in_words(part) for part in value])
    if value is None or isinstance(value, (str, bytes, int, float, Calendar)):
        return repr(value)
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def _open_store(app: Flask, storage: tuple[str | None, Any], name: str, clock: Clock) -> Store:
    uri, options = storage
    if uri is None:
        uri = app.config.get(ConfigVars.STORAGE_URI)
    given = [options, app.config.get(ConfigVars.STORAGE_OPTIONS)]
    for each in given:
        if each is not None and not isinstance(each, Mapping):
            raise ConfigurationError(f"storage_options: a dictionary is needed. Got {type(each).__name__}.")
    merged = {name: value for each in given for name, value in (each or {}).items()}
    if uri is None and _is_of_tests(app):
        return open_store(TESTS_URI, name=name, clock=clock, options={})
    return open_store(DEFAULT_URI if uri is None else uri, name=name, clock=clock, options=merged)


def store_name(app: Flask) -> str:
    """The directory name for an app without a ``name`` setting, made of its import name and folder."""
    # Not the import name, which is __main__ for an app that was started as a script.
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", app.name)[:40]
    return f"{name}-{blake2b(app.root_path.encode(), digest_size=4).hexdigest()}"


def is_switched_on(app: Flask) -> bool:
    """Whether ``RATELIMIT_ENABLED`` of the app is true."""
    return bool(app.config.get(ConfigVars.ENABLED, True))
