"""OpenAI's six headers."""

import pytest
from header_decisions import SECOND, allowed, decided, refused

from flask_ailimit.engine.quota import Quota
from flask_ailimit.headers.openai import openai_headers

PER_MINUTE = Quota(60, 60)
PER_DAY = Quota(200, 86400)
TOKENS = Quota(10_000, 60, "tokens")
INPUT = Quota(30_000, 60, "input_tokens")
OUTPUT = Quota(8_000, 60, "output_tokens")


def triple(unit, limit, remaining, reset):
    return [
        (f"x-ratelimit-limit-{unit}", str(limit)),
        (f"x-ratelimit-remaining-{unit}", str(remaining)),
        (f"x-ratelimit-reset-{unit}", reset),
    ]


@pytest.mark.parametrize(
    ("decision", "headers"),
    [
        pytest.param(
            decided(allowed(PER_MINUTE, 59, SECOND), allowed(TOKENS, 9_500, 3 * SECOND, cost=500)),
            triple("requests", 60, 59, "1s") + triple("tokens", 10_000, 9_500, "3s"),
            id="requests-and-tokens",
        ),
        pytest.param(
            decided(allowed(PER_MINUTE, 59, SECOND), allowed(PER_DAY, 10, 82080 * SECOND)),
            triple("requests", 200, 10, "22h48m0s"),
            id="minute-and-day-the-nearer-to-empty",
        ),
        pytest.param(
            decided(allowed(INPUT, 29_000, 2 * SECOND), allowed(OUTPUT, 400, 57 * SECOND)),
            triple("tokens", 8_000, 400, "57s"),
            id="input-and-output-the-nearer-to-empty",
        ),
        pytest.param(
            decided(
                allowed(TOKENS, 9_000, 6 * SECOND),
                refused(OUTPUT, 100, 59_250_000, 2 * SECOND, cost=500),
                allowed(PER_MINUTE, 59, SECOND),
            ),
            triple("requests", 60, 59, "1s") + triple("tokens", 8_000, 100, "59.25s"),
            id="refused-output-is-not-hidden-by-total-tokens",
        ),
        pytest.param(
            decided(refused(PER_MINUTE, 0, 60 * SECOND, SECOND), refused(PER_DAY, 0, 86400 * SECOND, 432 * SECOND)),
            triple("requests", 200, 0, "24h0m0s"),
            id="refused-twice-the-longer-wait",
        ),
        pytest.param(decided(allowed(Quota(5, 60, "pages"), 4, SECOND)), [], id="no-word-for-pages"),
        pytest.param(
            decided(allowed(Quota(4, 60, "concurrency", "concurrency"), 3, SECOND)), [], id="no-word-for-slots"
        ),
        pytest.param(decided(), [], id="nothing-charged"),
    ],
)
def test_each_unit_reports_its_binding_quota(decision, headers):
    assert openai_headers(decision) == headers
