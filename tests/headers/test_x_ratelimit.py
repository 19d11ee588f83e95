"""The X-RateLimit triple."""

import pytest
from header_decisions import NOW_US, SECOND, allowed, decided, refused

from flask_ailimit.engine.decision import Decision
from flask_ailimit.engine.quota import Quota
from flask_ailimit.headers.x_ratelimit import x_ratelimit_headers

REQUESTS = Quota(60, 60)
TOKENS = Quota(10_000, 60, "tokens")
SLOTS = Quota(4, 60, "concurrency", "concurrency")


def triple(limit, remaining, reset):
    return [
        ("X-RateLimit-Limit", str(limit)),
        ("X-RateLimit-Remaining", str(remaining)),
        ("X-RateLimit-Reset", str(reset)),
    ]


@pytest.mark.parametrize(
    ("decision", "headers"),
    [
        pytest.param(decided(allowed(REQUESTS, 59, SECOND)), triple(60, 59, 1755780060), id="one-quota"),
        pytest.param(
            decided(allowed(REQUESTS, 59, SECOND), allowed(TOKENS, 500, 57 * SECOND)),
            triple(10_000, 500, 1755780116),
            id="the-least-part-left-speaks",
        ),
        pytest.param(
            decided(allowed(SLOTS, 0, 60 * SECOND), allowed(REQUESTS, 59, SECOND)),
            triple(60, 59, 1755780060),
            id="a-slot-does-not-speak-while-all-is-well",
        ),
        pytest.param(
            decided(refused(SLOTS, 0, 60 * SECOND, SECOND), allowed(REQUESTS, 0, 60 * SECOND)),
            triple(4, 0, 1755780119),
            id="a-slot-speaks-when-it-refuses",
        ),
        pytest.param(decided(allowed(SLOTS, 3, 60 * SECOND)), triple(4, 3, 1755780119), id="slots-alone"),
        pytest.param(
            decided(allowed(REQUESTS, 0, 60 * SECOND), refused(TOKENS, 10, 60 * SECOND, 7 * SECOND, cost=50)),
            triple(10_000, 10, 1755780119),
            id="the-refused-quota-speaks",
        ),
        pytest.param(
            decided(allowed(Quota(60, 60, burst=90), 89, SECOND)), triple(90, 89, 1755780060), id="burst-is-the-limit"
        ),
        pytest.param(decided(), [], id="nothing-charged"),
    ],
)
def test_binding_quota_is_reported(decision, headers):
    assert x_ratelimit_headers(decision) == headers


def test_reset_is_the_same_second_whenever_in_the_window_one_asks():
    ends_us = 1_755_780_060 * SECOND
    resets = {
        x_ratelimit_headers(Decision((allowed(REQUESTS, 9, ends_us - at_us),), at_us))[2][1]
        for at_us in (NOW_US, NOW_US + 1, ends_us - 1, ends_us)
    }
    assert resets == {"1755780060"}
