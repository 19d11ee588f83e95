"""States as they were first written, and what was made of them: for workers of two versions that share a store."""

import struct

from flask_ailimit.engine import Quota

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
    ("concurrency", (1728000067000000, 1), 12901956, 2, 54098044, True, 0),
    (
        "concurrency",
        (1728000067000000, 1, 1728000067529378, 2, 1728000069669052, 3),
        14814235,
        0,
        54854817,
        False,
        7814235,
    ),
    ("fixed-window", (28800000, 40), 17916527, 60, 42083473, True, 0),
    ("fixed-window", (28800000, 99), 13878812, 1, 46121188, False, 46121188),
    ("fixed-window", (28800000, 259, 0, 159), 17654110, 0, 162345890, False, 102345890),
    ("fixed-window", (28800000, 828, 0, 30), 16969635, 0, 103030365, False, 43030365),
    ("moving-window", (1728000007000000, 20, 1728000009662792, 20), 10106650, 60, 59556142, True, 0),
    (
        "moving-window",
        (1728000007000000, 33, 1728000007213455, 33, 1728000011755152, 33),
        15030140,
        1,
        56725012,
        False,
        52183315,
    ),
    (
        "moving-window",
        (1728000007000000, 33, 1728000008816967, 33, 1728000012357937, 33, 1728000012601548, 1, 9007199254740991, 159),
        17027624,
        0,
        171789343,
        False,
        115330313,
    ),
    (
        "moving-window",
        (1728000007000000, 266, 1728000008859684, 266, 1728000012532951, 266),
        21329847,
        0,
        51203104,
        False,
        51203104,
    ),
    ("sliding-window-counter", (28800000, 40, 0), 13791847, 60, 106208153, True, 0),
    ("sliding-window-counter", (28800000, 99, 0), 15301833, 1, 104698167, False, 68334531),
    ("sliding-window-counter", (28800001, 30, 259, 159, 89), 77557404, 0, 162442596, False, 121993158),
    ("sliding-window-counter", (28800000, 798, 0), 17492261, 0, 102507739, False, 97996461),
    (
        "token-bucket",
        (4254480465920, 1728000010540890, 100, 150, 0, 1728000007000000, 0, 1728000010540890, 1895184465920),
        16392504,
        105,
        26607496,
        True,
        0,
    ),
    (
        "token-bucket",
        (
            11150486405120,
            1728000011928540,
            100,
            150,
            0,
            1728000007000000,
            0,
            1728000009544839,
            3598602862592,
            1728000011928540,
            7218326405120,
        ),
        21046475,
        23,
        75953525,
        False,
        9953525,
    ),
    (
        "token-bucket",
        (
            22743715020800,
            1728000019479225,
            100,
            150,
            0,
            1728000007000000,
            0,
            1728000011238627,
            3376594681856,
            1728000014538316,
            6876257845248,
            1728000019479225,
            10160803020800,
        ),
        19768848,
        0,
        173231152,
        False,
        107231152,
    ),
    (
        "token-bucket",
        (
            11796466245633,
            1728000016456099,
            100,
            150,
            986609,
            1728000007000000,
            0,
            1728000011028435,
            27233159741439,
            1728000013064685,
            56555276861439,
        ),
        19931616,
        5,
        86524379,
        False,
        20524379,
    ),
]


def states_of(raw):
    """Every state in the bytes of a record."""
    assert raw[:1] == b"\x01"
    states, at = {}, 1
    while at < len(raw):
        name, _, count = struct.unpack_from("<8sIH", raw, at)
        states[name] = struct.unpack_from(f"<{count}q", raw, at + 14)
        at += 14 + 8 * count
    return states


def record_of(bucket, state, ends_us):
    """The bytes of a record with one count."""
    return b"\x01" + struct.pack(f"<8sIH{len(state)}q", bucket, -(-ends_us // 1_000_000), len(state), *state)
