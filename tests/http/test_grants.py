"""Credit by itself: how it is written, which budget of a plan takes it, and which grants a store is told of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit import ConfigurationError
from flask_ailimit.engine import Quota
from flask_ailimit.engine.calendars import EVERY
from flask_ailimit.engine.grant import Grant
from flask_ailimit.engine.quota import EVER, LATEST_SECOND, MAX_EXACT, MOST_GRANTS, SESSION, amount_in_words
from flask_ailimit.limits.plans.credit import amount_of, by_unit, still_granted, taking_credit

NOW = 1_800_000_000
HOUR = 3600

amounts = st.integers(1, MAX_EXACT)
units = st.sampled_from(["nano_usd", "nano_eur", "tokens", "pages"])


@given(amounts, units)
def test_amount_in_words_is_read_as_the_same_amount(amount, unit):
    words = amount_in_words(amount, unit)
    assert amount_of(words) == amount_of(f"+{words}") == amount_of(f" + {words} ") == (amount, unit)


@pytest.mark.parametrize(
    "text",
    [
        "", "20", "USD", "20USD", "20 usd dollars", "1e3 USD", "NaN USD", "2.5 tokens", "++20 USD", "0 USD",
        "0 tokens", "0.0000000001 USD", "9007199.254740992 USD", f"{MAX_EXACT + 1} tokens", "2,50 USD", "\u0662 USD",
        20, 20.0, None, True, ["20 USD"],
    ],
)  # fmt: skip
def test_text_that_is_no_amount_is_refused(text):
    with pytest.raises(ConfigurationError, match=r"Got|at most"):
        amount_of(text)


# Which budget of a plan takes credit


def budget(every, period=1, unit="nano_usd"):
    return Quota(10, period, unit, "budget", every=every)


FOREVER, MONTH, DAY, WEEK = budget(EVER), budget("month"), budget("day"), budget("week")
WINDOWS = [("", 60), ("", 86400), ("", 31 * 86400), (SESSION, 5 * HOUR), (SESSION, 86400), (EVER, 1)]
windows = st.sampled_from([*WINDOWS, *((every, 1) for every in EVERY)])


@st.composite
def quotas(draw):
    """What limits of a plan allow, no two of one unit with the same windows, and whether they are only tried."""
    chosen = draw(st.lists(st.tuples(windows, units, st.booleans()), max_size=8, unique=True))
    return [(budget(*window, unit), tried) for window, unit, tried in chosen]


@given(quotas(), st.randoms())
def test_one_budget_of_each_unit_takes_credit_whatever_their_order(limits, order):
    def taking(some):
        return {some[place] for place in taking_credit(some)}

    shuffled = [*limits]
    order.shuffle(shuffled)
    assert taking(limits) == taking(shuffled)
    held = [quota.unit for quota, tried in taking(limits) if not tried]
    assert sorted(held) == sorted({quota.unit for quota, tried in limits if not tried})


@given(quotas())
def test_no_budget_is_longer_than_the_one_that_takes_credit(limits):
    for place in taking_credit(limits):
        taking, tried = limits[place]
        for other, other_tried in limits:
            if other.unit == taking.unit and (not other_tried or tried):
                assert other.period <= taking.period
                assert other.every != EVER or taking.every == EVER


@pytest.mark.parametrize(
    ("limits", "taking"),
    [
        ([DAY, MONTH, WEEK], {1}),
        ([FOREVER, MONTH], {0}),
        ([FOREVER, budget("", 10 * 366 * 86400)], {0}),
        ([budget("", 86400), DAY, budget(SESSION, 86399)], {1}),
        ([DAY, budget(SESSION, 86400)], {0}),
        ([budget(SESSION, 86400), DAY], {1}),
        ([budget("", 86400), budget(SESSION, 86400)], {1}),
        ([MONTH, budget("day", 1, "nano_eur")], {0, 1}),
        ([Quota(10, 60), None, Quota(10, 60, "tokens")], set()),
    ],
)
def test_budget_with_the_longest_window_takes_credit(limits, taking):
    assert taking_credit((quota, False) for quota in limits) == taking


def test_budget_that_is_only_tried_takes_credit_if_it_would_were_it_to_hold():
    assert taking_credit([(MONTH, False), (FOREVER, True)]) == {0, 1}
    assert taking_credit([(MONTH, False), (MONTH, True)]) == {0, 1}
    assert taking_credit([(MONTH, False), (DAY, True)]) == {0}
    assert taking_credit([(DAY, True)]) == {0}


# What a store is told

grants = st.builds(
    lambda number, begins, lasts: Grant(number, 1, begins, min(begins + lasts, LATEST_SECOND)),
    st.integers(1, 10**6),
    st.integers(NOW - 100 * HOUR, NOW + 100 * HOUR),
    st.integers(1, 200 * HOUR),
)


@given(st.lists(st.tuples(units, grants), max_size=90))
def test_store_is_told_of_every_grant_that_has_not_ended_by_a_clock_that_is_a_little_behind(some):
    told = still_granted(by_unit(some), NOW)
    for unit in {unit for unit, _ in some}:
        own = [grant for each, grant in some if each == unit and grant.ends > NOW - HOUR]
        expected = sorted(own, key=lambda grant: (grant.ends, grant.id))[-MOST_GRANTS:]
        assert told.get(unit, ()) == tuple(expected)


def test_grants_that_have_all_not_ended_are_not_copied():
    kept = by_unit([("nano_usd", Grant(1, 1, 0, NOW + 1)), ("nano_usd", Grant(2, 1, 0, NOW))])
    assert still_granted(kept, NOW) is kept
