"""What belongs to one app of an extension that may serve several: settings, counter, default limits, engine."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from flask import Flask
from flask_limiter.constants import ConfigVars
from limits.errors import ConfigurationError as LimitsConfigurationError

from .checking import require_request_limit
from .config import PREFIX, Settings, read_settings
from .engine import ALGORITHMS, ConfigurationError, Engine, Store, open_store
from .engine.clock import Clock
from .engine.quota import CONCURRENCY
from .signals import store_changed
from .token_limit import UnitLimit
from .tokens import TokenCounter

if TYPE_CHECKING:
    from .extension import AILimiter

DEFAULT_URI = "local://"
_LIMITS = (
    ConfigVars.APPLICATION_LIMITS,
    ConfigVars.DEFAULT_LIMITS,
    ConfigVars.IN_MEMORY_FALLBACK,
    ConfigVars.META_LIMITS,
)


class MisconfiguredError(ConfigurationError, LimitsConfigurationError):
    """Caught by who waits for our ConfigurationError, and by who waits for Flask-Limiter's."""


@dataclass(frozen=True, eq=False)
class State:
    """What belongs to one app.

    Attributes:
        settings: As configured.
        counter: Counts the tokens of a text.
        algorithm: How limits on requests count: Flask-Limiter's ``strategy``.
        default_token_limits: Of every route that has none of its own.
        engine: Decides, over the app's store.
    """

    settings: Settings
    counter: TokenCounter
    algorithm: str
    default_token_limits: list[UnitLimit]
    engine: Engine


def open_state(
    limiter: "AILimiter",
    app: Flask,
    given: Mapping[str, Any],
    storage: tuple[str | None, Any],
    clock: Clock,
) -> State:
    """Read the app's configuration, and open its store.

    Raises:
        ConfigurationError: Something is wrong; the message says the fix.
        StoreError: The store can't be used.
    """
    try:
        settings = read_settings(given, app.config)
        algorithm = limiter._strategy or app.config.get(ConfigVars.STRATEGY) or "fixed-window"
        require_algorithm("strategy", algorithm)
        for key in _LIMITS:
            if app.config.get(key):
                require_request_limit(key, app.config[key])
        defaults = [limiter.limit_tokens(limit) for limit in settings.default_token_limits]
        if "default_output_tokens" in given or f"{PREFIX}DEFAULT_OUTPUT_TOKENS" in app.config:
            _require_room(settings.default_output_tokens, defaults)
        counter = settings.open_counter()
        engine = Engine(_open_store(app, storage, clock), secret=settings.secret_bytes)
        engine.peek(())  # A store that can't be used is found out now.
        engine.store.watch(partial(_tell, app))
        return State(settings, counter, algorithm, defaults, engine)
    except ConfigurationError as error:
        raise MisconfiguredError(str(error)) from error


def _tell(app: Flask, available: bool) -> None:
    store_changed.send(app, available=available)


def _open_store(app: Flask, storage: tuple[str | None, Any], clock: Clock) -> Store:
    uri, options = storage
    if uri is None:
        uri = app.config.get(ConfigVars.STORAGE_URI)
    given = [options, app.config.get(ConfigVars.STORAGE_OPTIONS)]
    for each in given:
        if each is not None and not isinstance(each, Mapping):
            raise ConfigurationError(f"storage_options: a dictionary is needed. Got {type(each).__name__}.")
    merged = {name: value for each in given for name, value in (each or {}).items()}
    return open_store(DEFAULT_URI if uri is None else uri, name=place_of(app), clock=clock, options=merged)


def _require_room(output_tokens: int, limits: Iterable[UnitLimit]) -> None:
    for limit in limits:
        for quota in () if callable(limit.limit_provider) else limit.quotas(limit.limit_provider):
            if output_tokens >= quota.burst:
                raise ConfigurationError(
                    f"default_output_tokens: {output_tokens} is all that '{quota.text}' hands out at once, or more, so "
                    "a request that names no maximum would take the whole limit. Lower it, or raise the limit."
                )


def require_algorithm(setting: str, value: object) -> None:
    """Refuse what is no algorithm for limits over time.

    Raises:
        ConfigurationError: It is none.
    """
    known = sorted(set(ALGORITHMS) - {CONCURRENCY})
    if value not in known:
        raise MisconfiguredError(f"{setting}: use one of {', '.join(known)}. Got {str(value)[:40]!r}.")


def place_of(app: Flask) -> str:
    """A directory name for the app, which other apps of this machine don't have."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", app.import_name)[:40]
    return f"{name}-{blake2b(app.root_path.encode(), digest_size=4).hexdigest()}"
