"""One request that meets a count several times: it is charged what it used, holds one slot, and counts its calls."""

import pytest
from flask import Blueprint, Response, stream_with_context
from hypothesis import given, settings
from hypothesis import strategies as st
from limited_apps import limited

from flask_ailimit import QuotaExceeded
from flask_ailimit.engine import Charge, Quota

TOKENS = Quota(1000, 86400, "tokens")
INPUT = Quota(1000, 86400, "input_tokens")
CALLS = Quota(100, 86400, "requests", "fixed-window")
SLOTS = Quota(1, 60, "concurrency", "concurrency")
THOUSAND, HUNDRED = "1000 per day", "100 per day"
BODY = {"prompt": "hello", "max_tokens": 20}


def used(limits, quota, scope="answer"):
    """What alice's count of a quota holds."""
    subject, inside = limits.limiter.subject("alice"), f"{scope}\x1f{quota.limit}/{quota.burst}"
    charges = [Charge(subject, quota, 0, each) for each in (scope, inside)]  # That of the view, and that of a block.
    return sum(verdict.used for verdict in limits.limiter.engine.peek(charges).verdicts)


def with_view(limits, view, *decorators):
    for decorator in decorators:
        view = decorator(view)
    limits.app.post("/", endpoint="answer")(view)
    return limits


def ask(limits):
    return limits.client().post("/", json=BODY)


def named(name, function):
    """The function under a name of its own, by which a limiter knows what it limits."""
    function.__name__ = function.__qualname__ = name
    return function


@pytest.mark.parametrize("rounds", [1, 2, 3, 5])
@pytest.mark.parametrize("streamed", [False, True])
def test_blocks_add_up_what_was_used_inside_of_them(rounds, streamed):
    limits = limited()

    def view():
        for _ in range(rounds):
            with limits.limiter.limit_tokens(THOUSAND), limits.limiter.limit_tokens(THOUSAND, unit="input_tokens"):
                limits.limiter.record_usage(input_tokens=100, output_tokens=7)
        return Response(stream_with_context(iter(["data: {}\n\n"])) if streamed else "{}")

    assert ask(with_view(limits, view)).data
    assert (used(limits, TOKENS), used(limits, INPUT)) == (107 * rounds, 100 * rounds)


def test_helper_that_is_called_twice_adds_up_what_it_used():
    limits = limited()
    record = named("helper", lambda: limits.limiter.record_usage(input_tokens=100))
    helper = limits.limiter.limit_tokens(THOUSAND)(record)
    ask(with_view(limits, lambda: [helper(), helper()]))
    assert used(limits, TOKENS) == 200


def test_view_and_helper_under_the_same_limits_are_one_reservation_and_one_slot():
    limits = limited()
    decorators = [limits.limiter.limit_tokens(THOUSAND), limits.limiter.limit_concurrency(1)]
    seen = []

    def helper():
        seen.append((used(limits, TOKENS), used(limits, SLOTS)))
        limits.limiter.record_usage(input_tokens=10)

    for decorator in decorators:
        helper = decorator(helper)
    with_view(limits, lambda: [helper(), helper()], *decorators)
    assert [ask(limits).status_code for _ in range(3)] == [200] * 3
    assert {slots for _, slots in seen} == {1}
    assert seen[0][0] == seen[1][0]  # The request's estimate is reserved once.
    assert (used(limits, TOKENS), used(limits, SLOTS)) == (60, 0)


def test_block_around_a_block_is_one_slot():
    limits = limited()

    def view():
        with limits.limiter.limit_concurrency(1), limits.limiter.limit_concurrency(1):
            return {"slots": used(limits, SLOTS)}

    with_view(limits, view)
    assert [ask(limits).json for _ in range(2)] == [{"slots": 1}] * 2
    assert used(limits, SLOTS) == 0


def test_slot_is_another_requests_only_when_this_one_has_ended():
    """A block's slot is held until the request is answered, so that a second block needs none."""
    limits = limited()

    def view():
        with limits.limiter.limit_concurrency(1):
            pass
        nested = limits.client().post("/nested").status_code
        with limits.limiter.limit_concurrency(1):
            return {"nested": nested}

    with_view(limits, view)
    limits.app.post("/nested")(limits.limiter.limit_concurrency(1, scope="answer", shared=True)(lambda: "nested"))
    assert ask(limits).json == {"nested": 429}
    assert limits.client().post("/nested").status_code == 200


def test_limit_on_requests_counts_every_call_of_a_helper():
    limits = limited()
    helper = limits.limiter.limit(HUNDRED)(named("helper", lambda: "helped"))
    ask(with_view(limits, lambda: [helper() for _ in range(3)]))
    assert used(limits, CALLS) == 3


@pytest.mark.parametrize("view_is_limited", [False, True])
def test_limits_of_a_blueprint_count_the_request_and_not_the_calls_inside_of_it(view_is_limited):
    limits = limited()
    blueprint = Blueprint("models", __name__)
    limits.limiter.limit(HUNDRED)(blueprint)
    record = named("helper", lambda: limits.limiter.record_usage(input_tokens=100))
    helper = limits.limiter.limit_tokens(THOUSAND)(record)
    view = named("view", lambda: [helper(), helper()])
    if view_is_limited:
        view = limits.limiter.limit_concurrency(1)(view)
    blueprint.post("/", endpoint="answer")(view)
    limits.app.register_blueprint(blueprint)
    for number in (1, 2, 3):
        assert ask(limits).status_code == 200
        assert used(limits, CALLS, "models.answer") == number
        assert used(limits, TOKENS, "models.answer") == 200 * number


def test_count_whose_reservation_was_refused_is_asked_again():
    """What a refused phase asked for it doesn't hold."""
    limits = limited()
    small = limits.limiter.limit_tokens("30 per day", estimate=lambda _: 40, scope="small")
    statuses = []

    def view():
        for limit in (small, limits.limiter.limit_tokens("30 per day", estimate=lambda _: 20, scope="small")):
            try:
                with limit:
                    statuses.append("in")
            except QuotaExceeded:
                statuses.append("out")
        limits.limiter.record_usage(input_tokens=25)
        return {}

    with_view(limits, view)
    ask(limits)
    ask(limits)
    assert statuses == ["in", "in", "out", "out"]  # Of an estimate never more is reserved than there can be.


def test_what_was_asked_for_once_stays_in_the_decision():
    limits = limited()
    limits.app.after_request(lambda response: (decisions.append(limits.limiter.decision), response)[1])
    decisions = []
    with_view(limits, lambda: [helper(), helper()], limits.limiter.limit_tokens(THOUSAND))
    helper = limits.limiter.limit_tokens(THOUSAND)(limits.limiter.limit(HUNDRED)(named("helper", lambda: "helped")))
    response = ask(limits)
    assert [quota.unit for quota in decisions[0].quotas] == ["tokens", "requests", "requests"]
    assert "x-ratelimit-limit-tokens" in response.headers


STEPS = st.lists(st.sampled_from(["tokens", "input", "slot", "call", "record"]), max_size=12)


@given(STEPS)
@settings(max_examples=40, deadline=None)
def test_request_is_charged_what_it_used_and_called_in_whatever_order(steps):
    limits = limited()
    limiter = limits.limiter
    decorators = {
        "tokens": limiter.limit_tokens(THOUSAND),
        "input": limiter.limit_tokens(THOUSAND, unit="input_tokens"),
        "slot": limiter.limit_concurrency(1),
        "call": limiter.limit(HUNDRED),
    }
    helpers = {name: decorate(named(name, lambda: "")) for name, decorate in decorators.items()}
    helpers["record"] = lambda: limiter.record_usage(input_tokens=3, output_tokens=2)

    def view():
        limiter.record_usage(input_tokens=3, output_tokens=2)
        return [helpers[step]() for step in steps]

    with_view(limits, view)
    for number in (1, 2):
        assert ask(limits).status_code == 200
        times = number * (1 + steps.count("record"))
        assert used(limits, TOKENS) == ("tokens" in steps) * 5 * times
        assert used(limits, INPUT) == ("input" in steps) * 3 * times
        assert used(limits, CALLS) == number * steps.count("call")
        assert used(limits, SLOTS) == 0
