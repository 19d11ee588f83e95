"""When calendar windows begin and end: the hours, days, weeks, months, quarters and years of a time zone.

One rule holds for all of them: a window begins at the first moment at which the zone's clock shows its beginning, or a
later time. It follows that

* a midnight that the clock leaps over is replaced by the next moment that there is, so that day has 23 hours;
* of a midnight that comes twice the first one counts;
* an hour that is repeated, because the clock is set back, is one window, twice as long, as the day in which that
  happens is one window of 25 hours. So an hour of the clock has one window, whose limit is never granted twice;
* a day or an hour that the clock leaps over as a whole has no window;
* windows cover the time line, never overlap, and are never empty.

Moments are whole microseconds since the epoch, and a window is known by its beginning.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta, tzinfo
from difflib import get_close_matches
from typing import Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from .errors import ConfigurationError

EVERY = ("hour", "day", "week", "month", "quarter", "year")
"""The kinds of calendar windows."""

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

_LONGEST_MONTH = 31
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# The dates and weekdays of the Gregorian calendar come again after 400 years, and so do the changes of clocks that a
# zone's last rule makes. Moments for which there is no datetime are worked out so many years nearer to ours.
_CYCLE = 146_097 * 86_400 * 10**6
_FIRST, _LAST = (-770 * 366 * 86_400 * 10**6, 830 * 365 * 86_400 * 10**6)
# Names of files that some machines have among the zones, and that differ from machine to machine or count leap seconds.
_NO_ZONES = ("localtime", "posixrules", "right/", "Factory")

Ends = tuple[int, int, int, int]
"""Where the windows before, around and after a moment begin and end, in microseconds since the epoch."""


@dataclass(frozen=True)
class Calendar:
    """Whose days these are: a time zone, and where weeks and months begin in it. Immutable and hashable.

    Attributes:
        zone: The name of a time zone in the IANA database, such as ``"Europe/Berlin"``. ``"UTC"`` needs no database;
            the others need the operating system's, or the package ``tzdata``.
        week_starts: The first day of a week, ``"monday"`` to ``"sunday"``.
        month_starts: The first day of a month, 1 to 31: the 29th to the 31st are the last day of a shorter month.
            Quarters begin on that day of January, April, July and October, and years on that day of January.

    Raises:
        ConfigurationError: A value is none of these; the message says which and what fits.
    """

    zone: str = "UTC"
    week_starts: str = "monday"
    month_starts: int = 1
    _tz: tzinfo = field(init=False, repr=False, compare=False)
    _latest: dict[str, Ends] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tz", _zone_of(self.zone))
        if self.week_starts not in WEEKDAYS:
            raise ConfigurationError(
                f"week_starts: the first day of a week is needed, {', '.join(WEEKDAYS[:-1])} or {WEEKDAYS[-1]}. "
                f"{_did_you_mean(self.week_starts, WEEKDAYS)}Got {self.week_starts!r:.40}."
            )
        if type(self.month_starts) is not int or not 1 <= self.month_starts <= _LONGEST_MONTH:
            raise ConfigurationError(
                f"month_starts: the first day of a month is needed, a whole number from 1 to {_LONGEST_MONTH}. 29 to "
                f"31 are the last day of a shorter month. Got {self.month_starts!r:.40}."
            )

    def __str__(self) -> str:
        return f"days of {self.zone}, weeks from {self.week_starts}, months from day {self.month_starts}"

    @classmethod
    def of(cls, given: object) -> Self:
        """Read a table such as ``{"zone": "Europe/Berlin", "month_starts": 17}``; a calendar is returned as it is.

        Raises:
            ConfigurationError: It is no table, a key is none of a calendar's, or a value is wrong.
        """
        if isinstance(given, cls):
            return given
        if not isinstance(given, Mapping):
            raise ConfigurationError(
                "calendar: a table is needed, such as { zone = 'Europe/Berlin', week_starts = 'monday', "
                f"month_starts = 17 }}. Got {type(given).__name__}."
            )
        for key in given:
            if key not in _KEYS:
                raise ConfigurationError(
                    f"there is no such key as {str(key)[:40]!r} in a calendar. {_did_you_mean(key, _KEYS)}Allowed are "
                    f"{', '.join(_KEYS)}."
                )
        return cls(**given)

    def window(self, every: str, at_us: int) -> tuple[int, int]:
        """The window that contains a moment, as ``(begins, ends)``; it ends just before ``ends``.

        Args:
            every: One of :data:`EVERY`.
            at_us: The moment, in microseconds since the epoch: any whole number.

        Raises:
            ConfigurationError: There are no such windows; the message names those that there are.
        """
        if every not in EVERY:
            raise ConfigurationError(
                f"every: calendar windows are those of an {', '.join(EVERY[:-1])} or {EVERY[-1]}. "
                f"{_did_you_mean(every, EVERY)}Got {every!r:.40}."
            )
        cycles = 0 if _FIRST <= at_us < _LAST else (at_us - (_FIRST if at_us < _FIRST else _LAST - _CYCLE)) // _CYCLE
        at_us -= cycles * _CYCLE
        local = (_EPOCH + at_us * _MICROSECOND).astimezone(self._tz).replace(tzinfo=None, fold=0)
        label = self._label(every, local)
        following = self._following(every, label)
        ends_us = self._first_moment(following)
        # The clock was set back into a window that had ended, and shows a time of that one again.
        while ends_us <= at_us:
            label, following = following, self._following(every, following)
            ends_us = self._first_moment(following)
        begins_us = self._first_moment(label)
        return begins_us + cycles * _CYCLE, ends_us + cycles * _CYCLE

    def ends_around(self, every: str, at_us: int) -> Ends:
        """Where the windows before, around and after a moment begin: ``b0 < b1 <= at_us < b2 < b3``.

        Whoever's clock differs from ours by less than a window finds its own window among them. What was answered last
        is remembered for each kind of windows, so it takes some tenths of a microsecond until the next window begins.

        Args:
            every: One of :data:`EVERY`.
            at_us: The moment, in microseconds since the epoch: any whole number.

        Raises:
            ConfigurationError: There are no such windows; the message names those that there are.
        """
        latest = self._latest.get(every)
        if latest is None or not latest[1] <= at_us < latest[2]:
            begins_us, ends_us = self.window(every, at_us)
            latest = self.window(every, begins_us - 1)[0], begins_us, ends_us, self.window(every, ends_us)[1]
            self._latest[every] = latest
        return latest

    def _label(self, every: str, local: datetime) -> datetime:
        """What the zone's clock showed when the window began in which it shows this."""
        if every == "hour":
            return local.replace(minute=0, second=0, microsecond=0)
        day = local.replace(hour=0, minute=0, second=0, microsecond=0)
        if every == "day":
            return day
        if every == "week":
            return day - timedelta(days=(day.weekday() - WEEKDAYS.index(self.week_starts)) % 7)
        months = _MONTHS[every]
        label = self._month(day.year, (day.month - 1) // months * months)
        return label if label <= day else self._month(label.year, label.month - 1 - months)

    def _following(self, every: str, label: datetime) -> datetime:
        length = _LENGTHS.get(every)
        return label + length if length else self._month(label.year, label.month - 1 + _MONTHS[every])

    def _month(self, year: int, months: int) -> datetime:
        """The first day of a month, which is so many months after January of the year."""
        first = datetime(year + months // 12, months % 12 + 1, 1)  # noqa: DTZ001  what a clock shows has no zone
        days = ((first + timedelta(days=31)).replace(day=1) - first).days
        return first.replace(day=min(self.month_starts, days))

    def _first_moment(self, local: datetime) -> int:
        """The first moment at which the zone's clock shows this, or a later time."""
        first, second = (_moment(local.replace(tzinfo=self._tz, fold=fold)) for fold in (0, 1))
        if first <= second:
            return first
        # The clock never shows it: it leaps over it between the two moments (PEP 495 has them in this order).
        return _bisected(
            lambda at: (_EPOCH + at * _MICROSECOND).astimezone(self._tz).replace(tzinfo=None) >= local, second, first
        )


_KEYS = tuple(each.name for each in fields(Calendar) if each.init)
_MONTHS = {"month": 1, "quarter": 3, "year": 12}
_LENGTHS = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7)}


def _moment(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def _bisected(holds: Callable[[int], bool], before: int, after: int) -> int:
    """The first moment at which something holds that does not hold before, and holds after."""
    while after - before > 1:
        middle = (before + after) // 2
        before, after = (before, middle) if holds(middle) else (middle, after)
    return after


def _zone_of(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        if not str(name).startswith(_NO_ZONES):
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, TypeError, AttributeError, OSError):
        pass
    known = available_timezones()
    if not known:
        raise ConfigurationError(
            f"zone: this machine has no time zones, so none but UTC can be used. Install them with the operating "
            f"system's package tzdata (apt-get install tzdata), or with: pip install tzdata. Got {name!r:.60}."
        )
    raise ConfigurationError(
        f"zone: the name of a time zone is needed, such as 'Europe/Berlin' or 'UTC'. {_near_zone(name, known)}"
        f"Got {name!r:.60}."
    )


def _near_zone(name: object, known: Iterable[str]) -> str:
    """A hint, but none for an offset: the name that is most like UTC+2 is Etc/GMT+2, which is west of Greenwich."""
    if not isinstance(name, str) or any(letter.isdigit() or letter in "+-" for letter in name):
        return ""
    wanted = name.strip().replace(" ", "_").casefold()
    zones = sorted(zone for zone in known if not zone.startswith(_NO_ZONES))
    names = {zone.rpartition("/")[2].casefold(): zone for zone in zones} | {zone.casefold(): zone for zone in zones}
    close = get_close_matches(wanted[:64], names, n=1, cutoff=0.7)
    return f"Did you mean {names[close[0]]!r}? " if close else ""


def _did_you_mean(name: object, known: Iterable[str]) -> str:
    close = get_close_matches(name[:64].lower(), [*known], n=1) if isinstance(name, str) else []
    return f"Did you mean {close[0]!r}? " if close else ""
