"""Reads what an app writes for a limit, such as ``10000 per minute`` or ``50 USD per calendar month``.

A text names one limit or several. Each is a count, or an amount of money, and what it holds for:

======================================= ====================================================================
``per minute``, ``per 2 hours``         a fixed length of time
``per calendar month``                  a window of a calendar, see :mod:`.calendars`
``per session of 5 hours``              so long from the first use on
nothing                                 for ever; only of money, which is then a balance
======================================= ====================================================================
"""

import re
from typing import NamedTuple

from .calendars import EVERY, Calendar
from .errors import ConfigurationError
from .quota import (
    BUDGET,
    EVER,
    MAX_EXACT,
    MONEY_PREFIX,
    NANO,
    NOMINAL_PERIODS,
    PERIODS,
    REQUESTS,
    SESSION,
    UTC,
    WINDOW,
    Quota,
    amount_in_words,
    decimal_of,
    in_largest_unit,
    is_money,
    unit_told,
    windows_in_name,
)

USUAL = "token-bucket"
"""The algorithm of what is limited over a fixed length of time, but requests."""

SEPARATOR = re.compile(r"[;,|]")
"""What stands between several limits."""

NOT_OF_FLASK_LIMITER = re.compile(r"(?i:(?:/|\bper)\s*(?:calendar|session)\b)|[0-9]\s+(?!PER\b)[A-Z]{3}\b")
"""What a text has in it that Flask-Limiter can't read: a window of a calendar or of a session, or a currency."""

_LIMIT = re.compile(
    r"\s*(?P<count>[0-9]{1,16})(?P<decimals>\.[0-9]{1,9})?(?:\s+(?P<currency>[A-Z]{3}))?"
    r"(?:(?:\s*/|\s+(?i:per)\s)\s*(?P<kind>(?i:calendar|session\s+of)\s+)?(?:(?P<many>[0-9]{1,9})\s+)?"
    r"(?P<name>(?i:[a-z]+?))(?i:s)?)?\s*"
)
_DAY = PERIODS["day"]
_ONLY_OF_CALENDARS = tuple(name for name in EVERY if name not in PERIODS)
_EXAMPLES = (
    "Write a count and a period, such as '10000 per minute', '100/second' or '5000 per 2 hours'; separate several with "
    "';'."
)
_OF_MONEY = (
    "Write an amount, its currency and a window, such as '50 USD per calendar month', '5 USD per day' or '5 USD per "
    "session of 5 hours'; or the amount alone, such as '10 USD', for a balance that is never filled again."
)


class Part(NamedTuple):
    """One of the limits that a text names.

    Attributes:
        text: The limit as it is written.
        limit: Units per period; 0 allows nothing.
        period: Seconds; of windows of a calendar and of what holds for ever those that name it, see
            :data:`.quota.NOMINAL_PERIODS`.
        label: Its name; "" for the one that is made of unit and period.
        every: When its windows end, as of a quota; "" for a fixed length of time.
        unit: Of money the unit, such as ``nano_usd``; else "".
    """

    text: str
    limit: int
    period: int
    label: str
    every: str = ""
    unit: str = ""

    @property
    def spelled(self) -> str:
        """The limit in one spelling: two parts that say the same are spelled the same."""
        is_short = self.every == SESSION or self.unit
        count, name = in_largest_unit(self.period, _DAY if is_short else None)
        length = name if count == 1 else f"{count} {name}s"
        windows = {
            "": f" per {length}",
            SESSION: f" per session of {'1 ' if count == 1 else ''}{length}",
            EVER: "",
        }
        limit = amount_in_words(self.limit, self.unit) if self.unit else self.limit
        return f"{limit}{windows.get(self.every, f' per calendar {self.every}')}"

    def algorithm(self, given: str | None, usual: str = USUAL) -> str:
        """The algorithm that counts it.

        Args:
            given: That which the app asks for; None for the usual one.
            usual: That for fixed lengths of time.

        Raises:
            ConfigurationError: The one that was given has no such windows.
        """
        fitting = BUDGET if self.unit or given == BUDGET else WINDOW if self.every else given or usual
        if given not in (None, fitting):
            raise ConfigurationError(
                f"algorithm: {given!r} can't count {self.text[:60]!r}, which {fitting!r} does. Leave algorithm out, or "
                "write this limit apart from the others."
            )
        return fitting


def parse_quotas(
    text: str,
    *,
    unit: str = REQUESTS,
    algorithm: str | None = None,
    burst: int | None = None,
    debt_periods: int = 4,
    label: str = "",
    in_headers: bool = True,
    calendar: Calendar = UTC,
) -> tuple[Quota, ...]:
    """Read ``"10000 per minute"``, ``"100/second; 2000000 per calendar day"`` into quotas.

    Several limits are separated by ``;``, ``,`` or ``|``. Stricter than Flask-Limiter's parser: the whole text
    must be understood. If there are several limits, each has a label with its period: ``plan-per-minute``.

    Args:
        text: The limits.
        unit: What is counted; of money the unit of its currency, such as ``nano_usd``.
        algorithm: How it is counted. Default: windows of a calendar and of a session by ``window``, money by
            ``budget``, and else ``token-bucket``.
        burst: The most that a token bucket gives at once.
        debt_periods: As of a quota.
        label: As of a quota.
        in_headers: As of a quota.
        calendar: That of windows of a calendar.

    Raises:
        ConfigurationError: The text is not such a limit; the message quotes it and gives an example.
    """
    return tuple(
        quota_of_part(
            part, unit, algorithm, burst=burst, debt_periods=debt_periods, in_headers=in_headers, calendar=calendar
        )
        for part in parts_of(text, label, unit)
    )


def quota_of_part(
    part: Part,
    unit: str,
    algorithm: str | None = None,
    *,
    usual: str = USUAL,
    burst: int | None = None,
    debt_periods: int = 4,
    in_headers: bool = True,
    calendar: Calendar = UTC,
) -> Quota:
    """The quota of one of the limits of a text. The engine has no limit of 0, but of money.

    Raises:
        ConfigurationError: It can't be counted so.
    """
    if burst is not None and (part.every or part.unit):
        raise ConfigurationError(
            f"burst: {part.text[:60]!r} has none, because all of it may be used at once. Leave burst out, or write "
            "this limit apart from the others."
        )
    return Quota(
        part.limit,
        part.period,
        unit,
        part.algorithm(algorithm, usual),
        burst,  # type: ignore[arg-type]  # None is its default
        debt_periods,
        part.label,
        in_headers,
        every=part.every,
        calendar=calendar if part.every in (*EVERY, SESSION) else UTC,
    )


def parts_of(text: str, label: str = "", unit: str = "") -> tuple[Part, ...]:
    """The limits that a text names, as :func:`parse_quotas` reads it; also those of 0.

    Args:
        text: The limits.
        label: Their name. Each of several is called by it and its window.
        unit: What is counted. Of money, the unit of the currency that the text must have.

    Raises:
        ConfigurationError: The text is not such a limit.
    """
    if not isinstance(text, str):
        raise ConfigurationError(f"limit: a limit is a text such as '10000 per minute'. Got {text!r}.")
    texts = SEPARATOR.split(text)
    parts = [_part(each, text, of_money=is_money(unit)) for each in texts]
    if is_money(unit):
        _require_unit(parts, unit)
    if not label or len(parts) == 1:
        return tuple(part._replace(label=label) for part in parts)
    return tuple(part._replace(label=label + windows_in_name(part.every, part.period)) for part in parts)


def unit_of_money(text: object) -> str:
    """The unit in which a budget is counted, which a text says by its currency: ``nano_usd`` of ``"50 USD per day"``.

    Raises:
        ConfigurationError: The text names no amount of money.
    """
    match = _LIMIT.fullmatch(SEPARATOR.split(text)[0]) if isinstance(text, str) else None
    if match is None or not match["currency"]:
        raise ConfigurationError(f"limit: can't read {str(text)[:80]!r} as money. {_OF_MONEY}")
    return MONEY_PREFIX + match["currency"].lower()


def _require_unit(parts: list[Part], unit: str) -> None:
    for part in parts:
        if part.unit != unit:
            raise ConfigurationError(
                f"limit: {part.text[:60]!r} is not in {unit_told(unit)}. No currency is turned "
                "into another: write the whole budget in one."
            )


def _part(each: str, text: str, *, of_money: bool) -> Part:
    match = _LIMIT.fullmatch(each)
    if of_money:
        if match is None or not match["currency"]:
            raise ConfigurationError(f"limit: can't read {text[:80]!r} as money. {_OF_MONEY}")
    elif match is not None and match["currency"]:
        raise ConfigurationError(
            f"limit: {each.strip()[:60]!r} is money, which only a budget limits: budget in a plan, or "
            "limiter.limit_budget(). Write a count here."
        )
    if match is None or not (of_money or (match["name"] and not match["decimals"])):
        raise ConfigurationError(f"limit: can't read {text[:80]!r}. {_EXAMPLES}")
    every, period = _window(match, text)
    unit = MONEY_PREFIX + match["currency"].lower() if of_money else ""
    return Part(each.strip(), _amount(match) if of_money else int(match["count"]), period, "", every, unit)


def _amount(match: re.Match[str]) -> int:
    nano = int(match["count"]) * NANO + int((match["decimals"] or ".")[1:].ljust(9, "0"))
    if nano > MAX_EXACT:
        raise ConfigurationError(
            f"limit: {match[0].strip()[:60]!r} is more than {decimal_of(MAX_EXACT)} {match['currency']}, the most that "
            "every store counts exactly. Write less."
        )
    return nano


def _window(match: re.Match[str], text: str) -> tuple[str, int]:
    """When the windows of a limit end, and their period."""
    if match["name"] is None:
        return EVER, NOMINAL_PERIODS[EVER]
    kind, name = (match["kind"] or "").lower().split(), match["name"].lower()
    if kind == ["calendar"]:
        if name not in EVERY or match["many"]:
            raise ConfigurationError(
                f"limit: can't read {text[:80]!r}. A window of a calendar is one {', '.join(EVERY[:-1])} or "
                f"{EVERY[-1]}, such as '2000000 per calendar day'."
            )
        return name, NOMINAL_PERIODS[name]
    seconds, many = PERIODS.get(name, 0), int(match["many"] or 1)
    if name in _ONLY_OF_CALENDARS:
        raise ConfigurationError(
            f"limit: can't read {text[:80]!r}. No length of time is called {name}: write 'per calendar {name}'."
        )
    if not seconds or not many:
        raise ConfigurationError(f"limit: can't read {text[:80]!r}. {_OF_MONEY if match['currency'] else _EXAMPLES}")
    if seconds > _DAY and (kind or match["currency"]):
        write = f"'per session of {seconds // _DAY} days'" if kind else f"'per calendar {name}'"
        raise ConfigurationError(
            f"limit: {match[0].strip()[:60]!r}: a {name} would be {seconds // _DAY} days. Write {write}."
        )
    return SESSION if kind else "", many * seconds
