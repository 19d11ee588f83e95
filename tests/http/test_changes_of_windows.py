"""An operator changes limits by windows of a calendar, and budgets."""

import json

import pytest
from flask import Blueprint
from limited_apps import limited

from flask_ailimit import Caller, ChangeError, Payer

WHY = {"reason": "a phone call", "by": "ann"}
PLANS = {
    "default_plan": "pro",
    "calendar": {"zone": "Europe/Berlin"},
    "plans": {
        "pro": {
            "requests": "2 per day; 2 per calendar day",
            "budget": "50 USD per calendar month; 10 USD",
        }
    },
    "prices": {"*": {"input": "1 USD", "output": "2 USD"}},
}


def planned():
    """An app with a view by plan."""
    served = limited(None, plans=PLANS)
    served.limiter.identify(lambda: Caller(user=Payer(7)))

    @served.app.post("/", endpoint="completions")
    @served.limiter.limit_by_plan()
    def answer():
        return {}

    return served


def limits_of(served):
    """The limits of the payer, each with its numbers and its calendar."""
    with served.app.test_request_context("/", method="POST"):
        verdicts = served.limiter.peek("completions").verdicts
    return {each.quota.name: (each.quota.limit, each.quota.calendar.zone) for each in verdicts}


BEFORE = {
    "requests-per-day": (2, "UTC"),
    "requests-per-calendar-day": (2, "Europe/Berlin"),
    "usd-per-calendar-month": (50 * 10**9, "Europe/Berlin"),
    "usd": (10 * 10**9, "UTC"),
}


def test_change_of_a_calendar_window_leaves_the_fixed_one_as_it_was():
    served = planned()
    assert limits_of(served) == BEFORE
    served.limiter.admin.raise_limit("user:7", "requests", "3 per calendar day", **WHY)
    assert limits_of(served) == {**BEFORE, "requests-per-calendar-day": (3, "Europe/Berlin")}
    served.limiter.admin.raise_limit("user:7", "requests", "4/day", **WHY)
    assert limits_of(served)["requests-per-day"] == (4, "UTC")


def test_budget_is_raised_in_its_window():
    served = planned()
    change = served.limiter.admin.raise_limit("user:7", "budget", "60 USD per calendar month", **WHY)
    assert (change.value, str(change.limit)) == ("60.00 USD per calendar month", "budget")
    assert limits_of(served) == {**BEFORE, "usd-per-calendar-month": (60 * 10**9, "Europe/Berlin")}
    served.limiter.admin.lower_limit("user:7", "budget", "0.50 USD", **WHY)
    assert limits_of(served)["usd"] == (10**9 // 2, "UTC")


@pytest.mark.parametrize(
    ("unit", "value", "said"),
    [
        ("requests", "9 per calendar week", "no limit on requests in this window"),
        (
            "requests",
            "9 per calendar week",
            "requests 2 per day (pro), requests 2 per calendar day (pro), budget 50 USD per",
        ),
        ("budget", "60 EUR per calendar month", "no limit on budget in this window. There are: "),
        (
            "budget",
            "40 USD per calendar month",
            "40.00 USD per calendar month is not higher than 50 USD per calendar month",
        ),
        ("budget", "60 per calendar month", "can't read '60 per calendar month' as money"),
        ("budget", 60, "can't read '60' as money"),
        ("budget", "60 USD per month", "write 'per calendar month'"),
        ("budget", "60 USD per calendar month; 5 USD", "Name one limit at a time"),
        ("requests", "9 USD per day", "is money"),
    ],
)
def test_change_that_fits_no_limit_says_what_there_is(unit, value, said):
    with pytest.raises(ChangeError) as refused:
        planned().limiter.admin.raise_limit("user:7", unit, value, **WHY)
    assert said.lower() in str(refused.value).lower()


def test_entry_about_such_a_window_is_passed_over_by_a_library_that_can_t_read_it():
    served = planned()
    admin, store = served.limiter.admin, served.limiter.engine.store
    admin.raise_limit("user:7", "requests", "3 per day", **WHY)
    admin.raise_limit("user:7", "requests", "3 per calendar day", **WHY)
    admin.raise_limit("user:7", "budget", "11 USD", **WHY)
    assert [json.loads(text)["v"] for _, text in store.changes_from(1)] == [1, 3, 3]


# Reloads

FILE = """
default_plan = "pro"
[plans.pro]
budget = "{budget}"
[prices."{model}"]
input = "{rate}"
output = "{rate}"
"""


@pytest.fixture
def reloadable(tmp_path):
    """An app with a view by plan, and a function that writes its plan file anew and has it read."""
    file = tmp_path / "plans.toml"
    file.write_text(FILE.format(budget="5 USD", model="large-*", rate="1 USD"))
    served = limited(None, plans=str(file))
    served.limiter.identify(lambda: Caller(user=Payer(7)))

    @served.app.post("/", endpoint="completions")
    @served.limiter.limit_by_plan()
    def answer():
        return {"usage": {"prompt_tokens": 1000, "completion_tokens": 0}}

    def reload(budget="5 USD", model="large-*", rate="1 USD"):
        file.write_text(FILE.format(budget=budget, model=model, rate=rate))
        with served.app.app_context():
            served.limiter.admin.reload(**WHY)

    return served, reload


def ask(served, model="large-1"):
    return served.app.test_client().post("/", json={"model": model, "messages": [], "max_tokens": 10})


def spent(served):
    with served.app.test_request_context("/", method="POST", json={"model": "large-1", "messages": []}):
        (verdict,) = served.limiter.peek("completions").verdicts
    return verdict.used


def test_prices_are_those_of_the_file_that_was_read_again(reloadable):
    served, reload = reloadable
    assert ask(served).status_code == 200
    assert spent(served) == 10**6  # A thousand tokens, at a dollar for a million.
    reload(rate="2 USD")
    assert ask(served).status_code == 200
    assert spent(served) == 3 * 10**6
    reload(model="small-*")
    assert ask(served).json["error"]["code"] == "model_not_priced"
    assert ask(served, "small-1").status_code == 200


def test_file_without_the_prices_of_a_decorated_budget_is_not_taken(reloadable):
    served, reload = reloadable
    served.limiter.limit_budget("5 USD per day")(Blueprint("other", __name__))
    with pytest.raises(ChangeError, match=r"The plans stay as they are.*no price is in USD"):
        reload(budget="5 EUR", rate="1 EUR")
    assert ask(served).status_code == 200
