"""RateLimit-Policy and RateLimit."""

import pytest
from header_decisions import SECOND, allowances, allowed, decided, decisions, policy_rate, refusals, refused
from hypothesis import given
from structured_fields import read_list

from flask_ailimit.engine.quota import CONCURRENCY, Quota
from flask_ailimit.headers.ietf import ietf_headers, named_verdicts
from flask_ailimit.http.responses import refusal_headers

REQUESTS = Quota(60, 60)
DAILY = Quota(1000, 86400)
TOKENS = Quota(10_000, 60, "tokens")
SLOTS = Quota(4, 60, "concurrency", "concurrency")


@pytest.mark.parametrize(
    ("decision", "policy", "limit"),
    [
        pytest.param(
            decided(allowed(REQUESTS, 29, 31 * SECOND), allowed(TOKENS, 4_000, 35_400_000)),
            '"requests-per-minute";q=60;w=60, "tokens-per-minute";q=10000;qu="tokens";w=60',
            '"requests-per-minute";r=29;t=31, "tokens-per-minute";r=4000;t=36',
            id="requests-and-tokens",
        ),
        pytest.param(
            decided(allowed(REQUESTS, 59, SECOND)),
            '"requests-per-minute";q=60;w=60',
            '"requests-per-minute";r=59;t=59',
            id="plenty-left-is-for-as-long-as-it-lasts-at-the-policy's-rate",
        ),
        pytest.param(
            decided(allowed(REQUESTS, 0, 60 * SECOND)),
            '"requests-per-minute";q=60;w=60',
            '"requests-per-minute";r=0;t=60',
            id="nothing-left-until-full-again",
        ),
        pytest.param(
            decided(allowed(SLOTS, 3, 60 * SECOND)),
            '"concurrency";q=4;qu="concurrent-requests"',
            '"concurrency";r=3',
            id="slots-have-no-window",
        ),
        pytest.param(
            decided(allowed(Quota(60, 60, burst=90), 89, SECOND)),
            '"requests-per-minute";q=60;w=60;ailimit-burst=90',
            '"requests-per-minute";r=89;t=89',
            id="burst-is-a-parameter-of-ours",
        ),
        pytest.param(
            decided(allowed(Quota(500, 3600, "content_bytes"), 100, 2880 * SECOND)),
            '"content-bytes-per-hour";q=500;qu="content-bytes";w=3600',
            '"content-bytes-per-hour";r=100;t=2880',
            id="a-unit-of-one's-own",
        ),
        pytest.param(
            decided(
                allowed(REQUESTS, 29, 31 * SECOND),
                allowed(REQUESTS, 9, 51 * SECOND, scope="/predict"),
                allowed(REQUESTS, 49, 11 * SECOND, scope="/chat"),
            ),
            '"requests-per-minute";q=60;w=60, "requests-per-minute-2";q=60;w=60, "requests-per-minute-3";q=60;w=60',
            '"requests-per-minute";r=29;t=31, "requests-per-minute-2";r=9;t=51, "requests-per-minute-3";r=49;t=49',
            id="equal-names-are-numbered",
        ),
        pytest.param(
            decided(
                refused(REQUESTS, 0, 60 * SECOND, 250_000),
                allowed(DAILY, 400, 51840 * SECOND),
                refused(TOKENS, 10, 60 * SECOND, 7_150_001, cost=1200),
                allowed(SLOTS, 3, 60 * SECOND),
            ),
            '"requests-per-minute";q=60;w=60, "requests-per-day";q=1000;w=86400, '
            '"tokens-per-minute";q=10000;qu="tokens";w=60, "concurrency";q=4;qu="concurrent-requests"',
            '"requests-per-minute";r=0;t=1, "requests-per-day";r=400, "tokens-per-minute";r=10;t=8, "concurrency";r=3',
            id="a-refusal-has-the-waits-of-the-refused",
        ),
        pytest.param(
            decided(refused(TOKENS, 10_000, 0, None, cost=10_001)),
            '"tokens-per-minute";q=10000;qu="tokens";w=60',
            '"tokens-per-minute";r=10000',
            id="never-fits-no-window-helps",
        ),
    ],
)
def test_every_quota_is_reported(decision, policy, limit):
    assert ietf_headers(decision) == [("RateLimit-Policy", policy), ("RateLimit", limit)]


def test_nothing_charged_sends_nothing_because_the_lists_may_not_be_empty():
    assert ietf_headers(decided()) == []


@given(decisions)
def test_fields_are_structured_fields_that_say_what_the_draft_lets_them(decision):
    (_, policy), (_, limit) = ietf_headers(decision)
    policies, limits = read_list(policy), read_list(limit)
    names = [name for name, _ in policies]
    assert names == [name for name, _ in limits] == [name for name, _ in named_verdicts(decision)]
    assert len(set(names)) == len(decision.verdicts)
    for _, parameters in policies:
        assert parameters["q"] >= 0
        assert parameters.get("w", 1) > 0
        assert parameters.keys() <= {"q", "qu", "w", "ailimit-burst"}
    for _, parameters in limits:
        assert parameters["r"] >= 0
        assert parameters.get("t", 0) >= 0
        assert parameters.keys() <= {"r", "t"}


@given(allowances)
def test_what_is_left_over_its_window_never_invites_more_than_the_policy(decision):
    limits = read_list(dict(ietf_headers(decision))["RateLimit"])
    for verdict, (_, parameters) in zip(decision.verdicts, limits, strict=True):
        quota = verdict.charge.quota
        # The largest integer of RFC 9651 cuts windows of more than 31 million years.
        if quota.unit != CONCURRENCY and parameters["t"] < 10**15 - 1:
            assert parameters["r"] <= policy_rate(quota) * parameters["t"]
            assert parameters["t"] * SECOND >= verdict.reset_after_us


@given(refusals)
def test_window_of_a_refusal_never_ends_after_retry_after(decision):
    retry_after = int(dict(refusal_headers(decision, "req_1")).get("Retry-After", 10**15))
    limits = read_list(dict(ietf_headers(decision))["RateLimit"])
    assert all(parameters.get("t", 0) <= retry_after for _, parameters in limits)


@pytest.mark.parametrize("text", ['"a"', '"a";q=1', '"a";q=1, "b";r=0;t=5', r'"a\"b";qu="x"', '"a";q=1,"b"'])
def test_reader_of_structured_fields_takes_what_rfc_9651_does(text):
    assert read_list(text)


@pytest.mark.parametrize(
    "text", ["", "a;q=1", '"a";q=1,', '"a" ;q=1', '"a";Q=1', '"a";q=1;q=2', '"a";q=1.5', '"a\n"', '"a";q=' + "9" * 16]
)
def test_reader_of_structured_fields_refuses_what_we_never_send(text):
    with pytest.raises(ValueError, match="in "):
        read_list(text)
