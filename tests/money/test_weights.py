"""How much each kind of token counts for in a limit on tokens."""

from dataclasses import FrozenInstanceError
from decimal import ROUND_CEILING, Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from priced import INPUT_PARTS, MOST, OUTPUT_PARTS, PARTS, fitting_usages, usages

from flask_ailimit.engine import ConfigurationError
from flask_ailimit.money import Weights
from flask_ailimit.money.weights import WEIGHED
from flask_ailimit.tokens import Usage
from flask_ailimit.tokens.usage import COUNTS

factors = st.decimals(0, 1000, places=4, allow_nan=False, allow_infinity=False)
given_factors = st.dictionaries(st.sampled_from(WEIGHED), factors)
UNITS = ("tokens", "input_tokens", "output_tokens")


def factor_of(table, kind):
    parent = {"cache_write_1h": "cache_write", "input": None, "output": None}.get(
        kind, "input" if kind in INPUT_PARTS else "output"
    )
    if f"{kind}_tokens" in table:
        return table[f"{kind}_tokens"]
    return Decimal(1) if parent is None else factor_of(table, parent)


def expected(usage, table, unit):
    total = Decimal(0)
    for whole, parts in (("input", INPUT_PARTS), ("output", OUTPUT_PARTS)):
        if unit in ("tokens", f"{whole}_tokens"):
            counts = {kind: getattr(usage, field) for kind, field in parts.items()}
            counts[whole] = getattr(usage, f"{whole}_tokens") - sum(counts.values())
            total += sum(count * factor_of(table, kind) for kind, count in counts.items())
    return int(total.to_integral_value(ROUND_CEILING))


@given(fitting_usages(), given_factors, st.sampled_from(UNITS))
def test_each_token_counts_once_with_its_factor_rounded_up_once(usage, table, unit):
    assert Weights.of(table).weigh(usage, unit) == expected(usage, table, unit)


@given(usages, st.sampled_from(UNITS))
def test_without_factors_a_token_counts_for_one(usage, unit):
    assert Weights().weigh(usage, unit) == Weights.of({}).weigh(usage, unit) == usage.of(unit)


@given(usages, st.dictionaries(st.sampled_from(WEIGHED), st.just(1)), st.sampled_from(UNITS))
def test_factors_of_one_change_nothing_however_parts_overlap(usage, table, unit):
    assert Weights.of(table).weigh(usage, unit) == usage.of(unit)


def test_every_kind_of_a_usage_can_be_weighed():
    assert set(WEIGHED) == set(COUNTS) == {"input_tokens", "output_tokens", *PARTS.values()}


@pytest.mark.parametrize(
    ("table", "usage", "unit", "weight"),
    [
        ({"cached_input_tokens": 0.1, "output_tokens": 5}, Usage(1000, 200, 900), "tokens", 100 + 90 + 1000),
        ({"cached_input_tokens": 0.1}, Usage(1000, 200, 900), "input_tokens", 190),
        ({"cached_input_tokens": 0.1}, Usage(1, 0, 1), "input_tokens", 1),
        ({"cached_input_tokens": 0}, Usage(1000, 0, 1000), "input_tokens", 0),
        ({"cache_write_tokens": 1.25}, Usage(100, 0, 0, 40, 20), "input_tokens", 40 + 75),
        ({"output_tokens": 2}, Usage(0, 100, reasoning_tokens=60), "output_tokens", 200),
        ({"output_tokens": 2, "reasoning_tokens": 1}, Usage(0, 100, reasoning_tokens=60), "output_tokens", 140),
        ({"output_tokens": 1000}, Usage(0, MOST), "tokens", MOST),
    ],
)
def test_weight_of_a_few_usages_by_hand(table, usage, unit, weight):
    assert Weights.of(table).weigh(usage, unit) == weight


@given(st.integers(0, 1000), st.integers(0, 9))
def test_a_factor_of_toml_is_read_as_it_is_written(digits, places):
    ((_, factor),) = Weights.of({"output_tokens": float(f"{digits}e-{places}")}).factors
    assert factor == Fraction(digits, 10**places)


@pytest.mark.parametrize(
    "value",
    [-1, -0.1, 1001, 1000.1, float("nan"), float("inf"), True, "0.1", None, 1e-19, Decimal("NaN"), 10**5000],
    ids=lambda value: f"{value!r:.9}" if not isinstance(value, int) or value < 9999 else "huge",
)
def test_what_is_no_factor_is_refused_with_what_to_write(value):
    with pytest.raises(ConfigurationError, match="weights: output_tokens: a number from 0 to 1000") as error:
        Weights.of({"output_tokens": value})
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("name", ["tokens", "output", "cached_tokens", "", 5, None, ("output_tokens",)])
def test_what_is_no_kind_of_token_is_refused_with_those_that_are(name):
    with pytest.raises(ConfigurationError, match=r"is no kind of token\. Write one of input_tokens, output_tokens, c"):
        Weights.of({name: 1})


@pytest.mark.parametrize("table", [None, 5, "output_tokens", ["output_tokens"]])
def test_what_is_no_table_is_refused(table):
    with pytest.raises(ConfigurationError, match="weights: a table of factors is needed"):
        Weights.of(table)


def test_a_unit_that_counts_no_tokens_is_an_error():
    with pytest.raises(ValueError, match="'tokens', 'input_tokens' or 'output_tokens'"):
        Weights.of({"output_tokens": 2}).weigh(Usage(1, 1), "requests")


def test_weights_are_immutable_hashable_and_equal_by_their_factors():
    one = Weights.of({"output_tokens": 5, "cached_input_tokens": 0.5})
    other = Weights.of({"cached_input_tokens": Decimal("0.5"), "output_tokens": 5.0})
    assert one == other
    assert hash(one) == hash(other)
    assert one != Weights()
    with pytest.raises(FrozenInstanceError):
        one.factors = ()
