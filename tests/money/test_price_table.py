"""An app's own prices are read exactly, and each mistake is refused with what to write."""

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit.engine import ConfigurationError
from flask_ailimit.money.price import KINDS
from flask_ailimit.money.price_table import read_price

GOOD = {"input": "2.50 USD", "output": "10.00 USD"}
LONG = {**GOOD, "above": {"200000": {"input": "5 USD"}}}


def price(table):
    return read_price("large-*", table, "plans.toml: prices.large-*")


def rates(table, tier="", step=0):
    return dict(dict(price(table).tiers)[tier][step].given)


def test_rates_are_read_exactly():
    assert rates({"input": "0.00000000000013 EUR", "output": "0 EUR"}) == {
        "input": Fraction(13, 10**14),
        "output": Fraction(0),
    }
    assert price({"input": "1 EUR", "output": "0 EUR"}).currency == "EUR"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_may_have_a_rate(kind):
    assert rates({**GOOD, kind: "3 USD"})[kind] == 3


def test_long_inputs_have_what_is_written_for_them_and_for_shorter_ones():
    table = {**GOOD, "above": {"500000": {"output": "30 USD"}, "200000": {"input": "5 USD"}}}
    steps = dict(price(table).tiers)[""]
    assert [(step.above, dict(step.given)) for step in steps] == [
        (500_000, {"input": 5, "output": 30}),
        (200_000, {"input": 5, "output": 10}),
        (0, {"input": Fraction(5, 2), "output": 10}),
    ]


def test_a_tier_has_what_is_written_for_it_and_else_the_standard():
    table = {**LONG, "reasoning": "1 USD", "tiers": {"FLEX": {"input": "1 USD", "above": {}}, "batch": 0.1}}
    assert rates(table, "flex") == {"input": 1, "output": 10, "reasoning": 1}
    assert rates(table, "batch") == {"input": Fraction(1, 2), "output": 1, "reasoning": Fraction(1, 10)}
    assert rates(table, "batch", step=1)["input"] == Fraction(1, 4)


@given(st.integers(0, 100), st.integers(0, 6))
def test_a_factor_is_read_as_it_is_written(digits, places):
    factor = float(f"{digits}e-{places}")
    assert rates({**GOOD, "tiers": {"batch": factor}}, "batch")["output"] == 10 * Fraction(digits, 10**places)


def test_a_price_of_requests_alone_is_one():
    assert rates({"request": "0.01 USD"}) == {"request": Fraction(1, 100)}


def test_a_high_rate_is_taken_if_it_is_confirmed():
    assert rates({**GOOD, "output": "200000 USD", "confirmed": True})["output"] == 200_000
    assert rates({**GOOD, "output": "1000 USD"})["output"] == 1000


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (5, ": a table is needed. Got 5"),
        (None, ": a table is needed. Got NoneType"),
        ({}, ": it has no rate. Write input = '2.50 USD'"),
        ({"confirmed": True}, ": it has no rate."),
        ({"input": "1 USD"}, ": it has no rate for output. Write output = '0 USD' if that costs nothing"),
        ({"output": "1 USD"}, ": it has no rate for input."),
        ({"cached_input": "1 USD"}, ": it has no rate for input."),
        ({**GOOD, "input": 2.5}, ".input: an amount is a text. Write digits"),
        ({**GOOD, "input": "2.50"}, ".input: this is no amount."),
        ({**GOOD, "input": "-1 USD"}, ".input: this is no amount."),
        ({**GOOD, "input": "nan USD"}, ".input: this is no amount."),
        ({**GOOD, "output": "10 EUR"}, ".output: all rates of a price are in one currency. Got EUR and USD"),
        ({**GOOD, "tiers": {"flex": {"input": "1 EUR"}}}, ".tiers.flex.input: all rates of a price are in one"),
        ({**GOOD, "above": {"5": {"input": "1 EUR"}}}, ".above.5.input: all rates of a price are in one"),
        ({**GOOD, "imput": "1 USD"}, ": there is no such key as 'imput'. Did you mean input? Allowed are input, out"),
        ({**GOOD, "input_tokens": "1 USD"}, ": there is no such key as 'input_tokens'."),
        ({**GOOD, 5: "1 USD"}, ": each key is a text. Got 5"),
        ({**GOOD, "output": "1000.01 USD"}, ": a rate is above 1000 USD, and rates are for a million tokens. If it is"),
        ({**GOOD, "tiers": {"priority": 100.1}}, ".tiers.priority: a table of rates, or a number from 0 to 100"),
        ({**GOOD, "output": "20 USD", "tiers": {"p": 60}}, ": a rate is above 1000 USD"),
        ({**GOOD, "confirmed": "yes"}, ".confirmed: true or false is needed. Got 'yes'"),
        ({**GOOD, "confirmed": 1}, ".confirmed: true or false is needed. Got 1"),
        ({**GOOD, "tiers": 0.5}, ".tiers: a table is needed. Got 0.5"),
        ({**GOOD, "tiers": {"batch": -0.5}}, ".tiers.batch: a table of rates, or a number"),
        ({**GOOD, "tiers": {"batch": True}}, ".tiers.batch: a table of rates, or a number"),
        ({**GOOD, "tiers": {"batch": float("nan")}}, ".tiers.batch: a table of rates, or a number"),
        ({**GOOD, "tiers": {"batch": 1e-30}}, ".tiers.batch: a table of rates, or a number"),
        ({**GOOD, "tiers": {"batch": "0.5"}}, ".tiers.batch: a table of rates, or a number"),
        ({**GOOD, "tiers": {"Default": 0.5}}, ".tiers.Default: it is no tier of its own."),
        ({**GOOD, "tiers": {"x" * 33: 0.5}}, ": it is no tier of its own."),
        ({**GOOD, "tiers": {"flex": 0.5, "FLEX": 0.6}}, ".tiers.FLEX: this tier is there already"),
        ({**GOOD, "tiers": {"flex": {"tiers": {}}}}, ".tiers.flex: there is no such key as 'tiers'."),
        ({**GOOD, "tiers": {"flex": {"confirmed": True}}}, ".tiers.flex: there is no such key as 'confirmed'."),
        ({**LONG, "tiers": {"flex": {"input": "1 USD"}}}, ".tiers.flex: it has no rates for long inputs, and the"),
        ({**GOOD, "above": {"0": {"input": "1 USD"}}}, ".above: a number of input tokens is needed as the key"),
        ({**GOOD, "above": {"200k": {"input": "1 USD"}}}, ".above: a number of input tokens is needed as the key"),
        ({**GOOD, "above": {"9" * 30: {"input": "1 USD"}}}, ".above: a number of input tokens is needed as the key"),
        ({**GOOD, "above": {"\u0665": {"input": "1 USD"}}}, ".above: a number of input tokens is needed as the key"),
        ({**GOOD, "above": {"5": {"above": {}}}}, ".above.5: there is no such key as 'above'."),
        ({**GOOD, "above": {"5": "1 USD"}}, ".above.5: a table is needed. Got '1 USD'"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)
def test_a_mistake_is_refused_with_its_place_and_what_to_write(table, said):
    with pytest.raises(ConfigurationError, match=re.escape(said)) as error:
        price(table)
    assert str(error.value).startswith("plans.toml: prices.large-*")
    assert str(error.value).endswith(".")
    assert len(str(error.value)) < 400


def test_the_same_threshold_twice_is_refused():
    with pytest.raises(ConfigurationError, match=r"above\.0500: there are rates above 500 already"):
        price({**GOOD, "above": {"500": {"input": "1 USD"}, "0500": {"input": "2 USD"}}})


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5) | st.just("5 USD"),
        lambda values: st.dictionaries(
            st.sampled_from([*KINDS, "above", "tiers", "confirmed", "200", "flex"]) | st.text(max_size=3), values
        ),
        max_leaves=12,
    )
)
def test_whatever_is_written_is_read_or_refused_with_a_sentence(table):
    refused = ""
    try:
        assert price(table).currency
    except ConfigurationError as error:
        refused = str(error)
    assert not refused or refused.startswith("plans.toml: prices.large-*")
