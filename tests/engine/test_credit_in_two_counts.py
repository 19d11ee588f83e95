"""Credit belongs to a payer: what was used of it beside one budget is used beside each other one in the same unit."""

import random
from dataclasses import replace

import pytest
from payer import Payer

from flask_ailimit.engine import Quota
from flask_ailimit.engine.grant import Grant
from flask_ailimit.engine.quota import LATEST_SECOND

FIVE_HOURS = 5 * 3600
OTHERS = ((FIVE_HOURS, "session"), (3 * 3600, ""))
WINDOWS = [("month", 1), ("day", 1), ("ever", 1), ("session", FIVE_HOURS), ("", 3 * 3600)]


def budget(every, period=1, limit=0, unit="nano_usd", grants=((1, 100),)):
    credit = tuple(Grant(id_, amount, 0, LATEST_SECOND) for id_, amount in grants)
    return Quota(limit, period, unit, "budget", every=every, credit=credit, credit_windows=OTHERS)


def under(payer, quota):
    payer.quota = quota
    return payer


def credit_of(payer):
    return payer.ask().spending.credit


@pytest.mark.parametrize(("every", "period"), WINDOWS)
def test_credit_that_was_used_beside_one_budget_is_not_there_beside_another(every, period):
    payer = Payer(budget(every, period))
    payer.use(60)
    for other in WINDOWS:
        assert credit_of(under(payer, budget(*other))) == 40
        assert not payer.reserve(41).allowed
    late = under(payer, budget("month")).reserve(40)
    assert not under(payer, budget("ever")).reserve(1).allowed
    payer.end(late, 10)  # What it gives back is there for all.
    assert credit_of(payer) == 30


def test_credit_in_another_unit_is_another():
    payer = Payer(budget("month"))
    payer.use(60)
    assert credit_of(under(payer, budget("ever", unit="nano_eur"))) == 100


def test_calls_of_several_plans_at_once_never_burn_more_than_was_granted():
    draw = random.Random(7)
    payer, granted, used, running = Payer(budget("month")), ((1, 70), (2, 50)), 0, []
    for _ in range(400):
        payer.quota = budget(*draw.choice(WINDOWS), grants=granted)
        if running and draw.random() < 0.5:
            quota, call, cost = running.pop(draw.randrange(len(running)))
            actual = draw.randrange(cost + 1) if draw.random() < 0.9 else 0
            payer.quota = quota
            payer.end(call, actual)
            used -= cost - actual
        else:
            cost = draw.randrange(1, 9)
            call = payer.reserve(cost)
            assert call.allowed == (used + cost <= 120)
            if call.allowed:
                running.append((payer.quota, call, cost))
                used += cost
        assert credit_of(payer) == 120 - used


def test_changed_budget_looks_at_the_same_other_counts():
    quota = budget("month")
    assert replace(quota, limit=5, burst=None).credited_in("plan") == quota.credited_in("plan")
    assert quota.bucket("plan") not in quota.credited_in("plan")
    names = {budget(*window).bucket("plan") for window in WINDOWS} - {quota.bucket("plan")}
    assert names <= set(quota.credited_in("plan"))
