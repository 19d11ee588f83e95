"""States as version 0.1.0 wrote them, what it made of them, and how it reads a state: for workers of two versions."""

import struct

from flask_ailimit.engine import Quota
from flask_ailimit.engine.quota import MAX_EXACT

QUOTAS = {
    "concurrency": Quota(3, 60, "concurrency", "concurrency"),
    "fixed-window": Quota(100, 60, "tokens", "fixed-window"),
    "moving-window": Quota(100, 60, "tokens", "moving-window"),
    "sliding-window-counter": Quota(100, 60, "tokens", "sliding-window-counter"),
    "token-bucket": Quota(100, 60, "tokens", "token-bucket", 150),
}

ASKED = {"concurrency": 1}
"""What was asked for, where it was not 40."""

# The algorithm, a state, microseconds after START_US; then what is left, when all is, whether 40 fit, and when they do.
WRITTEN = [
    ("fixed-window", (28800000, 26), 16576214, 74, 43423786, True, 0),
    ("fixed-window", (28800000, 99), 31683419, 1, 28316581, False, 28316581),
    ("fixed-window", (28800000, 190), 22866841, 0, 37133159, False, 37133159),
    ("sliding-window-counter", (28800000, 26, 0), 22008883, 74, 97991117, True, 0),
    ("sliding-window-counter", (28800000, 99, 0), 27918421, 1, 92081579, False, 55717943),
    ("sliding-window-counter", (28800000, 190, 0), 17218857, 0, 102781143, False, 83833775),
    (
        "moving-window",
        (1728000007000000, 4, 1728000011803987, 11, 1728000013881435, 11),
        23078460,
        74,
        50802975,
        True,
        0,
    ),
    (
        "moving-window",
        (1728000007000000, 33, 1728000014797633, 33, 1728000020900307, 33),
        25749674,
        1,
        55150633,
        False,
        49047959,
    ),
    (
        "moving-window",
        (1728000007000000, 30, 1728000013151776, 30, 1728000021263938, 30, 1728000023092465, 100),
        23708214,
        0,
        59384251,
        False,
        59384251,
    ),
    ("token-bucket", (6600000, 1728000017110747, 1728000017110747, 0), 26560053, 150, 0, True, 0),
    (
        "token-bucket",
        (43524300, 1728000022875700, 1728000007000000, 0, 1728000015662412, 11137588, 1728000022875700, 23724300),
        30328114,
        89,
        36071886,
        True,
        0,
    ),
    (
        "token-bucket",
        (
            106147598,
            1728000014852402,
            1728000007000000,
            0,
            1728000007233647,
            17766353,
            1728000011922580,
            31077420,
            1728000014852402,
            46147598,
        ),
        15940266,
        0,
        105059734,
        False,
        39059734,
    ),
    (
        "concurrency",
        (1728000067000000, 1, 1728000069850918, 2, 1728000073354421, 3),
        24241700,
        0,
        49112721,
        False,
        17241700,
    ),
    (
        "concurrency",
        (1728000067000000, 1, 1728000070458961, 2, 1728000072117250, 3),
        19814391,
        0,
        52302859,
        False,
        12814391,
    ),
    (
        "concurrency",
        (1728000067000000, 1, 1728000072898094, 2, 1728000078464890, 3),
        22807815,
        0,
        55657075,
        False,
        15807815,
    ),
]


def old_used(algorithm, state, now_us, quota):
    """What the old version counts of a state."""
    period_us = quota.period * 1_000_000
    window = now_us // period_us
    if not state:
        return 0
    if algorithm == "fixed-window":
        return state[1] if state[0] >= window else 0
    if algorithm == "sliding-window-counter":
        if state[0] >= window:
            current, previous = state[1], state[2]
        else:
            current, previous = 0, state[1] if state[0] == window - 1 else 0
        return current + -(-previous * ((window + 1) * period_us - now_us) // period_us)
    if algorithm == "moving-window":
        return sum(units for t, units in zip(state[::2], state[1::2], strict=True) if t > now_us - period_us)
    if algorithm == "concurrency":
        return sum(1 for ends in state[::2] if ends > now_us)
    leaked = max(0, now_us // quota.tick_us - state[1]) * quota.leak
    return -(-max(0, state[0] - leaked) // quota.cost_scale)


def old_end(algorithm, state, quota):
    """When the old version forgets a state."""
    period_us = quota.period * 1_000_000
    if algorithm == "fixed-window":
        return (state[0] + 1) * period_us
    if algorithm == "sliding-window-counter":
        window, current, previous = state
        return (window + (2 if current else 1)) * period_us if current or previous else window * period_us
    if algorithm == "moving-window":
        return state[-2] + period_us
    if algorithm == "concurrency":
        return max(state[::2])
    return (state[1] + -(-state[0] // quota.leak)) * quota.tick_us


def old_states(raw):
    """Every state in the bytes of a record: its layout has not changed, nor its version."""
    assert raw[:1] == b"\x01"
    states, at = {}, 1
    while at < len(raw):
        name, _, count = struct.unpack_from("<8sIH", raw, at)
        states[name] = struct.unpack_from(f"<{count}q", raw, at + 14)
        at += 14 + 8 * count
    return states


def old_record(bucket, state, ends_us):
    """The bytes of a record with one count."""
    return b"\x01" + struct.pack(f"<8sIH{len(state)}q", bucket, -(-ends_us // 1_000_000), len(state), *state)


def check_old_reading(algorithm, state, now_us, quota, remaining):
    """An old worker meets a state of today's, written now: no number that it can't keep, and all that counts now."""
    assert all(type(number) is int and 0 <= number <= MAX_EXACT for number in state)
    counted = old_used(algorithm, state, now_us, quota)
    if algorithm == "sliding-window-counter" and state and state[2] > quota.limit:
        assert counted >= state[1]  # What the last window left fades for it, as it always did.
    else:
        assert max(0, quota.burst - counted) == remaining
    assert not state or old_end(algorithm, state, quota) >= now_us
