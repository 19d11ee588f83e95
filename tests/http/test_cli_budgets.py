"""The commands say of budgets what is spent, reserved and left in amounts, and until when."""

import pytest
from limited_apps import limited

from flask_ailimit import UNLIMITED
from flask_ailimit.cli import cli

TYPED = ["--reason", "a phone call", "--by", "ann"]
PLANS = {
    "default_plan": "pro",
    "plans": {"pro": {"budget": "5 USD per calendar month"}},
    "service": {"budget": {"limit": "9 USD per calendar year", "candidate": "8 USD per calendar year"}},
    "prices": {"*": {"input": "1 USD", "output": "1 USD"}},
}


@pytest.fixture
def served(tmp_path):
    served = limited(lambda: "7", plans=PLANS, storage_uri=f"local://{tmp_path}/limits")

    def answer():
        served.limiter.record_usage(cost="0.50 USD")
        return {}

    served.app.post("/plan", endpoint="plan")(served.limiter.limit_by_plan()(answer))
    budget = served.limiter.limit_budget("2 USD per calendar day; 3 USD", calendar={"zone": "Africa/Cairo"})
    served.app.post("/own", endpoint="own")(budget(answer))
    for path in ("/plan", "/own"):
        assert served.client().post(path, json={"model": "m", "messages": []}).status_code == 200
    yield served
    served.limiter._states[served.app].changes.close()
    served.limiter.engine.close()


def run(served, *arguments):
    result = served.app.test_cli_runner().invoke(cli, [*arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_usage_of_a_decorated_budget_is_told_in_amounts_with_its_zone(served):
    said = run(served, "usage", "7")
    assert "usd-per-calendar-day: 0.50 of 2.00 USD spent, 0.00 USD reserved, 1.50 USD left. It is renewed at " in said
    assert "T00:00:00+03:00 (Africa/Cairo)\n" in said
    assert "    usd: 0.50 of 3.00 USD spent, 0.00 USD reserved, 2.50 USD left\n" in said


def test_what_a_changed_budget_was_is_told_in_amounts(served):
    run(served, "raise", "user:7", "budget", "6.50 USD per calendar month", *TYPED)
    said = run(served, "usage", "user:7", "--plan", "pro")
    assert "0.50 of 6.50 USD spent" in said
    assert "(change, in the plan 5.00 USD)\n" in said


def test_usage_of_everybody_together_is_told_by_the_plan_alone(served):
    said = run(served, "usage", "service")
    assert "0.50 of 8.00 USD spent" in said
    assert "(candidate, only tried, in the plan 9.00 USD)\n" in said
    assert "Nothing of this is used" not in said


def test_budget_without_a_limit_is_told_in_its_currency():
    served = limited(lambda: "7", prices=PLANS["prices"])
    served.app.post("/")(served.limiter.limit_budget(UNLIMITED, currency="USD")(dict))
    assert "    unlimited USD\n" in run(served, "limits")
