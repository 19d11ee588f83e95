"""The waits in our headers, kept to the letter against the real engine: who waits them is admitted."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_ailimit.engine import Charge, Engine, Quota, open_store
from flask_ailimit.headers import limit_headers
from flask_ailimit.http.responses import refusal_headers, refusal_status

RATES = st.tuples(st.integers(1, 500), st.sampled_from([1, 7, 60, 3600]))
START_US = 1_755_780_058_250_000


def microseconds(headers, way):
    if way == "x-ratelimit-reset":
        return int(headers["X-RateLimit-Reset"]) * 1_000_000
    return int(headers[way]) * (1000 if way == "retry-after-ms" else 1_000_000)


@pytest.mark.parametrize("way", ["retry-after-ms", "Retry-After", "x-ratelimit-reset"])
@pytest.mark.parametrize("algorithm", ["token-bucket", "fixed-window", "sliding-window-counter", "moving-window"])
@settings(max_examples=40)
@given(
    rates=st.lists(RATES, min_size=1, max_size=3, unique=True),
    traffic=st.lists(st.tuples(st.integers(0, 20_000_000), st.integers(1, 200)), max_size=12),
    cost=st.integers(1, 200),
)
def test_who_waits_what_the_headers_say_is_admitted(way, algorithm, rates, traffic, cost):
    now_us = START_US
    engine = Engine(open_store("memory://", name="waits", clock=lambda: now_us, options={}))
    subject = engine.subject("user-1")
    quotas = [Quota(limit, period, "tokens", algorithm) for limit, period in rates]
    for pause_us, spent in traffic:
        now_us += pause_us
        engine.reserve([Charge(subject, quota, spent, quota.text) for quota in quotas])
    charges = [Charge(subject, quota, cost, quota.text) for quota in quotas]
    decision = engine.reserve(charges).decision
    if decision.allowed or refusal_status(decision) != 429:
        return
    headers = dict(refusal_headers(decision, "req_1") + limit_headers(decision, ["x-ratelimit"]))
    waited_us = microseconds(headers, way)
    now_us = waited_us if way == "x-ratelimit-reset" else now_us + waited_us
    assert engine.reserve(charges).allowed
