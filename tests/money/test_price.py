"""What a usage costs: exact, rounded up once, and never less for what a client or an upstream makes up."""

import pickle
import random
from dataclasses import FrozenInstanceError, replace
from decimal import Decimal
from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from priced import (
    INPUT_PARTS,
    MOST,
    OUTPUT_PARTS,
    PARTS,
    exact_sum,
    fitting_usages,
    rate_of,
    rounded_up,
    tables,
    usages,
)

from flask_ailimit.money import Cost
from flask_ailimit.money.price_table import read_price
from flask_ailimit.tokens import Usage

TIERS = {
    "input": "2.50 USD",
    "cached_input": "1.25 USD",
    "output": "10 USD",
    "above": {"1000": {"input": "5 USD", "output": "15 USD"}, "5000": {"input": "7.50 USD"}},
    "tiers": {"batch": 0.5, "Priority": {"input": "4 USD", "above": {"1000": {"input": "8 USD"}}}},
}


def price(table):
    return read_price("model", table, "prices.model")


@given(fitting_usages(), tables())
def test_cost_is_the_exact_sum_rounded_up_once(usage, table):
    written, given = table
    assert price(written).cost(usage) == rounded_up(exact_sum(usage, given))


@given(usages, tables())
def test_each_token_is_paid_once_and_parts_that_do_not_fit_are_paid_as_the_dearest(usage, table):
    """Against the most that any way to make the parts fit costs, found by trying all orders in which they are cut."""
    written, given = table
    most = exact_sum(Usage(), given)
    for whole, parts in (("input", INPUT_PARTS), ("output", OUTPUT_PARTS)):
        count = getattr(usage, f"{whole}_tokens")
        totals = []
        for order in permutations(parts):
            left, total = count, Decimal(0)
            for kind in order:
                taken = min(left, getattr(usage, parts[kind]))
                left -= taken
                total += taken * rate_of(given, kind) * 1000
            totals.append(total + left * given[whole] * 1000)
        fits = sum(getattr(usage, field) for field in parts.values()) <= count
        assert not fits or len(set(totals)) == 1
        most += max(totals)
    assert price(written).cost(usage) == rounded_up(most)


@given(usages, tables(), st.sampled_from(list(PARTS.values())), st.integers(1, 5000))
def test_a_part_beyond_its_whole_makes_nothing_cheaper(usage, table, field, more):
    """What an upstream adds to parts that fill their whole already only makes it dearer."""
    group = INPUT_PARTS if field in INPUT_PARTS.values() else OUTPUT_PARTS
    whole = "input_tokens" if group is INPUT_PARTS else "output_tokens"
    full = replace(usage, **{whole: min(getattr(usage, whole), sum(getattr(usage, each) for each in group.values()))})
    larger = replace(full, **{field: getattr(full, field) + more})
    one = price(table[0])
    assert one.cost(larger) >= one.cost(full)


@given(st.lists(fitting_usages(), min_size=2, max_size=2), tables())
def test_two_calls_together_cost_at_most_a_nano_unit_less_than_each(calls, table):
    one = price({kind: rate for kind, rate in table[0].items() if kind != "request"})
    apart = sum(map(one.cost, calls))
    assert apart - 1 <= one.cost(calls[0] + calls[1]) <= apart


@given(tables())
def test_no_tokens_cost_what_a_request_costs(table):
    written, given = table
    assert price(written).cost(Usage()) == rounded_up(given.get("request", Decimal(0)) * 10**9)


def test_the_largest_usage_costs_the_largest_amount():
    assert price({"input": "1000 USD", "output": "0 USD"}).cost(Usage(MOST, 0)) == MOST


@pytest.mark.parametrize(
    ("table", "usage", "nano"),
    [
        # 1000 * 2500
        ({"input": "2.50 USD", "output": "10 USD"}, Usage(1000, 0), 2_500_000),
        # 100 * 2500 + 900 * 1250 + 200 * 10000
        (
            {"input": "2.50 USD", "cached_input": "1.25 USD", "output": "10 USD"},
            Usage(1000, 200, 900),
            3_375_000,
        ),
        # a third of a nano-unit is one
        ({"input": "0.000333333333 USD", "output": "0 USD"}, Usage(1, 0), 1),
        ({"input": "0.00000013 USD", "output": "0 USD"}, Usage(1, 0), 1),
        ({"input": "0.00000013 USD", "output": "0 USD"}, Usage(7_692_307, 0), 1000),
        ({"input": "0.00000013 USD", "output": "0 USD"}, Usage(7_692_308, 0), 1001),
        # free, and free but for the request
        ({"input": "0 USD", "output": "0 USD"}, Usage(1000, 1000), 0),
        ({"request": "0.005 USD"}, Usage(1000, 1000), 5_000_000),
    ],
)
def test_cost_of_a_few_usages_by_hand(table, usage, nano):
    assert price(table).cost(usage) == nano


@pytest.mark.parametrize(
    ("usage", "rates"),
    [
        (Usage(1000, 1), {"input": "2.5", "cached_input": "1.25", "output": "10"}),
        (Usage(1001, 1), {"input": "5", "cached_input": "1.25", "output": "15"}),
        (Usage(5000, 1), {"input": "5", "cached_input": "1.25", "output": "15"}),
        (Usage(5001, 1), {"input": "7.5", "cached_input": "1.25", "output": "15"}),
        (Usage(1000, 1, service_tier="batch"), {"input": "1.25", "cached_input": "0.625", "output": "5"}),
        (Usage(5001, 1, service_tier="BATCH"), {"input": "3.75", "cached_input": "0.625", "output": "7.5"}),
        (Usage(1000, 1, service_tier="priority"), {"input": "4", "cached_input": "1.25", "output": "10"}),
        (Usage(1001, 1, service_tier="Priority"), {"input": "8", "cached_input": "1.25", "output": "10"}),
        (Usage(1000, 1, service_tier="standard"), {"input": "2.5", "cached_input": "1.25", "output": "10"}),
        (Usage(1000, 1, service_tier="made up"), {"input": "2.5", "cached_input": "1.25", "output": "10"}),
    ],
    ids=repr,
)
def test_rates_are_those_of_the_answers_tier_and_of_the_inputs_length(usage, rates):
    cost = price(TIERS).bill(usage)
    assert cost.rates == rates
    assert cost.nano == price(TIERS).cost(usage)
    expected = usage.input_tokens * Decimal(rates["input"]) * 1000 + Decimal(rates["output"]) * 1000
    assert cost.nano == expected


@pytest.mark.parametrize("tier", ["", "standard", "default", "auto", "x", "batch ", "\uff42atch"])
def test_a_tier_that_the_price_does_not_have_costs_the_standard(tier):
    assert price(TIERS).cost(Usage(10, 10, service_tier=tier)) == price(TIERS).cost(Usage(10, 10))


def test_images_and_requests_are_paid_by_the_piece():
    one = price({"request": "0.01 USD", "image": "0.04 USD"})
    assert one.cost(Usage(10, 10), images=3) == 130_000_000


def test_a_factor_is_of_tokens_only():
    one = price({"input": "1 USD", "output": "1 USD", "request": "0.01 USD", "tiers": {"batch": 0.5}})
    assert one.cost(Usage(10, 10, service_tier="batch")) == 10_000_000 + 10_000


def test_bill_says_what_it_came_to_and_by_what():
    cost = price(TIERS).bill(Usage(100, 10))
    assert cost == Cost(350_000, "USD", "model", "own table", {"input": "2.5", "cached_input": "1.25", "output": "10"})
    assert (str(cost), cost.unit) == ("0.00035 USD", "nano_usd")
    assert pickle.loads(pickle.dumps(cost)) == cost


def test_prices_are_immutable_hashable_and_equal_by_what_they_are():
    one, other = price(TIERS), price(TIERS)
    assert one is not other
    assert one == other
    assert hash(one) == hash(other)
    assert one != price({**TIERS, "output": "11 USD"})
    with pytest.raises(FrozenInstanceError):
        one.name = "other"


def settled(number, source):
    """So many random settlements: their costs, and what each comes to in decimals."""
    kinds = ("input", "output", *PARTS)
    given = {kind: Decimal(source.randint(0, 10**14)).scaleb(-12) for kind in kinds}
    book = [
        (price({kind: f"{rate:f} USD" for kind, rate in each.items()}), each)
        for each in (given, {kind: rate for kind, rate in given.items() if kind in ("input", "output", "reasoning")})
    ]
    for _ in range(number):
        parts = {field: source.choice((0, 0, source.randint(0, 10_000))) for field in PARTS.values()}
        inputs = sum(parts[field] for field in INPUT_PARTS.values()) + source.randint(0, 100_000)
        outputs = sum(parts[field] for field in OUTPUT_PARTS.values()) + source.randint(0, 10_000)
        one, rates = source.choice(book)
        usage = Usage(inputs, outputs, **parts)
        yield one.cost(usage), rounded_up(exact_sum(usage, rates))


def compare(number, seed):
    total = expected = 0
    for cost, decimal in settled(number, random.Random(seed)):
        assert cost == decimal
        total, expected = total + cost, expected + decimal
    assert total == expected > 0


def test_settlements_cost_what_decimals_say_and_so_do_their_sums():
    compare(20_000, seed=13)


@pytest.mark.slow
def test_a_million_settlements_cost_what_decimals_say_and_so_do_their_sums():
    compare(1_000_000, seed=14)


@given(st.lists(fitting_usages(), min_size=2, max_size=5), tables())
def test_more_tokens_never_cost_less(calls, table):
    one, total = price(table[0]), Usage()
    sums = [total := total + usage for usage in calls]
    assert all(one.cost(less) <= one.cost(more) for less, more in pairwise(sums))
