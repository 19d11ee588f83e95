"""Our settings. ``init_app`` reads each once, from the constructor or else from ``app.config``, and checks it."""

import dataclasses
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from flask import Request

from .engine import Calendar, ConfigurationError
from .engine.charge import LOCAL, STORE_ERROR_POLICIES
from .engine.quota import REQUESTS, UTC, require_bool, require_soft_percent
from .headers import DEFAULT_DIALECTS, require_dialects
from .http.responses import ERROR_FORMATS
from .money import Money
from .tokens import TokenCounter, Usage, open_counter
from .unlimited import Unlimited

PREFIX = "AILIMIT_"
TOO_LARGE_STATUSES = (400, 413, 429)
UNREADABLE_BODY_POLICIES = ("refuse", "reserve")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MOST_BYTES = 1 << 30
WORK, CLIENT = "work", "client"
SLOT_ENDS = (WORK, CLIENT)
_LONGEST_TIMEOUT = 3600
_LONGEST_ABANDONED = 86_400
_MOST_TOKENS = 2**31
_MOST_DEBT_PERIODS = 1000
_MOST_DAYS = 36_500


@dataclass(frozen=True)
class Settings:
    """Each is a keyword of :class:`flask_ailimit.AILimiter` and a config key: ``AILIMIT_`` and its name in capitals.

    Attributes:
        default_token_limits: Token limits of every route that has none of its own, such as ``["100000 per minute"]``.
            Each route has a count of its own. An item is a text, a callable or a :class:`flask_ailimit.TokenLimit`.
        application_token_limits: Token limits of all routes together: one count for what a key uses on any of them.
        application_concurrency: The calls in flight of a key on all routes together: a number, a callable, a
            :class:`flask_ailimit.ConcurrencyLimit`, or a list of them.
        address_limits: Limits on the requests of an address, decided before any function of the app runs.
        token_counter: How text is counted when the usage is not reported: a name in
            :data:`flask_ailimit.tokens.COUNTERS` or a callable from text to tokens.
        default_output_tokens: Output tokens to reserve for a request that names no maximum.
        count_cached_tokens: Whether input from the model's cache counts.
        headers: Dialects of limit headers, names in :data:`flask_ailimit.headers.DIALECTS`.
        error_format: The shape of a refusal's body: ``hybrid``, ``problem``, ``openai`` or ``anthropic``.
        too_large_status: The status for a request larger than a whole limit: 413, 400 or 429.
        on_store_error: The policy while the store is away: ``local`` decides over this machine's share of the limit
            (if nothing can decide in place of the store, it is ``deny``), ``deny`` answers 503, ``allow`` lets requests
            pass uncounted. A limit's own ``on_store_error`` replaces it.
        max_body_bytes: The largest body that is read to estimate tokens. A larger one is refused with 413.
        unreadable_body: The policy for a body that was sent as JSON and can't be read: ``refuse`` answers 400,
            ``reserve`` reserves tokens by its length and calls the view.
        max_debt_periods: The most that a count owes beyond its limit, in periods of the limit: 0 to 1,000.
        soft_percent: 1 to 100: once this part of a limit is used, answers say so, and ``soft_limit_passed`` is sent. 0
            or None: never. A limit may have its own.
        write_timeout: Seconds that a stream waits for a client that doesn't read, before it is cut; None: for ever.
        slot_ends: When a stream gives its slot back and settles its tokens after its client has left: ``work``, when
            the view returns or raises, or ``client``, as soon as the client is gone, although the view may work on.
        longest_abandoned: Seconds after the client left, after which the slot is given back although the view works on;
            None: never.
        name: The app's name in the default place of ``local://``, 1 to 64 of ``A-Za-z0-9_.-``. Apps with one name share
            their counts. None: made of the app's import name and folder.
        accept_money_loss: Whether money may be limited over a store that may lose its counts, and then grants every
            budget anew. Without it such an app doesn't start, unless it is ``TESTING``.
        settlements: The file in which settlements are kept, relative to the app's folder, for usage pages and for
            ``flask ailimit export``. None: they are kept nowhere. See docs/how-to/settlements.md.
        settlements_days: How many days they are kept, 1 to 36,500.
        plans: What each payer may use: the path of a TOML file, relative to the app's folder, or a dictionary of
            the same form. None: no route is limited by plan. See docs/plans.md.
        plan_everywhere: Whether every route is limited by plan but those that are exempt, and static files.
        told_roles: Roles of whose limits clients are told, besides the first payer's; ``service`` for those of
            everybody together.
        calendar: The days of limits such as ``2000000 per calendar day``: a :class:`flask_ailimit.engine.Calendar` or a
            dictionary such as ``{"zone": "Europe/Berlin", "week_starts": "sunday", "month_starts": 17}``. A limit, a
            plan and a plan file may have their own. Default: days of UTC, weeks from Monday, months from the first.
        prices: What models cost, for budgets: a dictionary of prices by the pattern of a model's name, such as
            ``{"large-*": {"input": "2.50 USD", "output": "10 USD"}}``, per million tokens. The plan file may have them
            instead. See docs/plans.md.
        genai_prices: Whether models without a price of yours are looked up in the package genai-prices. The plan file
            may say it instead.
        model_of: Takes the request and returns the name of the model that it asks for; None if it names none. Default:
            the ``model`` in its body.
        cost_of: Takes a usage and the name of its model, or None, and returns what it costs: a
            :class:`flask_ailimit.money.Money`, a text such as ``"0.02 USD"``, or None for what the price says.
        secret: The secret for the hash of identities; the same on all machines. None: made by the store, or of Flask's
            ``SECRET_KEY`` if several machines share the store.
    """

    default_token_limits: Sequence[object] = ()
    application_token_limits: Sequence[object] = ()
    application_concurrency: object = None
    address_limits: Sequence[str | Unlimited | Callable[[], str | Unlimited]] = ()
    token_counter: str | Callable[[str], int] = "estimate"  # noqa: S105  a name, no password
    default_output_tokens: int = 1024
    count_cached_tokens: bool = True
    headers: Sequence[str] = DEFAULT_DIALECTS
    error_format: str = "hybrid"
    too_large_status: int = 413
    on_store_error: str = LOCAL
    max_body_bytes: int = 20 << 20
    unreadable_body: str = "refuse"
    max_debt_periods: int = 4
    soft_percent: int | None = None
    write_timeout: float | None = 30
    slot_ends: str = WORK
    longest_abandoned: float | None = 600
    name: str | None = None
    accept_money_loss: bool = False
    settlements: str | os.PathLike[str] | None = None
    settlements_days: int = 400
    plans: object = None
    plan_everywhere: bool = False
    told_roles: Sequence[str] = ()
    calendar: Calendar = UTC
    prices: Mapping[str, Any] | None = None
    genai_prices: bool = False
    model_of: Callable[[Request], str | None] | None = None
    cost_of: Callable[[Usage, str | None], Money | str | None] | None = None
    secret: str | bytes | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        _limits("default_token_limits", self.default_token_limits, "100000 per minute")
        _limits("application_token_limits", self.application_token_limits, "100000 per minute")
        _limits("address_limits", self.address_limits, "600 per minute")
        require_dialects(self.headers)
        _one_of("error_format", self.error_format, tuple(ERROR_FORMATS))
        _one_of("too_large_status", self.too_large_status, TOO_LARGE_STATUSES)
        require_policy(self.on_store_error)
        require_output_tokens(self.default_output_tokens)
        _whole("max_body_bytes", self.max_body_bytes, 1, _MOST_BYTES)
        _whole("max_debt_periods", self.max_debt_periods, 0, _MOST_DEBT_PERIODS)
        if self.soft_percent is not None:
            require_soft_percent(self.soft_percent, REQUESTS)
        _one_of("unreadable_body", self.unreadable_body, UNREADABLE_BODY_POLICIES)
        require_bool("count_cached_tokens", self.count_cached_tokens)
        _seconds("write_timeout", self.write_timeout, _LONGEST_TIMEOUT)
        _one_of("slot_ends", self.slot_ends, SLOT_ENDS)
        _seconds("longest_abandoned", self.longest_abandoned, _LONGEST_ABANDONED)
        if self.name is not None and not (isinstance(self.name, str) and _NAME.fullmatch(self.name)):
            raise ConfigurationError(
                "name: 1 to 64 letters, digits, '_', '.' or '-', the first a letter or a digit, such as 'shop'. "
                f"Got {self.name if isinstance(self.name, int) else str(self.name)[:80]!r}."
            )
        require_bool("accept_money_loss", self.accept_money_loss)
        if self.settlements is not None and not _is_path_of_file(self.settlements):
            raise ConfigurationError(
                "settlements: the path of a file is needed, such as 'settlements.sqlite'. "
                f"Got {str(self.settlements)[:80]!r}."
            )
        _whole("settlements_days", self.settlements_days, 1, _MOST_DAYS)
        require_bool("plan_everywhere", self.plan_everywhere)
        if self.plans is None and self.plan_everywhere:
            raise ConfigurationError("plan_everywhere: there are no plans. Give plans='plans.toml', or a dictionary.")
        _limits("told_roles", self.told_roles, "organisation")
        object.__setattr__(self, "calendar", Calendar.of(self.calendar))
        if self.prices is not None and not isinstance(self.prices, Mapping):
            raise ConfigurationError(
                "prices: a dictionary is needed, such as {'large-*': {'input': '2.50 USD', 'output': '10 USD'}}. "
                f"Got {type(self.prices).__name__}."
            )
        require_bool("genai_prices", self.genai_prices)
        if self.model_of is not None and not callable(self.model_of):
            raise ConfigurationError(
                f"model_of: a callable from the request to a name is needed. Got {str(self.model_of)[:80]!r}."
            )
        if self.cost_of is not None and not callable(self.cost_of):
            raise ConfigurationError(
                f"cost_of: a callable from a usage and a model to an amount is needed. Got {str(self.cost_of)[:80]!r}."
            )
        if self.secret is not None and not isinstance(self.secret, str | bytes):
            raise ConfigurationError("secret: a text is needed.")  # Its value is never shown.
        if self.secret is not None and not self.secret:
            raise ConfigurationError("secret: 16 to 64 bytes are needed. Got none; leave it out for the store's own.")

    def open_counter(self) -> TokenCounter:
        """Return the token counter that ``token_counter`` names."""
        return open_counter(self.token_counter)

    @property
    def secret_bytes(self) -> bytes | None:
        """The secret as bytes."""
        return self.secret.encode() if isinstance(self.secret, str) else self.secret


NAMES = tuple(field.name for field in dataclasses.fields(Settings))


def read_settings(given: Mapping[str, Any], config: Mapping[str, Any]) -> Settings:
    """Read each setting from the constructor, else from the app's config, else its default.

    Raises:
        ConfigurationError: A value is wrong, or the config has an ``AILIMIT_`` key that doesn't exist.
    """
    values = {}
    for key, value in config.items():
        if isinstance(key, str) and key.startswith(PREFIX):
            name = key.removeprefix(PREFIX).lower()
            if name not in NAMES:
                close = get_close_matches(name, NAMES, n=1)
                known = ", ".join(name.upper() for name in close or NAMES)
                hint = f"Did you mean {PREFIX}{known}?" if close else f"Known are, after {PREFIX}: {known}."
                raise ConfigurationError(f"{key[:80]}: there is no such setting. {hint}")
            values[name] = value
    return Settings(**{**values, **given})


def unread_variables(environment: Collection[str], given: Collection[str], config: Collection[Any]) -> list[str]:
    """The environment variables that are called like a setting, which nothing has put where settings are read."""
    keys = {PREFIX + name.upper(): name for name in NAMES}
    return [key for key, name in keys.items() if key in environment and name not in given and key not in config]


def require_policy(value: object) -> None:
    """Check that ``value`` is a failure policy.

    Raises:
        ConfigurationError: It is not.
    """
    _one_of("on_store_error", value, STORE_ERROR_POLICIES)


def require_output_tokens(value: object) -> None:
    """Check that ``value`` is a number of output tokens to reserve.

    Raises:
        ConfigurationError: It is not a whole number from 0 to 2**31.
    """
    _whole("default_output_tokens", value, 0, _MOST_TOKENS)


def _is_path_of_file(value: object) -> bool:
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    return isinstance(path, str) and "\0" not in path and Path(path).name != ""


def _limits(name: str, value: object, example: str) -> None:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigurationError(f"{name}: a list is needed, such as [{example!r}]. Got {str(value)[:80]!r}.")


def _one_of(name: str, value: object, known: tuple[object, ...]) -> None:
    if value not in known or isinstance(value, bool):
        raise ConfigurationError(f"{name}: use one of {', '.join(map(repr, known))}. Got {str(value)[:40]!r}.")


def _whole(name: str, value: object, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ConfigurationError(f"{name}: a whole number from {least} to {most} is needed. Got {str(value)[:40]!r}.")


def _seconds(name: str, value: object, most: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        raise ConfigurationError(f"{name}: seconds, more than 0 and at most {most}, or None. Got {str(value)[:40]!r}.")
