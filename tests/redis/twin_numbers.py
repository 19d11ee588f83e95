"""Quotas, costs and lengths of any size."""

from dataclasses import replace
from itertools import pairwise

from flask_ailimit.engine import Quota
from flask_ailimit.engine.calendars import EVERY, Calendar
from flask_ailimit.engine.errors import ConfigurationError
from flask_ailimit.engine.grant import Grant
from flask_ailimit.engine.quota import CONCURRENCY, GATE, LATEST_SECOND, MAX_EXACT, PROVIDER_BUCKET, TURNS
from flask_ailimit.testing import START_US

PERIODS = (1, 1, 2, 7, 60, 61, 3600, 86400, 30 * 86400, 360 * 86400, 10 * 366 * 86400)
SOFT_PERCENTS = (0, 1, 50, 80, 100)
ZONES = ("UTC", "Europe/Berlin", "Africa/Cairo", "Australia/Lord_Howe")
LEASE_TIMES = (1, 5, 60, 60, 3600)
BURSTING = ("token-bucket", PROVIDER_BUCKET)
LEASED = {CONCURRENCY: (1, 3, 50, 300, 700), GATE: (1,), TURNS: (1, 3, 10, 1000)}
"""Algorithms whose counts are made of leases, or have one, with limits to try."""


def quota_of(algorithm, random):
    """Any quota of the algorithm, the greatest that it can count as likely as a small one."""
    while True:
        period = random.choice(PERIODS)
        try:
            if algorithm in LEASED:
                return Quota(random.choice(LEASED[algorithm]), random.choice(LEASE_TIMES), algorithm, algorithm)
            limit = random.choice((1, 10, 1000, log_uniform(random, MAX_EXACT), greatest(algorithm, period)))
            burst = random.choice((0, 1, 2 * limit, log_uniform(random, MAX_EXACT)))
            owed = random.choice((4, 4, 0, 1, 1000))
            burst = burst if algorithm in BURSTING else None
            if algorithm in ("window", "budget"):
                return _with_windows(algorithm, limit, period, random)
            return Quota(limit, period, "tokens", algorithm, burst, owed, soft_percent=random.choice(SOFT_PERCENTS))
        except ConfigurationError:
            continue


def changed(quota, random):
    """A quota of the same counts with another limit or burst: mostly near, sometimes any."""
    while True:
        by = random.choice((0.1, 0.5, 0.999, 1, 1, 1.2, 2, 10, 10 ** random.uniform(-6, 6)))
        limit = max(1, min(MAX_EXACT, round(quota.limit * by)))
        if quota.algorithm in LEASED:
            limit = min(limit, LEASED[quota.algorithm][-1])
        burst = max(1, min(MAX_EXACT, round(quota.burst * random.choice((by, by, by * 3, 0.1, 1)))))
        owed = random.choice((quota.debt_periods, 4, 0))
        try:
            given = burst if quota.algorithm in BURSTING else None
            soft_percent = 0 if quota.algorithm in LEASED else random.choice(SOFT_PERCENTS)
            if quota.has_windows:
                credit = random.choice((quota.credit, quota.credit[1:], _grants(random, limit)))
                credit = credit if quota.algorithm == "budget" else ()
                calendar = random.choice((quota.calendar, _calendar(random)))
                limit = random.choice((limit, limit, 0)) if quota.algorithm == "budget" else limit
                return replace(
                    quota, limit=limit, burst=None, soft_percent=soft_percent, calendar=calendar, credit=credit
                )
            return Quota(limit, quota.period, quota.unit, quota.algorithm, given, owed, soft_percent=soft_percent)
        except ConfigurationError:
            continue


def _with_windows(algorithm, limit, period, random):
    every = random.choice(("", "session", "ever", *EVERY))
    plain = Quota(limit, period, "nano_usd" if algorithm == "budget" else "tokens", algorithm, every=every)
    credit = _grants(random, limit) if algorithm == "budget" else ()
    limit = random.choice((limit, limit, 0)) if credit else limit
    soft_percent = random.choice(SOFT_PERCENTS)
    return replace(plain, limit=limit, burst=None, soft_percent=soft_percent, calendar=_calendar(random), credit=credit)


def _calendar(random):
    return Calendar(random.choice(ZONES), random.choice(("monday", "sunday")), random.choice((1, 17, 31)))


def _grants(random, limit):
    """Up to four grants of credit, around the times at which episodes play."""
    grants = []
    for number in range(random.choice((0, 0, 1, 2, 4))):
        begins = random.choice((0, START_US // 10**6 + random.randrange(-5, 5)))
        ends = random.choice((LATEST_SECOND, START_US // 10**6 + log_uniform(random, 10**9)))
        amount = random.choice((1, limit, log_uniform(random, MAX_EXACT)))
        grants.append(Grant(random.choice((number, number, 7)) + 1, amount, begins, ends))
    return tuple({grant.id: grant for grant in grants}.values())


def greatest(algorithm, period):
    """The greatest round limit for the period, or nearly."""
    return MAX_EXACT // (4 * period) if algorithm == "sliding-window-counter" else MAX_EXACT // period // 2 * period


def log_uniform(random, most):
    """From 1 to ``most``, every order of magnitude as likely as every other; sometimes just the most, or near it."""
    if random.random() < 0.1:
        return max(1, most - random.randrange(3))
    return min(most, max(1, int(2 ** random.uniform(0, most.bit_length()))))


def runs_of(total, episode=250):
    """How long episodes are that take so many steps together."""
    return [later - earlier for earlier, later in pairwise([*range(0, total, episode), total])]
