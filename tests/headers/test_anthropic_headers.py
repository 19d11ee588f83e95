"""Anthropic's twelve headers."""

import pytest
from header_decisions import SECOND, allowed, decided, refused

from flask_ailimit.engine.quota import Quota
from flask_ailimit.headers.anthropic import anthropic_headers

REQUESTS = Quota(60, 60)
TOKENS = Quota(10_000, 60, "tokens")
INPUT = Quota(30_000, 60, "input_tokens")
OUTPUT = Quota(8_000, 60, "output_tokens")


def triple(unit, limit, remaining, reset):
    return [
        (f"anthropic-ratelimit-{unit}-limit", str(limit)),
        (f"anthropic-ratelimit-{unit}-remaining", str(remaining)),
        (f"anthropic-ratelimit-{unit}-reset", reset),
    ]


@pytest.mark.parametrize(
    ("decision", "headers"),
    [
        pytest.param(
            decided(allowed(REQUESTS, 59, SECOND)), triple("requests", 60, 59, "2025-08-21T12:41:00Z"), id="requests"
        ),
        pytest.param(
            decided(allowed(INPUT, 29_000, 750_000), allowed(OUTPUT, 400, 57 * SECOND)),
            triple("tokens", 8_000, 400, "2025-08-21T12:41:56Z")
            + triple("input-tokens", 30_000, 29_000, "2025-08-21T12:40:59Z")
            + triple("output-tokens", 8_000, 400, "2025-08-21T12:41:56Z"),
            id="tokens-is-the-most-restrictive",
        ),
        pytest.param(
            decided(refused(TOKENS, 10, 59 * SECOND, 7 * SECOND, cost=80), allowed(INPUT, 300, 59 * SECOND)),
            triple("tokens", 10_000, 10, "2025-08-21T12:41:58Z")
            + triple("input-tokens", 30_000, 300, "2025-08-21T12:41:58Z"),
            id="tokens-is-the-refused-one",
        ),
        pytest.param(
            decided(allowed(TOKENS, 10, 10**18)),
            triple("tokens", 10_000, 10, "9999-12-31T23:59:59Z"),
            id="a-year-has-four-digits",
        ),
        pytest.param(decided(), [], id="nothing-charged"),
    ],
)
def test_each_unit_reports_its_binding_quota(decision, headers):
    assert anthropic_headers(decision) == headers
