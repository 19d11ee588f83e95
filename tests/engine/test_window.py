"""Windows of a calendar, of a session and of the clock: each begins with nothing."""

from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from payer import Payer
from traffic import CARRY_NOTHING

from flask_ailimit.engine import ConfigurationError, Quota
from flask_ailimit.engine.calendars import EVERY, Calendar
from flask_ailimit.engine.quota import NOMINAL_PERIODS

DAY = 86_400
HOUR = 3600
BERLIN = Calendar("Europe/Berlin")
UNITS = {"budget": "nano_usd", "window": "tokens"}

with_windows = pytest.mark.parametrize("algorithm", CARRY_NOTHING)


def quota(algorithm, every="day", calendar=BERLIN, limit=100, period=HOUR):
    return Quota(limit, period, UNITS[algorithm], algorithm, every=every, calendar=calendar)


def at(zone, *date):
    """This time of a zone's clock, in microseconds since the epoch."""
    return round(datetime(*date, tzinfo=ZoneInfo(zone)).timestamp() * 10**6)


@with_windows
def test_day_begins_at_midnight_of_its_zone(algorithm):
    payer = Payer(quota(algorithm), at("Europe/Berlin", 2026, 3, 10, 23, 59))
    payer.use(100)
    assert not payer.reserve(1).allowed
    payer.clock.advance_us(60 * 10**6 - 1)
    assert (payer.left, payer.ask(1).retry_after_us) == (0, 1)
    payer.clock.advance_us(1)
    assert payer.left == 100


@with_windows
def test_windows_carry_nothing_over(algorithm):
    """Neither what was used beyond the limit nor what was not used."""
    payer = Payer(quota(algorithm))
    payer.use(350, reserved=10)
    assert payer.left == 0
    for _ in range(3):
        payer.clock.advance(DAY)
        assert payer.left == 100
        payer.use(40)


@with_windows
def test_overrun_of_a_call_of_an_earlier_window_is_charged_to_the_current_one(algorithm):
    payer = Payer(quota(algorithm))
    late = payer.reserve(30)
    payer.clock.advance(DAY)
    payer.end(late, 50)
    assert payer.left == 80


@with_windows
def test_refund_of_a_call_of_an_earlier_window_changes_nothing(algorithm):
    payer = Payer(quota(algorithm))
    late, in_time = payer.reserve(30), payer.reserve(30)
    payer.end(in_time, 10)
    assert payer.left == 60
    payer.clock.advance(DAY)
    payer.use(20)
    payer.end(late, 0)
    assert payer.left == 80


@with_windows
def test_month_begins_on_the_day_of_the_plan(algorithm):
    payer = Payer(quota(algorithm, "month", Calendar("Europe/Berlin", month_starts=17)), at("UTC", 2026, 2, 1))
    payer.use(100)
    assert payer.ask(1).retry_after_us == at("Europe/Berlin", 2026, 2, 17) - payer.clock()
    payer.clock.advance(payer.ask(1).retry_after)
    payer.use(100)
    assert payer.ask(1).retry_after_us == at("Europe/Berlin", 2026, 3, 17) - payer.clock()


@with_windows
@pytest.mark.parametrize(
    ("changed", "next_ends"),
    [
        (Calendar("America/New_York"), at("America/New_York", 2026, 6, 1)),
        (Calendar("Europe/Berlin", month_starts=20), at("Europe/Berlin", 2026, 5, 20)),
    ],
)
def test_change_of_zone_or_of_the_months_first_day_takes_effect_with_the_next_window(algorithm, changed, next_ends):
    payer = Payer(quota(algorithm, "month"), at("Europe/Berlin", 2026, 4, 10))
    payer.use(70)
    payer.quota = replace(payer.quota, calendar=changed)
    may = at("Europe/Berlin", 2026, 5, 1)
    assert (payer.left, payer.ask(40).retry_after_us) == (30, may - payer.clock())
    payer.use(10)
    payer.clock.set(may - 1)
    assert payer.left == 20
    payer.clock.set(at("UTC", 2026, 5, 2))
    payer.use(60)
    assert (payer.left, payer.ask(41).retry_after_us) == (40, next_ends - payer.clock())


@with_windows
def test_session_begins_with_the_first_call_and_ends_after_its_period(algorithm):
    payer = Payer(quota(algorithm, "session", period=5 * HOUR))
    payer.clock.advance(1234.5)
    assert payer.ask(101).retry_after_us is None
    assert payer.ask().reset_after == 0
    first = payer.reserve(60)
    payer.clock.advance(4 * HOUR)
    payer.end(first, 60)
    payer.use(40)
    assert payer.ask(1).retry_after == HOUR
    payer.clock.advance(HOUR + 3 * DAY)
    payer.use(5)
    assert payer.left == 95
    assert payer.ask().reset_after == 5 * HOUR


@with_windows
def test_clock_that_goes_back_keeps_the_count(algorithm):
    payer = Payer(quota(algorithm), at("Europe/Berlin", 2026, 3, 10, 0, 1))
    early = payer.reserve(50)
    payer.clock.advance(-120)  # Yesterday.
    assert payer.left == 50
    payer.use(20)
    payer.end(early, 0)
    assert payer.left == 80
    payer.clock.advance(120)
    assert payer.left == 100


@with_windows
@pytest.mark.parametrize("every", [*EVERY, "session", "ever"])
def test_counts_of_other_kinds_of_windows_are_others(algorithm, every):
    others = {quota(algorithm, other).bucket("") for other in (*EVERY, "session", "ever", "") if other != every}
    assert len(others) == 8
    assert quota(algorithm, every).bucket("") not in others
    assert quota(algorithm, every).bucket("") == quota(algorithm, every, Calendar("Asia/Tokyo"), limit=7).bucket("")


@pytest.mark.parametrize("every", [*EVERY, "ever"])
def test_period_of_a_calendars_windows_is_the_longest_usual_one(every):
    assert quota("window", every, period=5).period == NOMINAL_PERIODS[every]


def test_hour_that_the_clock_repeats_grants_its_limit_once():
    payer = Payer(quota("window", "hour"), at("Europe/Berlin", 2026, 10, 25, 1))  # At 3:00 the clock is set to 2:00.
    granted = []
    for _ in range(4):
        granted.append(payer.left)
        payer.use(payer.left)
        payer.clock.advance(HOUR)
    assert granted == [100, 100, 0, 100]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"every": "fortnight"}, "every: one of '', 'hour'"),
        ({"every": "day", "algorithm": "fixed-window"}, "algorithm: windows of a calendar"),
        ({"unit": "nano_usd"}, "algorithm: money is counted by 'budget'"),
        ({"limit": 0}, "limit: a whole number from 1"),
    ],
)
def test_windows_that_are_none_are_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        Quota(**{"limit": 10, "period": 60, "unit": "tokens", "algorithm": "window", **changes})
