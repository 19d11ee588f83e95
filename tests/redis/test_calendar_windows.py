"""Redis decides in the windows of calendars as Python does, by its own clock, though the clients' are wrong."""

from bisect import bisect_left
from datetime import UTC, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

import pytest
from counted_commands import Counted
from redis_stores import store_at
from twin_oracle import answer_of, settled_of

from flask_ailimit.engine import Charge, Quota, Settlement
from flask_ailimit.engine.calendars import EVERY, Calendar
from flask_ailimit.engine.clock import MICROSECONDS
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.engine.stores.redis import packing
from flask_ailimit.engine.stores.redis.scripts import load
from flask_ailimit.testing import ManualClock, limits_clock

__all__ = ["limits_clock"]

CALENDARS = {
    "Africa/Cairo": ("sunday", 1),
    "America/Havana": ("monday", 31),
    "America/Santiago": ("saturday", 15),
    "America/St_Johns": ("monday", 1),
    "Asia/Beirut": ("monday", 17),
    "Asia/Tokyo": ("sunday", 30),
    "Australia/Lord_Howe": ("wednesday", 29),
    "Europe/Berlin": ("monday", 1),
}
"""The zones, and on which day weeks and months begin there."""

MINUTE = 60 * MICROSECONDS
HOUR = 60 * MINUTE
DAY_S = 86_400
SKEWS = (-3 * MINUTE, 0, 3 * MINUTE)
AROUND_BOUNDARY = (-1, 0, 1, *(minute * MINUTE for minute in range(-4, 5)))
AROUND_CHANGE = tuple(minute * MINUTE for minute in range(-180, 181))
AT_ONCE = 500


def clock_changes(zone, first, last):
    """When the zone's clock changes, in microseconds since the epoch."""
    tz = ZoneInfo(zone)

    def offset(second):
        return datetime.fromtimestamp(second, tz).utcoffset()

    for day in range(first, last, DAY_S):
        before, after = offset(day), offset(day + DAY_S)
        if before != after:
            seconds = range(day, day + DAY_S)
            yield seconds[bisect_left(seconds, True, key=lambda s, before=before: offset(s) != before)] * MICROSECONDS


def moments_of(zone, years):
    """Minute by minute around each change of the zone's clock, and around each midnight."""
    first, last = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (years[0], years[-1] + 1))
    calendar, moments = calendar_of(zone), set()
    at_us = first * MICROSECONDS
    while at_us < last * MICROSECONDS:
        at_us = calendar.window("day", at_us)[1]
        moments.update(at_us + us for us in AROUND_BOUNDARY)
    changes = [*clock_changes(zone, first, last)]
    moments.update(change + us for change in changes for us in AROUND_CHANGE)
    return sorted(moments), len(changes)


def calendar_of(zone):
    return Calendar(zone, *CALENDARS[zone])


class Client:
    """Charges of every kind of window. Each has a calendar of its own, which remembers the windows of its own time."""

    def __init__(self, zone, number):
        self.subject = bytes([number]) * 16
        calendar = calendar_of(zone)
        windows = [Quota(10**6, 1, "tokens", "window", every=every, calendar=calendar) for every in EVERY]
        budgets = [
            Quota(10**9, 1, "nano_usd", "budget", every=every, calendar=calendar, soft_percent=80)
            for every in ("day", "month")
        ]
        little = Quota(7, 1, "requests", "window", every="day", calendar=calendar)
        self.charges = [Charge(self.subject, quota, 2) for quota in (*windows, *budgets)]
        self.charges.append(Charge(self.subject, little, 1, shadow=True))
        self.places = packing.places_of(self.charges)
        self.key = b"ailimit:{%d}" % number

    def reserve(self, times, lease):
        return self.key, packing.pack_charges(self.places, self.charges, times, lease, dry=False)

    def settlements(self, decision, actual, lease):
        taken = zip(self.charges, decision.verdicts, strict=True)
        return [Settlement(charge, decision.at_us, actual, lease) for charge, verdict in taken if verdict.allowed]


def differences(client, zone, years):
    """Ask the server and Python at each moment. How many moments, clock changes and questions; what differs."""
    draw, clock = Random(zone), ManualClock()
    python, own = MemoryStore(clock), Client(zone, 0)
    skewed = [(skew, Client(zone, number)) for number, skew in enumerate(SKEWS, start=1)]
    reserve, settle = (client.script_load(load(name).text) for name in ("reserve", "settle"))
    pipeline, expected, wrong, asked = client.pipeline(transaction=False), [], [], 0

    def ask():
        answers = pipeline.execute()
        for (about, answer), got in zip(expected, answers, strict=True):
            if got != answer:
                wrong.append((about, answer, got))
        expected.clear()

    moments, changes = moments_of(zone, years)
    for lease, now_us in enumerate(moments):
        clock.set(now_us)
        decision = python.reserve(own.charges, lease)
        answer = answer_of(decision).packed
        for skew, client_there in skewed:
            key, request = client_there.reserve(packing.Times(now_us, now_us + skew), lease)
            pipeline.evalsha(reserve, 2, key, b"%b:r%x" % (key, lease), request)
            expected.append((("reserve", now_us, skew), answer))
        if draw.random() < 0.3:  # Some are settled at once, some at the next moment, in another window maybe.
            clock.set(now_us + draw.choice([0, MINUTE - 1, MINUTE]))
            actual = draw.choice([0, 1, 2, 5])
            settlements = own.settlements(decision, actual, lease)
            answer = settled_of(python.settle(settlements), settlements)
            for skew, client_there in skewed:
                times = packing.Times(clock(), clock() + skew)
                request = packing.pack_settlements(
                    client_there.places, client_there.settlements(decision, actual, lease), times
                )
                key = client_there.key
                pipeline.evalsha(settle, 2, key, b"%b:s%x" % (key, lease), request)
                expected.append((("settle", clock(), skew), answer))
        if len(expected) >= AT_ONCE:
            asked += len(expected)
            ask()
    asked += len(expected)
    ask()
    return len(moments), changes, asked, wrong


@pytest.mark.parametrize("zone", ["Africa/Cairo", "Australia/Lord_Howe"])
def test_every_window_of_two_years_is_the_one_of_the_server_though_clocks_differ_by_minutes(server, zone):
    _, changes, _, wrong = differences(server.client(), zone, range(2026, 2028))
    assert wrong == []
    assert changes == 4


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("zone", sorted(CALENDARS))
def test_every_window_of_ten_years_is_the_one_of_the_server_though_clocks_differ_by_minutes(server, zone):
    moments, changes, asked, wrong = differences(server.client(), zone, range(2025, 2035))
    print(f"\n{zone}: {changes} clock changes, {moments} moments, {asked} questions, {len(wrong)} differ")  # noqa: T201  the figures, with -s
    assert wrong == []


def windows_of(zone):
    calendar = calendar_of(zone)
    return [Quota(100, 1, "tokens", "window", every=every, calendar=calendar) for every in EVERY]


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize("days", [-400, -3, -1, 1, 3, 400])
def test_client_whose_clock_is_days_away_asks_twice_once_and_is_answered_by_the_clock_of_the_server(
    server, limits_clock, days
):
    def trips(ask):
        counted.start()
        answer = ask()
        return counted.decisions, answer

    limits_clock.set(server_us(server) + int(timedelta(days=days) / timedelta(microseconds=1)))
    store, counted = store_at(server.uri), Counted([server], [])
    charges = [Charge(b"somebody".ljust(16), quota, 3) for quota in windows_of("Europe/Berlin")]
    store.settle([Settlement(Charge(b"others".ljust(16), Quota(1, 60), 1), 0, 1, 1)])  # The scripts are there now.
    store.peek([Charge(b"others".ljust(16), Quota(1, 60), 1)])
    first, decision = trips(lambda: store.reserve(charges, 1))
    assert first == 2
    assert abs(decision.at_us - server_us(server)) < MINUTE
    for verdict in decision.verdicts:
        quota = verdict.quota
        ends_us = quota.calendar.window(quota.every, decision.at_us)[1]
        assert (verdict.remaining, verdict.reset_after_us) == (97, ends_us - decision.at_us)
    for lease in range(2, 5):
        assert trips(lambda lease=lease: store.reserve(charges, lease).allowed) == (1, True)
    settlements = [Settlement(charge, decision.at_us, 1, 1) for charge in charges]
    assert trips(lambda: store.settle(settlements))[0] == 1
    limits_clock.set(server_us(server))  # Somebody sets it right.
    asked, last = trips(lambda: store.peek(charges))
    assert asked == 1  # The windows that are counted in are known to the server.
    others = [[charge._replace(subject=name.ljust(16)) for charge in charges] for name in (b"next", b"last")]
    assert [trips(lambda some=some: store.reserve(some, 9))[0] for some in others] == [2, 1]
    left = {v.remaining for v in last.verdicts if v.quota.ends_around(decision.at_us)[2] > last.at_us}
    assert left == {100 - 4 * 3 + 2}
    store.close()


def server_us(server):
    seconds, microseconds = server.ask("TIME")
    return int(seconds) * MICROSECONDS + int(microseconds)


def test_windows_of_the_first_year_of_the_epoch_are_those_of_python(server):
    clock = ManualClock()
    clock.set(90 * MINUTE)
    stores = MemoryStore(clock), store_at(server.uri, clock)
    calendar = Calendar("America/New_York", month_starts=17)
    quotas = [Quota(9, 3600, "tokens", "window", every=every, calendar=calendar) for every in (*EVERY, "session")]
    charges = [Charge(b"somebody".ljust(16), quota, 2) for quota in quotas]
    for days in (0, 1, 40, 400):
        clock.set(90 * MINUTE + days * DAY_S * MICROSECONDS)
        python, redis = ([each[1:5] for each in store.reserve(charges, days).verdicts] for store in stores)
        assert python == redis
    stores[1].close()
