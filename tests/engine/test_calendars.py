"""Windows of the calendar, compared with a walk over the minutes that a zone's clock shows."""

import pickle
import sys
from calendar import monthrange
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones, reset_tzpath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flask_ailimit.engine import ConfigurationError
from flask_ailimit.engine.calendars import EVERY, WEEKDAYS, Calendar

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE = 60 * 10**6
DAY = 24 * 60 * MINUTE
LATEST = (2**32 - 1) * 10**6

# Clocks that change at midnight, by half an hour, in the west, in the east, and never.
ZONES = [
    "Africa/Cairo",
    "America/Havana",
    "America/Santiago",
    "America/St_Johns",
    "Asia/Beirut",
    "Asia/Tokyo",
    "Australia/Lord_Howe",
    "Europe/Berlin",
]

CALENDARS = [
    Calendar(zone, week_starts, month_starts)
    for zone, week_starts, month_starts in zip(
        ZONES, [*WEEKDAYS, "monday"], [31, 30, 29, 28, 17, 1, 2, 31], strict=True
    )
]


def us(text):
    """A moment of UTC, such as 2026-04-24T01:00."""
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


def shown(calendar, moment):
    """What the zone's clock shows then."""
    at = EPOCH + timedelta(microseconds=moment)
    return at.astimezone(ZoneInfo(calendar.zone)).replace(tzinfo=None, fold=0)


def labels(calendar, local):
    """Which hour, day, week, month, quarter and year a clock that shows this is in, each as a number."""
    day = local.toordinal()
    first = min(calendar.month_starts, monthrange(local.year, local.month)[1])
    month = local.year * 12 + local.month - 1 - (local.day < first)
    # The first of January of the year 1 was a Monday, and is day 1.
    week = (day - 1 - WEEKDAYS.index(calendar.week_starts)) // 7
    return day * 24 + local.hour, day, week, month, month // 3, month // 12


def walked(calendar, begins, ends):
    """Where windows begin, for each kind: found by asking what the clock shows in each minute."""
    found = {every: [] for every in EVERY}
    zone = ZoneInfo(calendar.zone)
    at, last = EPOCH + timedelta(microseconds=begins), EPOCH + timedelta(microseconds=ends)
    highest = at.astimezone(zone).replace(tzinfo=None, minute=59)
    before = labels(calendar, highest)
    minute = timedelta(minutes=1)
    while at < last:
        local = at.astimezone(zone).replace(tzinfo=None)
        if local > highest:
            highest = local.replace(minute=59)
            now = labels(calendar, local)
            for every, old, new in zip(EVERY, before, now, strict=True):
                if new != old:
                    found[every].append((at - EPOCH) // timedelta(microseconds=1))
            before = now
        at += minute
    return found


def changes_of_clocks(zone, begins, ends):
    """Midnights of UTC before a day in which the zone's clock is set forward or back."""
    days = [EPOCH + timedelta(microseconds=at) for at in range(begins, ends, DAY)]
    offsets = [day.astimezone(ZoneInfo(zone)).utcoffset() for day in days]
    return [begins + DAY * place for place in range(len(days) - 1) if offsets[place] != offsets[place + 1]]


def compare(calendar, begins, ends):
    """How many windows were compared, and in how many moments."""
    expected = walked(calendar, begins, ends)
    moments = 0
    for every, starts in expected.items():
        for b0, b1, b2, b3 in zip(starts, starts[1:], starts[2:], starts[3:], strict=False):
            near = {b1, b1 + 1, b2 - 1, *(b1 + MINUTE * k for k in range(5)), *(b2 - MINUTE * k for k in range(1, 5))}
            for at in near:
                if b1 <= at < b2:
                    assert Calendar.window(calendar, every, at) == (b1, b2), (calendar, every, at)
                    assert calendar.ends_around(every, at) == (b0, b1, b2, b3), (calendar, every, at)
                    moments += 1
    return {every: len(starts) for every, starts in expected.items()}, moments


@pytest.mark.parametrize("calendar", CALENDARS, ids=lambda calendar: calendar.zone)
def test_windows_are_those_of_the_zones_clock_around_each_of_its_changes(calendar):
    changes = changes_of_clocks(calendar.zone, us("2026-01-01"), us("2027-01-01"))
    assert len(changes) == (0 if calendar.zone == "Asia/Tokyo" else 2)
    for change in [*changes, us("2026-07-01")]:
        windows, moments = compare(calendar, change - 2 * DAY, change + 4 * DAY)
        assert windows["hour"] >= 142
        assert windows["day"] in {5, 6}
        assert moments > 1000


@pytest.mark.parametrize(
    ("zone", "change"),
    [
        ("Pacific/Apia", "2011-12-30"),  # A day that was left out.
        ("America/St_Johns", "2010-11-07"),  # From 00:01 back to 23:01.
        ("America/St_Johns", "2011-03-13"),  # From 00:01 to 01:01.
        ("Antarctica/Troll", "2026-03-29"),  # By two hours.
        ("Asia/Pyongyang", "2015-08-14"),  # By half an hour, at midnight.
        ("Asia/Kathmandu", "1986-01-01"),  # By a quarter of an hour.
        ("Asia/Kolkata", "2026-05-05"),  # Its hours begin at half past.
    ],
)
def test_windows_are_right_where_clocks_change_oddly(zone, change):
    windows, moments = compare(Calendar(zone, "saturday"), us(change) - 2 * DAY, us(change) + 4 * DAY)
    assert windows["hour"] >= 118
    assert moments > 800


@pytest.mark.slow
@pytest.mark.parametrize("calendar", CALENDARS, ids=lambda calendar: calendar.zone)
def test_windows_of_ten_years_are_those_of_the_zones_clock(calendar):
    windows, moments = compare(calendar, us("2020-01-01"), us("2030-01-01"))
    assert moments > 800_000
    assert (windows["year"], windows["quarter"], windows["month"]) in {(10, 40, 120), (9, 39, 119), (10, 40, 121)}
    assert windows["week"] in {521, 522, 523}
    assert windows["day"] in {3652, 3653}
    assert windows["hour"] > 87_600


MOMENTS = st.integers(0, LATEST)
CALENDARS_ANYWHERE = st.builds(
    Calendar,
    st.sampled_from(sorted(available_timezones() - {"localtime", "Factory"})),
    st.sampled_from(WEEKDAYS),
    st.integers(1, 31),
)


@given(CALENDARS_ANYWHERE, st.sampled_from(EVERY), MOMENTS)
@example(Calendar("Pacific/Apia"), "day", us("2011-12-30T10:00"))
@example(Calendar("America/St_Johns"), "hour", us("2010-11-07T02:40"))
@example(Calendar(month_starts=31), "month", us("2024-02-29"))
def test_windows_cover_the_time_line_and_none_is_empty(calendar, every, at):
    b0, b1, b2, b3 = calendar.ends_around(every, at)
    assert b0 < b1 <= at < b2 < b3
    assert calendar.window(every, at) == calendar.window(every, b1) == calendar.window(every, b2 - 1) == (b1, b2)
    assert calendar.window(every, b1 - 1) == (b0, b1)
    assert calendar.window(every, b2) == (b2, b3)


@given(CALENDARS_ANYWHERE, st.sampled_from(EVERY), MOMENTS)
def test_window_begins_when_the_clock_first_shows_another_label(calendar, every, at):
    def label(moment):
        # What it showed last need not be the latest: it may have been set back, by a day at most.
        latest = max(shown(calendar, moment - before) for before in range(0, 2 * DAY, 15 * MINUTE))
        return labels(calendar, latest)[EVERY.index(every)]

    begins, ends = calendar.window(every, at)
    assert label(begins - 1) < label(begins) == label(at) == label(ends - 1) < label(ends)


@given(st.sampled_from(CALENDARS), st.sampled_from(EVERY), st.integers(-(2**80), 2**80))
@example(CALENDARS[0], "year", 0)
@example(CALENDARS[0], "year", -1)
@example(CALENDARS[0], "month", 2**53 - 1)
@example(CALENDARS[0], "week", 2**63 - 1)
@example(CALENDARS[0], "quarter", -(2**63))
def test_no_moment_is_too_early_or_too_late(calendar, every, at):
    b0, b1, b2, b3 = calendar.ends_around(every, at)
    assert b0 < b1 <= at < b2 < b3


@pytest.mark.parametrize("edge", [us("2799-06-18"), -us("2739-07-04")])
def test_windows_also_cover_the_line_where_years_are_counted_from_another_cycle(edge):
    for calendar in CALENDARS:
        for every in EVERY:
            at = calendar.window(every, edge - 900 * DAY)[0]
            while at < edge + 900 * DAY:
                begins, ends = calendar.window(every, at)
                assert begins == at
                assert calendar.window(every, ends - 1) == (begins, ends)
                at = ends if every not in {"hour", "day"} else calendar.window(every, at + 100 * DAY)[0]


@pytest.mark.parametrize(
    ("zone", "day", "begins"),
    [
        ("Africa/Cairo", "2026-04-24", "2026-04-23T22:00"),
        ("Asia/Beirut", "2026-03-29", "2026-03-28T22:00"),
        ("America/Santiago", "2026-09-06", "2026-09-06T04:00"),
        ("America/Havana", "2026-03-08", "2026-03-08T05:00"),
    ],
)
def test_day_without_a_midnight_begins_at_one_and_has_23_hours(zone, day, begins):
    calendar = Calendar(zone)
    window = calendar.window("day", us(f"{day}T12:00"))
    assert window == (us(begins), us(begins) + 23 * 60 * MINUTE)
    assert shown(calendar, window[0]) == datetime.fromisoformat(f"{day}T01:00")


def test_day_whose_midnight_comes_twice_begins_with_the_first():
    """Havana, 1 November 2026: at 01:00 the clock is set back to 00:00."""
    assert Calendar("America/Havana").window("day", us("2026-11-01T05:30")) == (
        us("2026-11-01T04:00"),
        us("2026-11-02T05:00"),
    )


def test_day_that_was_left_out_has_no_window():
    calendar = Calendar("Pacific/Apia")
    assert shown(calendar, us("2011-12-30T09:59")) == datetime.fromisoformat("2011-12-29T23:59")
    assert calendar.window("day", us("2011-12-30T09:59")) == (us("2011-12-29T10:00"), us("2011-12-30T10:00"))
    assert calendar.window("day", us("2011-12-30T10:00")) == (us("2011-12-30T10:00"), us("2011-12-31T10:00"))


def test_hour_that_is_repeated_is_one_window():
    """Berlin, 25 October 2026: at 03:00 the clock is set back to 02:00."""
    berlin = Calendar("Europe/Berlin")
    assert berlin.window("hour", us("2026-10-25T01:30")) == (us("2026-10-25T00:00"), us("2026-10-25T02:00"))
    lord_howe = Calendar("Australia/Lord_Howe")  # At 02:00 back to 01:30.
    begins, ends = lord_howe.window("hour", us("2026-04-04T15:10"))
    assert (begins, ends - begins) == (us("2026-04-04T14:00"), 90 * MINUTE)


def test_month_begins_on_the_last_day_where_there_is_no_later_one():
    calendar, at, firsts = Calendar(month_starts=31), us("2024-01-31"), []
    for _ in range(5):
        firsts.append(shown(calendar, at).strftime("%m-%d"))
        at = calendar.window("month", at)[1]
    assert firsts == ["01-31", "02-29", "03-31", "04-30", "05-31"]


def test_quarters_and_years_begin_on_the_months_first_day():
    calendar = Calendar("Europe/Berlin", month_starts=17)
    assert calendar.window("quarter", us("2026-04-16")) == (us("2026-01-16T23:00"), us("2026-04-16T22:00"))
    assert calendar.window("year", us("2026-01-16T22:59")) == (us("2025-01-16T23:00"), us("2026-01-16T23:00"))


def test_week_begins_with_the_day_of_the_plan():
    sunday, monday = us("2026-11-29"), us("2026-11-30")
    assert Calendar().window("week", monday) == (monday, monday + 7 * DAY)
    assert Calendar(week_starts="sunday").window("week", monday) == (sunday, sunday + 7 * DAY)


def test_calendars_of_one_content_are_one():
    one, other = Calendar("Europe/Berlin"), Calendar("Europe/Berlin")
    one.ends_around("day", 0)
    assert (one, hash(one)) == (other, hash(other))
    assert one != Calendar("Europe/Rome")
    copied = pickle.loads(pickle.dumps(one))
    assert (copied, copied.ends_around("day", 0)) == (one, one.ends_around("day", 0))


def test_what_is_remembered_is_one_window_of_each_kind():
    calendar = Calendar("Europe/Berlin")
    for at in range(0, 400 * DAY, DAY):
        for every in EVERY:
            calendar.ends_around(every, at)
    assert len(calendar._latest) == len(EVERY)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"zone": "Berlin"}, "Did you mean 'Europe/Berlin'?"),
        ({"zone": "america/new york"}, "Did you mean 'America/New_York'?"),
        ({"zone": "utc"}, "Did you mean 'UTC'?"),
        ({"zone": "UTC+2"}, "such as 'Europe/Berlin' or 'UTC'. Got 'UTC+2'."),
        ({"zone": "right/UTC"}, "Got 'right/UTC'."),
        ({"zone": "../../etc/passwd"}, "Got '../../etc/passwd'."),
        ({"zone": "Europe"}, "zone: the name of a time zone is needed"),
        ({"zone": None}, "Got None."),
        ({"week_starts": "Monday"}, "Did you mean 'monday'? Got 'Monday'."),
        ({"week_starts": 1}, "week_starts: the first day of a week is needed"),
        ({"month_starts": 0}, "whole number from 1 to 31"),
        ({"month_starts": 32}, "Got 32."),
        ({"month_starts": True}, "Got True."),
    ],
)
def test_what_is_no_calendar_is_refused_with_what_to_write(options, said):
    with pytest.raises(ConfigurationError) as raised:
        Calendar(**options)
    assert said in str(raised.value)


def test_other_windows_are_refused_with_those_that_there_are():
    with pytest.raises(ConfigurationError, match=r"month, quarter or year\. Did you mean 'month'"):
        Calendar().ends_around("months", 0)


def test_machine_without_zones_knows_utc_and_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tzdata", None)
    try:
        reset_tzpath([tmp_path])
        ZoneInfo.clear_cache()
        with pytest.raises(ConfigurationError, match=r"apt-get install tzdata.*pip install tzdata"):
            Calendar("Europe/Berlin")
        assert Calendar().window("day", 0) == (0, DAY)
    finally:
        reset_tzpath()
