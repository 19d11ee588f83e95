"""Four workers of eight threads push three times what a provider allows, on a clock that goes from event to event."""

import pytest
from simulated_calls import USUAL, Provider, World, push

from flask_ailimit.engine import Quota
from flask_ailimit.tokens import Usage
from flask_ailimit.upstream import attempts
from flask_ailimit.upstream.pacing import Asked

WORKERS, THREADS, MINUTES = 4, 8, 5
REQUESTS, TOKENS = 60, 20_000
A_TENTH = Asked("model", Usage(50, 1000), has_known_end=True)
"""A call that reserves ten times what it uses."""

A_FORTIETH = Asked("model", Usage(50, 4000), has_known_end=True)
kinds = pytest.mark.parametrize("algorithm", ["token-bucket", "fixed-window"])
seeds = pytest.mark.parametrize("seed", [1, 2, 3])


@pytest.fixture
def pushed(monkeypatch):
    """What became of five minutes."""

    def run(seed, unit, algorithm="token-bucket", *, others=0, asked=USUAL, **provider):
        world = World(seed)
        monkeypatch.setattr(attempts, "_random", world.random.random)
        limit = REQUESTS if unit == "requests" else TOKENS
        there = Provider(world, [Quota(limit, 60, unit, algorithm)], **provider)
        if others:
            there.shared_with(others)
        a_minute = REQUESTS if unit == "requests" else TOKENS / (there.used.input_tokens + there.used.output_tokens)
        upstreams = world.upstreams(world.engine(), WORKERS, **{unit: f"{limit} per minute"})
        pushed = push(
            upstreams,
            there,
            threads=THREADS,
            every=60 * WORKERS * THREADS / (3 * a_minute),
            until=60 * MINUTES,
            asked=asked,
        )
        used = there.statuses[200] if unit == "requests" else there.tokens
        return there, pushed, used / (limit * MINUTES)

    return run


@seeds
@kinds
def test_requests_are_used_up_and_none_is_refused(seed, algorithm, pushed):
    provider, calls, used = pushed(seed, "requests", algorithm)
    assert (provider.refused, calls.given_up) == (0, {})
    assert used >= 0.97


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        (USUAL, {}),
        (USUAL, {"streams": 3.0, "settles_after": 0.3}),
        (A_TENTH, {}),
        (A_TENTH, {"settles_after": 0.05}),
        (A_FORTIETH, {}),
    ],
)
def test_tokens_are_used_up_and_no_call_is_refused(asked, kind, pushed):
    """Also where a call reserves many times what it uses, or the provider settles later than we do."""
    provider, _, used = pushed(1, "tokens", asked=asked, **kind)
    assert provider.refused == 0
    assert used >= 0.97


@seeds
@kinds
def test_somebody_else_on_the_account_slows_us_down_and_not_into_refusals(seed, algorithm, pushed):
    provider, calls, used = pushed(seed, "requests", algorithm, others=20)
    assert provider.refused <= 0.01 * calls.good
    assert provider.refused_others <= 1
    assert used >= 0.95


@kinds
@pytest.mark.parametrize("others", [20, 60])
def test_somebody_else_s_tokens_slow_us_down_and_not_into_refusals(others, algorithm, pushed):
    provider, calls, used = pushed(1, "tokens", algorithm, others=others)
    assert provider.refused <= 0.01 * calls.good
    assert provider.refused_others <= 1
    assert used >= 0.95


def test_tokens_of_a_window_are_used_up_and_no_call_is_refused(pushed):
    provider, _, used = pushed(1, "tokens", "fixed-window", settles_after=0.02)
    assert provider.refused == 0
    assert used >= 0.96


@pytest.mark.parametrize("unit", ["requests", "tokens"])
def test_of_a_window_that_moves_along_a_tenth_is_left(unit, pushed):
    """It is always nearly empty where it is pushed, and looks like a bucket that somebody else has emptied."""
    provider, _, used = pushed(1, unit, "moving-window")
    assert provider.refused == 0
    assert used >= 0.89


def test_in_a_window_that_moves_along_few_calls_are_refused_where_others_come(pushed):
    provider, calls, used = pushed(1, "requests", "moving-window", others=20)
    assert provider.refused <= 0.03 * calls.good
    assert used >= 0.95
