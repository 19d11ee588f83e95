"""What is allowed: so many units in such a period."""

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import blake2b
from math import gcd
from typing import Any, NamedTuple

from .calendars import EVERY, Calendar
from .clock import MICROSECONDS
from .errors import ConfigurationError
from .grant import Grant

REQUESTS = "requests"
TOKENS = "tokens"
INPUT_TOKENS = "input_tokens"
OUTPUT_TOKENS = "output_tokens"
CONCURRENCY = "concurrency"

MONEY_PREFIX = "nano_"
"""What the units of money begin with: ``nano_usd`` counts billionths of a US dollar."""

TOKEN_UNITS = (TOKENS, INPUT_TOKENS, OUTPUT_TOKENS)
BUILT_IN_UNITS = (REQUESTS, *TOKEN_UNITS, CONCURRENCY)

NANO = 10**9
"""Nano-units of money in a unit of its currency."""

MAX_EXACT = 2**53 - 1
"""The largest integer that Lua's doubles count exactly; every stored number stays below it."""

MOST_IN_FLIGHT = 10_000
"""The largest concurrency limit; each call in flight is an entry in the subject's record."""

MOST_WAITING = 1000
"""The longest line of ``turns``: each who waits is an entry in the record."""

PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "month": 30 * 86400, "year": 360 * 86400}
"""Seconds by name. A month is 30 days and a year 360, as in Flask-Limiter, so that one text means one thing."""

SESSION, EVER = "session", "ever"
NOMINAL_PERIODS = {
    "hour": 3600,
    "day": 86400,
    "week": 7 * 86400,
    "month": 31 * 86400,
    "quarter": 92 * 86400,
    "year": 366 * 86400,
    EVER: 10 * 366 * 86400,
}
"""Seconds of the longest usual window of each kind. They name a count and stand in headers; no window ends by them."""

LATEST_SECOND = 2**32 - 1
"""In 2106: the latest that a store can note as the end of a count."""

MOST_GRANTS = 64
"""The most grants of credit that one payer may have at once: each decision looks at all of them."""

WINDOW, BUDGET = "window", "budget"

GATE, TURNS, PROVIDER_BUCKET = "gate", "turns", "provider-bucket"
"""Algorithms for the app's own calls to providers. The first two are also the units of what they count."""

_CREDITED = tuple((period, every) for every, period in NOMINAL_PERIODS.items())
_HAVE_WINDOWS = (WINDOW, BUDGET)
_HAVE_BURST = ("token-bucket", PROVIDER_BUCKET)
_HOLD = (CONCURRENCY, GATE)
_WITHOUT_WINDOW = (CONCURRENCY, GATE, TURNS)

_UNIT = re.compile(r"[a-z][a-z0-9_]{0,31}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_LONGEST_NAME = 64
_LONGEST_LABEL = 96  # A name with a period.
_TICKS = (1, 1000, MICROSECONDS)
_MOST_SCOPES = 1024  # Whose names are remembered: an app may make scopes up.
_LONGEST_PERIOD = 10 * 366 * 86400
_MOST_DEBT_PERIODS = 1000
_LONGEST_DEBT_US = 2**52  # 142 years: when it is paid can so be said in microseconds below 2**53, until 2112.
_RATES_KEPT = 1024
_WHOLE = 100  # Percent.


class Rate(NamedTuple):
    """How fast a token bucket leaks, in whole numbers. Its twin in ``token_bucket.lua`` works it out in the same way.

    Attributes:
        tick_us: Resolution in microseconds: 1, 1,000 or 1,000,000, the finest at which debt stays below 2**53.
        cost_scale: Debt that one unit of cost makes.
        leak: Debt that one tick forgives.
        most_debt: The most that a debt may come to.
    """

    tick_us: int
    cost_scale: int
    leak: int
    most_debt: int = MAX_EXACT


_NO_RATE = Rate(1, 1, 1)
_OF_SESSION = (-1, -1, -1, -1)


@lru_cache(maxsize=_RATES_KEPT)
def rate_of(limit: int, burst: int, period: int) -> Rate:
    """The rate of ``limit`` units in a period of so many seconds, with a burst.

    The scale is as large as a debt of a thousand limits allows, so that what is rounded when a limit changes is as
    small as can be.
    """
    for tick_us in _TICKS:
        ticks = period * MICROSECONDS // tick_us
        shared = gcd(limit, ticks)
        if burst * (ticks // shared) <= MAX_EXACT:
            break
    scale, leak, factor = ticks // shared, limit // shared, 1
    while (burst + _MOST_DEBT_PERIODS * limit) * scale * factor * 2 <= MAX_EXACT:
        factor *= 2
    return Rate(tick_us, scale * factor, leak * factor)


UTC = Calendar()


@dataclass(frozen=True)
class Quota:
    """``limit`` units per ``period`` seconds, decided by ``algorithm``. Immutable and hashable.

    Attributes:
        limit: Units per period, 1 to 2**53 - 1; of a ``budget`` also 0. For ``concurrency``: calls in flight.
        period: Seconds, a whole number from 1 to ten years. For ``concurrency``: the lease time. Of windows of a
            calendar, and of what never ends, it is set to :data:`NOMINAL_PERIODS`.
        unit: What is counted: ``requests``, ``tokens``, ``input_tokens``, ``output_tokens``, ``concurrency``
            or a name of your own (lower case letters, digits, underscores); for money ``nano_`` and the currency.
        algorithm: A name in :data:`flask_ailimit.engine.algorithms.ALGORITHMS`.
        burst: The most a token bucket hands out at once; ``limit`` when not given. Other algorithms have none.
        debt_periods: How much of what was used beyond the limit (or burst) is owed at most, in periods: 0 to 1,000
            times ``limit``. It is no part of the count's name: when it changes, counts go on.
        label: A name for headers, messages and events, 1 to 96 of ``A-Za-z0-9_.-``; "" for the one that is made of unit
            and period. It is no part of the count's name either.
        in_headers: Whether clients are told of it, in headers and in refusals.
        soft_percent: The part of the burst, in percent, from which on the app and its clients are told that the count
            is nearly used up: 1 to 100; 0 for never. It is no part of the count's name either. ``concurrency`` has
            none.
        every: When its windows end. "": with the periods of the clock; ``hour``, ``day``, ``week``, ``month``,
            ``quarter`` or ``year``: with those of a calendar; ``session``: ``period`` seconds after the first charge;
            ``ever``: never. Only ``window`` and ``budget`` have others than "".
        calendar: The calendar of its windows; of a session, in whose zone its end is told. It is no part of the count's
            name: a change takes effect with the next window.
        credit: What a payer may use beside the limit of a ``budget``, the grants that end soonest first.
        credit_windows: Further windows, as ``(period, every)``, of budgets in this unit beside which the payer may have
            used the same credit, such as that of a session under another plan. Those of calendars and for ever are
            always looked at.
        has_windows: Whether its algorithm asks for the ends of its windows.
        is_held: Whether a reservation may hold something of it under its lease: a slot, or the probe of a ``gate``.
        soft_left: The most that is left of the burst once that part is used; -1 without a soft percent.
        ceiling: The most that a count stands at, in units: ``burst + debt_periods * limit``, or what 2**53 - 1 and
            142 years allow, if that is less.
        period_us: The period in microseconds.
        tick_us: Resolution in microseconds: 1, 1,000 or 1,000,000, the finest at which debt stays below 2**53.
        period_ticks: The period in ticks.
        cost_scale: Debt that one unit of cost makes: ``period_ticks / gcd(limit, period_ticks)`` times a power of two.
        most_debt: The ceiling as a token bucket's debt, below 2**53.
        leak: Debt that one tick forgives: ``limit / gcd(limit, period_ticks)`` times the same power of two.

    Raises:
        ConfigurationError: A value is out of range; the message says which and what fits.
    """

    limit: int
    period: int
    unit: str = REQUESTS
    algorithm: str = "token-bucket"
    burst: int = None  # type: ignore[assignment]  # it is the limit, once it is made
    debt_periods: int = 4
    label: str = ""
    in_headers: bool = True
    soft_percent: int = 0
    every: str = ""
    calendar: Calendar = UTC
    credit: tuple[Grant, ...] = ()
    credit_windows: tuple[tuple[int, str], ...] = ()
    has_windows: bool = field(init=False, repr=False, compare=False)
    is_held: bool = field(init=False, repr=False, compare=False)
    soft_left: int = field(init=False, repr=False, compare=False)
    ceiling: int = field(init=False, repr=False, compare=False)
    period_us: int = field(init=False, repr=False, compare=False)
    tick_us: int = field(init=False, repr=False, compare=False)
    period_ticks: int = field(init=False, repr=False, compare=False)
    cost_scale: int = field(init=False, repr=False, compare=False)
    most_debt: int = field(init=False, repr=False, compare=False)
    leak: int = field(init=False, repr=False, compare=False)
    _hash: int = field(init=False, repr=False, compare=False)
    _buckets: dict[str, bytes] = field(default_factory=dict, init=False, repr=False, compare=False)
    _credited_in: dict[str, tuple[bytes, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.every in NOMINAL_PERIODS:
            object.__setattr__(self, "period", NOMINAL_PERIODS[self.every])
        _require_count("limit", self.limit, 0 if self.algorithm == BUDGET else 1)
        self._require_period_and_unit()
        if self.unit == CONCURRENCY and self.limit > MOST_IN_FLIGHT:
            raise ConfigurationError(f"limit: at most {MOST_IN_FLIGHT} calls in flight per subject. Got {self.limit}.")
        self._require_own_unit()
        if self.burst not in (None, self.limit) and self.algorithm not in _HAVE_BURST:
            raise ConfigurationError(
                f"burst: only the token-bucket algorithm has one. Got burst={self.burst!r} with "
                f"algorithm={self.algorithm!r}; drop burst or use algorithm='token-bucket'."
            )
        if self.burst is None:
            object.__setattr__(self, "burst", self.limit)
        _require_count("burst", self.burst, 0 if self.algorithm == BUDGET else 1)
        self._require_window()
        if type(self.debt_periods) is not int or not 0 <= self.debt_periods <= _MOST_DEBT_PERIODS:
            raise ConfigurationError(
                f"debt_periods: a whole number from 0 to {_MOST_DEBT_PERIODS} is needed. Got {self.debt_periods!r:.40}."
            )
        if self.label != "":
            require_name(self.label, _LONGEST_LABEL)
        require_bool("in_headers", self.in_headers)
        require_soft_percent(self.soft_percent, self.unit)
        # Used is at least the whole number of units that is that part or more, so what is left is rounded down.
        soft_left = self.burst * (_WHOLE - self.soft_percent) // _WHOLE if self.soft_percent else -1
        object.__setattr__(self, "soft_left", soft_left)
        object.__setattr__(self, "period_us", self.period * MICROSECONDS)
        # Of numbers alone: the hash of a text is another one in another process, and quotas can be pickled.
        object.__setattr__(self, "_hash", hash((self.limit, self.period, self.burst, self.credit)))
        has_windows = self.algorithm in _HAVE_WINDOWS
        object.__setattr__(self, "has_windows", has_windows)
        object.__setattr__(self, "is_held", self.algorithm in _HOLD)
        self._choose_tick(_NO_RATE if has_windows else rate_of(self.limit, self.burst, self.period))
        owed_periods = min(self.debt_periods, max(0, _LONGEST_DEBT_US // self.period_us - 2))
        most = MAX_EXACT if has_windows else self.burst + owed_periods * self.limit
        object.__setattr__(self, "ceiling", min(most, MAX_EXACT))
        object.__setattr__(self, "most_debt", min(self.ceiling * self.cost_scale, MAX_EXACT))
        # What the arithmetic multiplies: a sliding window weighs up to four limits with the period.
        weighed = 4 * self.limit * self.period if self.algorithm == "sliding-window-counter" else 0
        if max(self.burst * self.cost_scale, weighed) > MAX_EXACT:
            raise ConfigurationError(
                f"limit: {self.limit} per {self.period} s can't be counted exactly. "
                "Use a rounder limit (for example a multiple of the period) or a shorter period."
            )

    def __hash__(self) -> int:
        return self._hash

    def _require_period_and_unit(self) -> None:
        if type(self.period) is not int or not 1 <= self.period <= _LONGEST_PERIOD:
            raise ConfigurationError(
                f"period: a quota's period is a whole number of seconds from 1 to {_LONGEST_PERIOD} "
                f"(ten years). Got {self.period!r}."
            )
        if not isinstance(self.unit, str) or not _UNIT.fullmatch(self.unit):
            raise ConfigurationError(
                f"unit: use lower case letters, digits and underscores, such as 'tokens'. Got {str(self.unit)[:40]!r}."
            )

    def _require_own_unit(self) -> None:
        if (self.unit == CONCURRENCY) != (self.algorithm == CONCURRENCY):
            raise ConfigurationError(
                f"algorithm: 'concurrency' counts the unit 'concurrency', and nothing else does. Got "
                f"algorithm={self.algorithm!r} with unit={self.unit!r}."
            )
        # An app may have a unit with one of these names, and count it otherwise.
        if self.algorithm in (GATE, TURNS) and (self.unit != self.algorithm or self.soft_percent):
            raise ConfigurationError(
                f"algorithm: {self.algorithm!r} counts the unit {self.algorithm!r}, and has no soft_percent. Got "
                f"unit={self.unit!r} with soft_percent={self.soft_percent!r:.40}."
            )
        if self.algorithm == TURNS and self.limit > MOST_WAITING:
            raise ConfigurationError(f"limit: at most {MOST_WAITING} wait in a line. Got {self.limit}.")

    def _require_window(self) -> None:
        known = ("", *EVERY, SESSION, EVER)
        if self.every not in known:
            raise ConfigurationError(
                f"every: one of {', '.join(map(repr, known))} is needed. Got {str(self.every)[:40]!r}."
            )
        if self.every and self.algorithm not in _HAVE_WINDOWS:
            raise ConfigurationError(
                f"algorithm: windows of a calendar, of a session and for ever are counted by {WINDOW!r} or "
                f"{BUDGET!r}. Got {self.algorithm!r} with every={self.every!r}."
            )
        if self.unit.startswith(MONEY_PREFIX) and self.algorithm != BUDGET:
            raise ConfigurationError(
                f"algorithm: money is counted by {BUDGET!r}, because no other one tells what is spent from what is "
                f"reserved. Got {self.algorithm!r}."
            )
        if self.credit and self.algorithm != BUDGET:
            raise ConfigurationError(f"credit: only a {BUDGET!r} has it. Got {self.algorithm!r}.")
        object.__setattr__(self, "credit", tuple(sorted(self.credit, key=lambda grant: (grant.ends, grant.id))))
        if len(self.credit) > MOST_GRANTS:
            raise ConfigurationError(f"credit: at most {MOST_GRANTS} grants at once. Got {len(self.credit)}.")

    def _choose_tick(self, rate: Rate) -> None:
        object.__setattr__(self, "tick_us", rate.tick_us)
        object.__setattr__(self, "period_ticks", self.period_us // rate.tick_us)
        object.__setattr__(self, "cost_scale", rate.cost_scale)
        object.__setattr__(self, "leak", rate.leak)

    def bucket(self, scope: str) -> bytes:
        """Eight bytes that name the count of this quota in a scope: a hash of both, without what may change.

        Limit, burst and calendar are no part of the name, so what was used is kept when they change. Unit, algorithm,
        kind of windows and period are.
        """
        name = self._buckets.get(scope)
        if name is None:
            if len(self._buckets) >= _MOST_SCOPES:
                self._buckets.clear()
            name = self._buckets[scope] = self._bucket(scope)
        return name

    def _bucket(self, scope: str) -> bytes:
        return _bucket_of(self.unit, self.algorithm, self.every, self.period, scope)

    def credited_in(self, scope: str) -> tuple[bytes, ...]:
        """The names of the other counts in which this budget's credit may have been used, as of :meth:`bucket`."""
        found = self._credited_in.get(scope)
        if found is None:
            if len(self._credited_in) >= _MOST_SCOPES:
                self._credited_in.clear()
            windows = dict.fromkeys([*_CREDITED, *self.credit_windows])
            found = self._credited_in[scope] = tuple(
                _bucket_of(self.unit, self.algorithm, every, period, scope)
                for period, every in windows
                if (period, every) != (self.period, self.every)
            )
        return found

    def window_end_us(self, at_us: int) -> int:
        """When a window ends that begins at a time, or around it; both in microseconds since the epoch."""
        if self.every == SESSION:
            return at_us + self.period_us
        if self.every == EVER:
            return LATEST_SECOND * MICROSECONDS
        if self.every:
            return self.calendar.ends_around(self.every, at_us)[2]
        return (at_us // self.period_us + 1) * self.period_us

    def ends_around(self, at_us: int) -> tuple[int, int, int, int]:
        """Where windows begin and end around a time: of four boundaries, it is between the second and the third.

        For a store that decides by its own clock, which may be in the window before or behind. Of a session, whose
        window begins with the first charge, all are -1; before what never ends there is 0.
        """
        if self.every == SESSION:
            return _OF_SESSION
        if self.every == EVER:
            return 0, 0, LATEST_SECOND * MICROSECONDS, LATEST_SECOND * MICROSECONDS
        if self.every:
            return self.calendar.ends_around(self.every, at_us)
        begin = at_us - at_us % self.period_us
        return begin - self.period_us, begin, begin + self.period_us, begin + 2 * self.period_us

    @property
    def given(self) -> tuple[int, int, str, str, Any, int]:
        """What is counted, and how: ``Quota(*quota.given)`` decides as this one, over the same counts.

        Its windows are told by :attr:`every`, :attr:`calendar` and :attr:`credit` besides.
        """
        burst = self.burst if self.algorithm in _HAVE_BURST else None
        return self.limit, self.period, self.unit, self.algorithm, burst, self.debt_periods

    def with_credit(self, credit: tuple[Grant, ...], windows: tuple[tuple[int, str], ...] = ()) -> "Quota":
        """This budget, with grants that the payer may use beside it; it has the same counts.

        Args:
            credit: The grants.
            windows: As :attr:`credit_windows`.

        Raises:
            ConfigurationError: It is no budget, or there are more than 64 grants.
        """
        return replace(self, credit=credit, credit_windows=windows) if credit else self

    def part(self, limit: int, burst: int) -> "Quota":
        """This quota with another limit and burst, and without credit; it has the same counts.

        Raises:
            ConfigurationError: The numbers can't be counted.
        """
        given: Any = None if burst == limit else burst
        return replace(self, limit=limit, burst=given, credit=())

    def owing(self, debt_periods: int) -> "Quota":
        """This quota with another bound of what may be owed; it has the same counts.

        Raises:
            ConfigurationError: It is not a whole number from 0 to 1,000.
        """
        return replace(self, debt_periods=debt_periods)

    def told_as(self, label: str, *, in_headers: bool = True, soft_percent: int = 0) -> "Quota":
        """This quota as it is told of: by what name, to clients or not, from which part on; it has the same counts.

        Raises:
            ConfigurationError: The label has other characters than those of a name, or is too long, or the soft percent
                is not one that a quota can have.
        """
        return replace(self, label=label, in_headers=in_headers, soft_percent=soft_percent)

    @property
    def name(self) -> str:
        """A name for headers, logs and metrics: the label, else such as ``tokens-per-minute`` or ``concurrency``."""
        if self.label or self.algorithm in _WITHOUT_WINDOW:
            return self.label or self.algorithm
        return f"{self.unit.removeprefix(MONEY_PREFIX).replace('_', '-')}{windows_in_name(self.every, self.period)}"

    @property
    def text(self) -> str:
        """The quota as a person would say it: ``10000 tokens per 60 s``, ``4 in flight``."""
        if self.unit == CONCURRENCY:
            return f"{self.limit} in flight"
        if self.algorithm == TURNS:
            return f"{self.limit} waiting"
        if self.algorithm == GATE:
            return "a gate"
        return f"{amount_in_words(self.limit, self.unit)}{self._windows_in_words}"

    @property
    def _windows_in_words(self) -> str:
        if self.every == EVER:
            return ""
        if self.every == SESSION:
            return f" per session of {self.period} s"
        return f" per calendar {self.every} ({self.calendar.zone})" if self.every else f" per {self.period} s"


def _bucket_of(unit: str, algorithm: str, every: str, period: int, scope: str) -> bytes:
    digest = blake2b(digest_size=8)
    for part in (unit, f"{algorithm}/{every}" if every else algorithm, str(period), scope):
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(4, "little") + encoded)
    return digest.digest()


def is_money(unit: str) -> bool:
    """Whether a unit counts money."""
    return unit.startswith(MONEY_PREFIX)


def is_own(unit: str) -> bool:
    """Whether a unit is the app's own, such as ``pages``."""
    return unit not in BUILT_IN_UNITS and not is_money(unit)


def is_of_tokens(unit: str) -> bool:
    """Whether what a request costs in a unit depends on its tokens: one of tokens, or of money."""
    return unit in TOKEN_UNITS or is_money(unit)


def decimal_of(nano: int) -> str:
    """An amount in nano-units as a decimal: two places, and up to nine where they are needed; ``-0.50``."""
    if not nano:
        return "0.00"
    digits = f"{abs(nano):010d}"
    places = digits[-9:].rstrip("0").ljust(2, "0")
    return f"{'-' if nano < 0 else ''}{digits[:-9]}.{places}"


def unit_told(unit: str) -> str:
    """A unit for people: ``USD`` for ``nano_usd``; another is told as it is."""
    return unit.removeprefix(MONEY_PREFIX).upper() if is_money(unit) else unit


def amount_in_words(amount: int, unit: str) -> str:
    """An amount as people write it: ``20.00 USD``, ``1000000 tokens``, ``300 output tokens``."""
    return f"{decimal_of(amount)} {unit_told(unit)}" if is_money(unit) else f"{amount} {unit.replace('_', ' ')}"


def windows_in_name(every: str, period: int) -> str:
    """The windows of a quota in its name: ``-per-minute``, ``-per-calendar-day``; "" if it holds for ever."""
    if every == EVER:
        return ""
    if every == SESSION:
        return f"-{per(period, PERIODS['day']).replace('per-', 'per-session-of-')}"
    return f"-per-calendar-{every}" if every else f"-{per(period)}"


def per(period: int, longest: int | None = None) -> str:
    """A period of so many seconds, in words for a name: ``per-minute``, ``per-90-seconds``.

    Args:
        period: Seconds.
        longest: As of :func:`in_largest_unit`.
    """
    count, name = in_largest_unit(period, longest)
    return f"per-{name}" if count == 1 else f"per-{count}-{name}s"


def in_largest_unit(period: int, longest: int | None = None) -> tuple[int, str]:
    """A period of so many seconds in the largest unit of :data:`PERIODS` of which it is a multiple.

    Args:
        period: Seconds.
        longest: The seconds of the largest unit to use; None for a year.
    """
    fitting = [name for name, seconds in PERIODS.items() if period % seconds == 0 and seconds <= (longest or seconds)]
    return period // PERIODS[fitting[-1]], fitting[-1]


def require_name(name: object, longest: int = _LONGEST_NAME) -> None:
    """Check the name of a limit.

    Raises:
        ConfigurationError: It is not 1 to ``longest`` of ``A-Za-z0-9_.-``, the first a letter or a digit.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > longest:
        raise ConfigurationError(
            f"name: 1 to {longest} letters, digits, '_', '.' or '-', the first a letter or a digit, such as 'plan'. "
            f"Got {str(name)[:40]!r}."
        )


def require_own_unit(unit: object) -> str:
    """Check and return the name of a unit of the app's own, such as ``pages``.

    Raises:
        ConfigurationError: It is not 1 to 32 lower case letters, digits and underscores, or it is a built-in unit.
    """
    if not isinstance(unit, str) or not _UNIT.fullmatch(unit) or not is_own(unit):
        raise ConfigurationError(
            "unit: a name of your own in lower case letters, digits and underscores is needed, such as 'pages', and "
            f"none of {', '.join(BUILT_IN_UNITS)}, and not with {MONEY_PREFIX!r} before it, as money has. "
            f"Got {str(unit)[:40]!r}."
        )
    return unit


def require_bool(option: str, value: object) -> None:
    """Check that the value of an option is True or False.

    Raises:
        ConfigurationError: It is neither.
    """
    if type(value) is not bool:
        raise ConfigurationError(f"{option}: True or False. Got {value!r:.40}.")


def require_soft_percent(value: object, unit: str) -> None:
    """Check the part of a limit from which on is told that it is nearly used up.

    Raises:
        ConfigurationError: It is not a whole number from 0 to 100, or the limit is on calls in flight.
    """
    if type(value) is not int or not 0 <= value <= _WHOLE:
        raise ConfigurationError(
            f"soft_percent: a whole number from 1 to {_WHOLE} is needed, such as 80, or 0 for none. Got {value!r:.40}."
        )
    if value and unit == CONCURRENCY:
        raise ConfigurationError(
            "soft_percent: a limit on calls in flight has none, because it has no window in which to tell of it once: "
            "its slots come and go with every request. Leave it out."
        )


def _require_count(name: str, value: object, least: int) -> None:
    if type(value) is not int or not least <= value <= MAX_EXACT:
        raise ConfigurationError(
            f"{name}: a whole number from {least} to {MAX_EXACT} is needed. Got {value!r}. "
            "To refuse everything, remove the route instead."
        )
