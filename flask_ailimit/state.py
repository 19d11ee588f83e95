"""What belongs to one app of an extension that may serve several: settings, counter, default limits, engine."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from flask import Flask
from flask_limiter.constants import ConfigVars
from limits.errors import ConfigurationError as LimitsConfigurationError

from .config import Settings, read_settings
from .engine import ALGORITHMS, ConfigurationError, Engine, open_store
from .engine.clock import Clock
from .engine.quota import CONCURRENCY
from .token_limit import UnitLimit
from .tokens import TokenCounter

if TYPE_CHECKING:
    from .extension import AILimiter

DEFAULT_URI = "local://"


class MisconfiguredError(ConfigurationError, LimitsConfigurationError):
    """Caught by who waits for our ConfigurationError, and by who waits for Flask-Limiter's."""


@dataclass(frozen=True)
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
    storage: tuple[str | None, dict[str, Any]],
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
        uri, options = storage
        store = open_store(
            uri or app.config.get(ConfigVars.STORAGE_URI) or DEFAULT_URI,
            name=place_of(app),
            clock=clock,
            options={**options, **app.config.get(ConfigVars.STORAGE_OPTIONS, {})},
        )
        engine = Engine(store, secret=settings.secret_bytes)
        engine.peek(())  # A store that can't be used is found out now.
        defaults = [limiter.limit_tokens(limit) for limit in settings.default_token_limits]
        return State(settings, settings.open_counter(), algorithm, defaults, engine)
    except ConfigurationError as error:
        raise MisconfiguredError(str(error)) from error


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
