"""How long a wait is, in the words of a header."""

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit.headers.durations import go_duration, milliseconds_up, seconds_up

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("us", "text"),
    [
        # Values that OpenAI and Groq were seen to send.
        (1 * SECOND, "1s"),
        (360 * SECOND, "6m0s"),
        (12_000, "12ms"),
        (8_640_000, "8.64s"),
        (7_660_000, "7.66s"),
        (179_560_000, "2m59.56s"),
        (85_656_648_000, "23h47m36.648s"),
        # The corners.
        (0, "0s"),
        (1, "1ms"),
        (999_000, "999ms"),
        (999_001, "1s"),
        (1_500_000, "1.5s"),
        (59_999_001, "1m0s"),
        (60_010_000, "1m0.01s"),
        (3600 * SECOND, "1h0m0s"),
        (30 * 86400 * SECOND, "720h0m0s"),
    ],
)
def test_go_duration_is_written_as_openai_writes_it(us, text):
    assert go_duration(us) == text


@given(st.integers(0, 10**16))
def test_go_duration_reads_back_as_the_time_rounded_up_to_a_millisecond(us):
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(\d+(?:\.\d{1,3})?)(ms|s)", go_duration(us))
    hours, minutes, number, unit = parts.groups()
    seconds = Fraction(number) / (1000 if unit == "ms" else 1) + 60 * int(minutes or 0) + 3600 * int(hours or 0)
    assert 0 <= seconds * SECOND - us < 1000


@given(st.integers(0, 2**60))
def test_rounding_up_is_never_early_and_never_a_whole_unit_late(us):
    assert 0 <= seconds_up(us) * SECOND - us < SECOND
    assert 0 <= milliseconds_up(us) * 1000 - us < 1000
