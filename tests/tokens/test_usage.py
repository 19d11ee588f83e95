import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit.tokens import MAX_TOKENS, Usage

counts = st.integers(0, MAX_TOKENS)
NO_COUNTS = [True, False, -1, 1.0, 0.5, math.nan, math.inf, "5", "", None, b"5", [], {}, 2**53, 10**400]


def test_total_is_input_and_output():
    assert Usage(10, 5, 4).total_tokens == 15


@pytest.mark.parametrize(("unit", "expected"), [("tokens", 15), ("input_tokens", 10), ("output_tokens", 5)])
def test_a_quota_is_charged_in_its_unit(unit, expected):
    assert Usage(10, 5, 4).of(unit) == expected


@pytest.mark.parametrize("unit", ["requests", "concurrency", "", "Tokens", "x" * 1000])
def test_a_unit_that_counts_no_tokens_is_an_error_that_names_those_that_do(unit):
    with pytest.raises(ValueError, match="'tokens', 'input_tokens' or 'output_tokens'") as error:
        Usage().of(unit)
    assert len(str(error.value)) < 150


def test_without_cached_leaves_out_what_was_read_from_the_cache():
    assert Usage(10, 5, 4).without_cached() == Usage(6, 5)


def test_usages_add_up():
    assert Usage(10, 5, 4) + Usage(1, 2) == Usage(11, 7, 4)


@given(st.builds(Usage, counts, counts), st.builds(Usage, counts, counts))
def test_a_sum_can_always_be_charged(one, other):
    total = one + other
    assert total == Usage.checked(total.input_tokens, total.output_tokens)
    assert total.of("tokens") == min(MAX_TOKENS, one.total_tokens + other.total_tokens)


@given(counts)
def test_every_count_from_zero_to_the_largest_is_taken(count):
    assert Usage.checked(count) == Usage(count)


@pytest.mark.parametrize("field", ["input_tokens", "output_tokens", "cached_input_tokens"])
@pytest.mark.parametrize("value", NO_COUNTS, ids=lambda value: f"{value!r:.12}")
def test_what_is_no_count_is_an_error_that_names_the_field(field, value):
    with pytest.raises(ValueError, match=f"^{field}: a whole number of tokens"):
        Usage.checked(**{field: value})


def test_an_error_never_shows_a_text():
    with pytest.raises(ValueError, match=r"Got str\.$"):
        Usage.checked("sk-secret")


def test_more_cached_than_read_is_an_error():
    with pytest.raises(ValueError, match="Got 11 of 10"):
        Usage.checked(10, 0, 11)


def test_a_total_beyond_the_largest_count_is_an_error():
    with pytest.raises(ValueError, match="together"):
        Usage.checked(MAX_TOKENS, 1)
