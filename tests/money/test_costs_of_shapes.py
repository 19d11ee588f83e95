"""Every provider's shape of an answer costs what its tokens cost, by sums that are written out here by hand.

Each sum is in nano-dollars. A rate of 1 USD for a million tokens is 1,000 nano-dollars a token.
"""

import json

import pytest
from usage_shapes import ROWS, charged, first_word

from flask_ailimit.money import PriceBook
from flask_ailimit.tokens import Usage
from flask_ailimit.tokens.report import find_reports
from flask_ailimit.tokens.report_shapes import SHAPES

PLAIN, KINDS, TIERS = "plain", "kinds", "tiers"
PRICES = {
    PLAIN: {"input": "2.50 USD", "output": "10.00 USD"},
    KINDS: {
        "input": "4 USD",
        "cached_input": "1 USD",
        "cache_write": "5 USD",
        "cache_write_1h": "8 USD",
        "audio_input": "40 USD",
        "image_input": "10 USD",
        "output": "16 USD",
        "reasoning": "20 USD",
        "audio_output": "80 USD",
        "image_output": "30 USD",
        "request": "0.001 USD",
    },
    TIERS: {
        "input": "2 USD",
        "cached_input": "0.50 USD",
        "output": "8 USD",
        "above": {"900": {"input": "4 USD"}},
        "tiers": {
            "batch": 0.5,
            "flex": {"input": "1 USD", "above": {"900": {"input": "3 USD", "output": "9 USD"}}},
            "priority": 1.75,
            "fast": 2,
        },
    },
}
R = 1_000_000
"""What a request costs by KINDS, in nano-dollars."""

# fmt: off
BY_HAND = {
    Usage(9, 5): (9 * 2500 + 5 * 10000, 9 * 4000 + 5 * 16000 + R, 9 * 2000 + 5 * 8000),
    Usage(9, 5, 4): (72_500, 5 * 4000 + 4 * 1000 + 5 * 16000 + R, 5 * 2000 + 4 * 500 + 5 * 8000),
    Usage(9, 5, 8): (72_500, 1 * 4000 + 8 * 1000 + 5 * 16000 + R, 1 * 2000 + 8 * 500 + 5 * 8000),
    Usage(9, 5, 4, reasoning_tokens=2): (72_500, 20000 + 4000 + 3 * 16000 + 2 * 20000 + R, 52_000),
    Usage(9, 5, 4, service_tier="default"): (72_500, 1_104_000, 52_000),
    Usage(9, 5, reasoning_tokens=2): (72_500, 36000 + 3 * 16000 + 2 * 20000 + R, 58_000),
    Usage(9, 5, reasoning_tokens=2, service_tier="priority"): (72_500, 1_124_000, 9 * 3500 + 5 * 14000),
    Usage(9, 5, service_tier="flex"): (72_500, 1_116_000, 9 * 1000 + 5 * 8000),
    Usage(9, 5, service_tier="fast"): (72_500, 1_116_000, 9 * 4000 + 5 * 16000),
    Usage(9, 5, 3, 2): (72_500, 4 * 4000 + 3 * 1000 + 2 * 5000 + 5 * 16000 + R, 6 * 2000 + 3 * 500 + 5 * 8000),
    Usage(9, 1, 3, 2): (32_500, 16000 + 3000 + 10000 + 16000 + R, 12000 + 1500 + 8000),
    Usage(9, 5, audio_input_tokens=9): (72_500, 9 * 40000 + 5 * 16000 + R, 58_000),
    Usage(9, 0): (22_500, 1_036_000, 18_000),
    Usage(9, 1): (32_500, 1_052_000, 26_000),
    Usage(9, 3): (52_500, 1_084_000, 42_000),
    Usage(3, 0): (7_500, 1_012_000, 6_000),
    Usage(3, 1): (17_500, 1_028_000, 14_000),
    Usage(3, 1, service_tier="priority"): (17_500, 1_028_000, 3 * 3500 + 14000),
    Usage(3, 3): (37_500, 1_060_000, 30_000),
    Usage(3, 5): (57_500, 1_092_000, 46_000),
    Usage(3, 9): (97_500, 1_156_000, 78_000),
    Usage(3, 11): (117_500, 1_188_000, 94_000),
    Usage(0, 2): (20_000, 1_032_000, 16_000),
    Usage(10, 196): (1_985_000, 40_000 + 3_136_000 + R, 20_000 + 1_568_000),
    Usage(45, 25): (112_500 + 250_000, 180_000 + 400_000 + R, 90_000 + 200_000),
    Usage(1000, 400, 500, 0, 0, 100, 0, 200, 50, 0, "priority"): (
        6_500_000,
        400 * 4000 + 500 * 1000 + 100 * 40000 + 150 * 16000 + 200 * 20000 + 50 * 80000 + R,
        500 * 7000 + 500 * 875 + 400 * 14000,
    ),
    Usage(1000, 400, 500, 300, image_input_tokens=150): (
        6_500_000,
        50 * 4000 + 500 * 1000 + 300 * 5000 + 150 * 10000 + 400 * 16000 + R,
        500 * 4000 + 500 * 500 + 400 * 8000,
    ),
    Usage(1000, 400, 500, reasoning_tokens=200, service_tier="flex"): (
        6_500_000,
        500 * 4000 + 500 * 1000 + 200 * 16000 + 200 * 20000 + R,
        500 * 3000 + 500 * 500 + 400 * 9000,
    ),
    Usage(1000, 400, image_input_tokens=900, image_output_tokens=390): (
        6_500_000,
        100 * 4000 + 900 * 10000 + 10 * 16000 + 390 * 30000 + R,
        1000 * 4000 + 400 * 8000,
    ),
    Usage(1000, 5, audio_input_tokens=900): (
        2_550_000,
        100 * 4000 + 900 * 40000 + 5 * 16000 + R,
        1000 * 4000 + 5 * 8000,
    ),
    Usage(1000, 400, 500, 150, 250, service_tier="batch"): (
        6_500_000,
        100 * 4000 + 500 * 1000 + 150 * 5000 + 250 * 8000 + 400 * 16000 + R,
        500 * 2000 + 500 * 250 + 400 * 4000,
    ),
    Usage(1000, 400, 500, 150, 250, service_tier="priority"): (
        6_500_000,
        100 * 4000 + 500 * 1000 + 150 * 5000 + 250 * 8000 + 400 * 16000 + R,
        500 * 7000 + 500 * 875 + 400 * 14000,
    ),
    Usage(1000, 400, 500, 150, 250, reasoning_tokens=120, service_tier="priority"): (
        6_500_000,
        100 * 4000 + 500 * 1000 + 150 * 5000 + 250 * 8000 + 280 * 16000 + 120 * 20000 + R,
        500 * 7000 + 500 * 875 + 400 * 14000,
    ),
    Usage(1000, 1, 500, 150, 250, service_tier="priority"): (
        2_510_000,
        100 * 4000 + 500 * 1000 + 150 * 5000 + 250 * 8000 + 16000 + R,
        500 * 7000 + 500 * 875 + 14000,
    ),
    Usage(1000, 400, 500, 0, 0, 200, 150, 100, 60, 40, "FLEX"): (
        6_500_000,
        150 * 4000 + 500 * 1000 + 200 * 40000 + 150 * 10000 + 200 * 16000 + 100 * 20000 + 60 * 80000 + 40 * 30000 + R,
        500 * 3000 + 500 * 500 + 400 * 9000,
    ),
    Usage(1000, 400, 500, audio_input_tokens=200, reasoning_tokens=100, service_tier="ON_DEMAND"): (
        6_500_000,
        300 * 4000 + 500 * 1000 + 200 * 40000 + 300 * 16000 + 100 * 20000 + R,
        500 * 4000 + 500 * 500 + 400 * 8000,
    ),
}
# fmt: on
ENDS = [(row, row.chunks, True) for row in ROWS if row.right is not None] + [
    (row, first_word(row), False) for row in ROWS if row.abandoned is not None
]


@pytest.mark.parametrize(
    ("row", "chunks", "complete"),
    ENDS,
    ids=lambda value: getattr(value, "name", value if value in (True, False) else ""),
)
def test_an_answer_costs_what_its_tokens_cost_by_hand(row, chunks, complete):
    book = PriceBook(PRICES)
    usage, _ = charged(row, chunks, complete=complete)
    costs = [book.price_for(name, None).cost(usage) for name in (PLAIN, KINDS, TIERS)]
    assert costs == list(BY_HAND[row.right if complete else row.abandoned])


def test_every_shape_of_a_report_is_among_the_answers():
    found = set()
    for row in ROWS:
        whole = b"".join(row.chunks)
        for piece in (whole, *(line.removeprefix(b"data: ").strip(b"[], \r") for line in whole.split(b"\n"))):
            try:
                values = json.loads(piece)
            except ValueError:
                continue
            for value in values if isinstance(values, list) else [values]:
                found |= find_reports(value).keys()
    assert found == set(SHAPES)


def test_no_sum_is_left_over():
    measured = {row.right if complete else row.abandoned for row, _, complete in ENDS}
    assert measured == BY_HAND.keys()
