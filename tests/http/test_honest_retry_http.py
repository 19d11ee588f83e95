"""Who waits as long as a refusal says is admitted, and who comes back a second earlier is not.

Through HTTP, on a clock that is moved by exactly what the headers say, for requests of many sizes.
"""

import random
import re

import pytest
from flask import request
from limited_apps import limited

LEAST, MOST = 1, 1000


def by_tokens(*limits, **options):
    """Limits on tokens, as ``limit_tokens`` takes them."""

    def decorate(limiter, view):
        for limit in limits:
            view = limiter.limit_tokens(limit, estimate=lambda request: int(request.args["cost"]), **options)(view)
        return view

    return {}, decorate


def by_requests(strategy, *limits):
    """Limits on requests of which some count for many."""

    def decorate(limiter, view):
        for limit in limits:
            view = limiter.limit(limit, cost=lambda: int(request.args["cost"]))(view)
        return view

    return {"strategy": strategy}, decorate


def by_both(limiter, view):
    tokens = limiter.limit_tokens("3000 per minute", estimate=lambda request: int(request.args["cost"]))
    return limiter.limit("7 per minute")(tokens(view))


SETUPS = {
    "token bucket": by_tokens("1000 per minute"),
    "token bucket with a burst": by_tokens("123457 per day", burst=1000),
    "two token buckets": by_tokens("1000 per minute", "7000 per hour"),
    "moving window of tokens": by_tokens("1000 per minute", algorithm="moving-window"),
    "sliding window of tokens": by_tokens("1000 per hour", algorithm="sliding-window-counter"),
    "fixed window of tokens": by_tokens("1000 per minute", algorithm="fixed-window"),
    "fixed window": by_requests("fixed-window", "1000 per minute", "5000 per hour"),
    "moving window": by_requests("moving-window", "1000 per 90 seconds"),
    "sliding window": by_requests("sliding-window-counter", "1000 per minute"),
    "requests and tokens": ({}, by_both),
}


class Client:
    """Sends requests of random sizes and believes what it is told."""

    def __init__(self, setup, seed):
        options, decorate = SETUPS[setup]
        self.limits = limits = limited(**options)
        self.random = random.Random(seed)

        def answer():
            limits.limiter.record_usage(output_tokens=int(request.args["used"]))
            return {}

        limits.app.post("/", endpoint="answer")(decorate(limits.limiter, answer))
        self.client = limits.client()

    def send(self, cost):
        used = self.random.choice((cost, cost, self.random.randint(0, cost), cost + 200))
        return self.client.post("/", query_string={"cost": cost, "used": used})

    def cost(self):
        return self.random.choice((LEAST, MOST, self.random.randint(LEAST, MOST), self.random.randint(LEAST, 50)))

    def pass_time(self):
        self.limits.clock.advance_us(self.random.choice((0, 1, 999, self.random.randint(0, 5_000_000))))

    def until_refused(self):
        while True:
            cost = self.cost()
            response = self.send(cost)
            if response.status_code == 429:
                return cost, response
            assert response.status_code == 200
            self.pass_time()


def told(response):
    """Milliseconds and seconds to wait; whatever else tells of them agrees."""
    milliseconds, seconds = int(response.headers["retry-after-ms"]), int(response.headers["Retry-After"])
    assert seconds == max(1, -(-milliseconds // 1000))
    error = response.json["error"]
    assert error["limit"]["retry_after"] == milliseconds / 1000
    assert error["limit"]["requested"] > error["limit"]["remaining"] >= 0
    spoken = float(re.search(r"Try again in ([0-9.]+) s", error["message"])[1])
    assert milliseconds / 1000 - 0.001 <= spoken <= max(milliseconds / 1000 + 0.1, seconds)
    assert ("x-should-retry" in response.headers) == (milliseconds > 60_000)
    return milliseconds, seconds


def meet_refusals(setup, count, seed=1):
    client = Client(setup, seed)
    clock = client.limits.clock
    for number in range(count):
        cost, response = client.until_refused()
        milliseconds, seconds = told(response)
        began = clock()
        wait_us = (milliseconds * 1000, seconds * 1_000_000)[number % 2]
        for early_us in {wait_us - 1_000_000, milliseconds * 1000 - 1000}:
            if 0 < early_us < milliseconds * 1000 - 999:
                clock.set(began + early_us)
                again = client.send(cost)
                assert again.status_code == 429, (setup, number, cost, milliseconds)
        clock.set(began + wait_us)
        admitted = client.send(cost)
        assert admitted.status_code == 200, (setup, number, cost, milliseconds, admitted.json)


@pytest.mark.parametrize("setup", SETUPS)
def test_who_waits_is_admitted_and_not_a_moment_too_late(setup):
    meet_refusals(setup, 105)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 7))
@pytest.mark.parametrize("setup", SETUPS)
def test_who_waits_is_admitted_ten_thousand_times(setup, seed):
    meet_refusals(setup, 200, seed)
