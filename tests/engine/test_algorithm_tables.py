"""Each algorithm as a table: at this second this cost is allowed or not, leaves so much, and fits after so long."""

import pytest

from flask_ailimit.engine import ALGORITHMS, Quota
from flask_ailimit.engine.calendars import Calendar
from flask_ailimit.engine.grant import Grant
from flask_ailimit.testing import COUNTING, START_US

SECOND = 1_000_000
SOON = START_US // SECOND
NEVER = None
OK, NO = True, False

TABLES = {
    "token bucket": (
        Quota(10, 60),
        [
            (0, 4, OK, 6, 0),
            (0, 7, NO, 6, 6),
            (3, 6, OK, 0, 0),
            (3, 1, NO, 0, 3),
            (5.999999, 1, NO, 0, 0.000001),
            (6, 1, OK, 0, 0),
            (6, 11, NO, 0, NEVER),
            (6, 0, OK, 0, 0),
            (66, 10, OK, 0, 0),
            (66.000001, 1, NO, 0, 5.999999),
        ],
    ),
    "provider bucket": (
        Quota(10, 60, algorithm="provider-bucket", burst=15),
        [(0, 12, OK, 3, 0), (0, 4, NO, 3, 6), (6, 16, NO, 4, NEVER), (6, 0, OK, 4, 0), (72, 15, OK, 0, 0)],
    ),
    "token bucket with a smaller burst": (
        Quota(60, 60, burst=5),
        [(0, 5, OK, 0, 0), (0, 1, NO, 0, 1), (2.5, 3, NO, 2, 0.5), (2.5, 6, NO, 2, NEVER), (60, 5, OK, 0, 0)],
    ),
    "token bucket with a larger burst": (
        Quota(60, 60, burst=100),
        [(0, 100, OK, 0, 0), (1, 2, NO, 1, 1), (2, 2, OK, 0, 0), (2, 100, NO, 0, 100), (102, 100, OK, 0, 0)],
    ),
    "token bucket that counts in seconds": (
        Quota(999_999_937, 86400),  # 11,574.07 a second
        [
            (0, 999_999_937, OK, 0, 0),
            (0.999999, 1, NO, 0, 0.000001),
            (1, 11_574, OK, 0, 0),
            (1.5, 1, NO, 0, 0.5),
            (86401, 999_999_937, OK, 0, 0),
        ],
    ),
    "fixed window": (
        Quota(10, 60, algorithm="fixed-window"),
        [
            (0, 4, OK, 6, 0),
            (59.999999, 7, NO, 6, 0.000001),
            (59.999999, 6, OK, 0, 0),
            (60, 10, OK, 0, 0),  # Two windows' worth around the boundary: that is what it is.
            (61, 1, NO, 0, 59),
            (61, 11, NO, 0, NEVER),
            (61, 0, OK, 0, 0),
            (200, 3, OK, 7, 0),
            (200, 8, NO, 7, 40),
        ],
    ),
    "moving window": (
        Quota(10, 60, algorithm="moving-window"),
        [
            (0, 4, OK, 6, 0),
            (30, 6, OK, 0, 0),
            (59.999999, 1, NO, 0, 0.000001),
            (60, 5, NO, 4, 30),
            (60, 4, OK, 0, 0),
            (60, 11, NO, 0, NEVER),
            (60, 0, OK, 0, 0),
            (90, 6, OK, 0, 0),
            (90, 1, NO, 0, 30),
            (90, 5, NO, 0, 60),
        ],
    ),
    "sliding window counter": (
        Quota(10, 60, algorithm="sliding-window-counter"),
        [
            (0, 10, OK, 0, 0),
            (30, 1, NO, 0, 36),
            (60, 1, NO, 0, 6),
            (65.999999, 1, NO, 0, 0.000001),
            (66, 1, OK, 0, 0),
            (90, 5, NO, 4, 6),
            (90, 11, NO, 4, NEVER),
            (90, 0, OK, 4, 0),
            (96, 5, OK, 0, 0),
            (96, 10, NO, 0, 84),
            (180, 10, OK, 0, 0),
        ],
    ),
    "window": (
        Quota(10, 60, "tokens", "window"),
        [
            (0, 4, OK, 6, 0),
            (59.999999, 7, NO, 6, 0.000001),
            (59.999999, 6, OK, 0, 0),
            (60, 10, OK, 0, 0),
            (61, 1, NO, 0, 59),
            (61, 11, NO, 0, NEVER),
            (61, 0, OK, 0, 0),
        ],
    ),
    "window of a session": (
        Quota(10, 60, "tokens", "window", every="session"),
        [
            (7, 0, OK, 10, 0),
            (50, 4, OK, 6, 0),
            (109.999999, 7, NO, 6, 0.000001),
            (110, 7, OK, 3, 0),
            (120, 4, NO, 3, 50),
            (400, 1, OK, 9, 0),
        ],
    ),
    "window of a day in Kathmandu": (
        Quota(10, 1, "tokens", "window", every="day", calendar=Calendar("Asia/Kathmandu")),  # 5:45 ahead of UTC
        [
            (0, 10, OK, 0, 0),
            (65_699, 1, NO, 0, 1),
            (65_700, 10, OK, 0, 0),
            (65_700, 1, NO, 0, 86_400),
        ],
    ),
    "window that never ends": (
        Quota(10, 1, "tokens", "window", every="ever"),
        [(0, 4, OK, 6, 0), (10**9, 6, OK, 0, 0), (2 * 10**9, 11, NO, 0, NEVER), (2 * 10**9, 0, OK, 0, 0)],
    ),
    "budget": (
        Quota(10, 3600, "nano_usd", "budget"),  # Nothing is settled here.
        [
            (0, 4, OK, 6, 0),
            (0, 7, NO, 6, 5),  # The 4 are reserved: others may give them back. How soon is a guess.
            (599.999999, 7, NO, 6, 5),
            (600, 7, NO, 6, 3000),  # After two slots of five minutes they count as spent.
            (600, 11, NO, 6, NEVER),
            (3597, 6, OK, 0, 0),
            (3597, 5, NO, 0, 3),  # No guess is longer than the window.
            (3600, 10, OK, 0, 0),
            (3600, 0, OK, 0, 0),
        ],
    ),
    "budget with credit": (
        Quota(10, 3600, "nano_usd", "budget", credit=(Grant(1, 5, 0, SOON + 60), Grant(2, 7, SOON + 30, SOON + 10**6))),
        [
            (0, 12, OK, 3, 0),
            (0, 23, NO, 3, NEVER),  # When the second grant begins it and the first one have 3 and 7.
            (0, 16, NO, 3, 3600),
            (29.999999, 4, NO, 3, 0.000001),
            (30, 4, OK, 6, 0),
            (60, 6, OK, 0, 0),
        ],
    ),
    "concurrency": (
        Quota(2, 60, "concurrency", "concurrency"),
        [
            (0, 1, OK, 1, 0),
            (1, 1, OK, 0, 0),
            (1, 1, NO, 0, 1),
            (30, 1, NO, 0, 30),  # The older one has run for 30 seconds: as long again.
            (59.5, 1, NO, 0, 0.5),
            (60, 1, OK, 0, 0),
            (61, 2, NO, 1, 1),
            (61, 3, NO, 1, NEVER),
            (61, 0, OK, 1, 0),
            (120, 2, OK, 0, 0),
        ],
    ),
}


@pytest.mark.parametrize(("quota", "rows"), TABLES.values(), ids=TABLES.keys())
def test_rows_of_the_table_come_true(quota, rows):
    state, got = (), []
    for lease, (second, cost, *_) in enumerate(rows):
        step = ALGORITHMS[quota.algorithm].admit(state, START_US + round(second * SECOND), quota, cost, lease)
        state = step.state
        retry_after = None if step.retry_after_us is None else step.retry_after_us / SECOND
        got.append((second, cost, step.allowed, step.remaining, retry_after))
    assert got == rows


def test_every_algorithm_has_a_table():
    assert {quota.algorithm for quota, _ in TABLES.values()} == set(COUNTING)
