"""The plans of examples/plans load, and decide what their source says."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from limited_apps import limited

from flask_ailimit import Caller, Payer
from flask_ailimit.engine import Charge
from flask_ailimit.limits.plans.plan_file import read_plans

EXAMPLES = Path(__file__).parents[2] / "examples" / "plans"

FIGURES = {
    ("openai.toml", "tier-1"): (500, 200_000, None),
    ("openai.toml", "tier-4"): (10_000, 2_000_000, None),
    ("anthropic.toml", "build"): (1000, 400_000, None),
    ("deepseek.toml", "deepseek"): (300, 300_000, 50),
    ("aipower.toml", "aipower"): (600, None, 100),
}
"""Requests and tokens a minute, and calls in flight; None for no limit."""

every_plan = pytest.mark.parametrize(("file", "plan"), FIGURES, ids=lambda each: each.removesuffix(".toml"))


@pytest.fixture
def served(file, plan):
    """An app whose callers all have this plan."""
    served = limited(None, plans=EXAMPLES / file)
    served.limiter.identify(lambda: Caller(user=Payer("ann", plan=plan)))

    @served.app.post("/", endpoint="answer")
    @served.limiter.limit_by_plan()
    def answer():
        return {"usage": {"prompt_tokens": 1, "completion_tokens": 1}}

    return served


def ask(served, max_tokens=10):
    return served.client().post("/", json={"prompt": "Hi", "max_tokens": max_tokens})


def charge(served, name, cost=1):
    """A charge of the caller under the limit of this name; None without such a limit."""
    with served.app.test_request_context("/", method="POST"):
        peeked = {verdict.quota.name: verdict.charge for verdict in served.limiter.peek("answer").verdicts}
    found = peeked.get(name)
    return found and Charge(found.subject, found.quota, cost, found.scope)


def test_each_example_is_in_the_table():
    found = {(path.name, plan) for path in EXAMPLES.iterdir() for plan in read_plans(path, "", "fixed-window").plans}
    assert found == set(FIGURES)


@pytest.mark.parametrize("path", sorted(EXAMPLES.iterdir()), ids=lambda path: path.stem)
def test_each_example_says_source_and_date(path):
    text = path.read_text(encoding="utf-8")
    assert "# https://aipower.me/blog/ai-api-rate-limiting-best-practices\n" in text
    assert "17 April 2026" in text


@every_plan
def test_last_request_of_the_minute_is_answered_and_the_next_is_refused(served, file, plan):
    requests, _, _ = FIGURES[file, plan]
    before = charge(served, "requests-per-minute", requests - 1)
    assert served.limiter.engine.reserve([before]).allowed
    assert [ask(served).status_code for _ in range(2)] == [200, 429]


@every_plan
def test_request_for_all_tokens_of_a_minute_is_larger_than_the_limit(served, file, plan):
    _, tokens, _ = FIGURES[file, plan]
    most = tokens or 10**9
    answers = [ask(served, most - 100), ask(served, most + 1)]
    assert [answer.status_code for answer in answers] == [200, 413 if tokens else 200]


@every_plan
def test_call_is_refused_while_all_others_are_in_flight(served, file, plan):
    _, _, concurrency = FIGURES[file, plan]
    held = charge(served, "concurrency")
    assert (held is None) == (concurrency is None)
    with ExitStack() as in_flight:
        for _ in range(concurrency or 200):
            reservation = served.limiter.engine.reserve([held] if held else [])
            in_flight.callback(reservation.cancel)
        assert ask(served).status_code == (429 if concurrency else 200)
    assert ask(served).status_code == 200
