"""An operator changes limits by windows of a calendar, and budgets."""

import json

import pytest
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
        ("budget", "60 EUR per calendar month", "no limit on budget in this window"),
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
