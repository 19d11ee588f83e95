import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit.tokens import MAX_TOKENS, Usage
from flask_ailimit.tokens.usage import COUNTS, PARTS

counts = st.integers(0, MAX_TOKENS)
few = st.integers(0, 50)
tiers = st.sampled_from(["", "flex", "PRIORITY"])
BY_CACHE = ("cached_input_tokens", "cache_write_tokens", "cache_write_1h_tokens")
BY_MODALITY = ("audio_input_tokens", "image_input_tokens")
OF_OUTPUT = ("reasoning_tokens", "audio_output_tokens", "image_output_tokens")
TOGETHER = {"input_tokens": (BY_CACHE, BY_MODALITY), "output_tokens": (OF_OUTPUT,)}
clamped = st.builds(
    Usage.clamped,
    **dict.fromkeys(("input_tokens", "output_tokens", *PARTS), few | counts),
    service_tier=tiers,
)
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


@pytest.mark.parametrize("field", COUNTS)
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


@pytest.mark.parametrize("names", [BY_CACHE, BY_MODALITY, OF_OUTPUT], ids="-".join)
def test_parts_that_are_together_more_than_their_whole_are_an_error(names):
    with pytest.raises(ValueError, match=f"Got {6 * len(names)} of 10") as error:
        Usage.checked(10, 10, **dict.fromkeys(names, 6))
    assert all(name in str(error.value) for name in names)


def test_what_was_cached_may_be_sound():
    assert Usage.checked(10, 0, 10, audio_input_tokens=10).audio_input_tokens == 10


@pytest.mark.parametrize("tier", [None, 5, "x" * 33, "a\nb", b"flex", True])
def test_what_is_no_tier_is_an_error(tier):
    with pytest.raises(ValueError, match="service_tier"):
        Usage.checked(service_tier=tier)


def test_a_part_that_no_usage_has_is_an_error():
    with pytest.raises(TypeError, match="video_tokens"):
        Usage.checked(video_tokens=1)


@given(clamped)
def test_parts_are_never_more_than_their_whole(usage):
    assert usage == Usage.checked(**usage.counts, service_tier=usage.service_tier)


@given(st.fixed_dictionaries(dict.fromkeys(("input_tokens", "output_tokens", *PARTS), few)))
def test_only_parts_that_do_not_fit_are_cut(given):
    usage = Usage.clamped(**given)
    for whole, groups in TOGETHER.items():
        assert getattr(usage, whole) == given[whole]
        for names in groups:
            asked, kept = (sum(each[name] for name in names) for each in (given, usage.counts))
            assert kept == min(asked, given[whole])
            assert asked > given[whole] or all(usage.counts[name] == given[name] for name in names)


def test_cached_input_is_cut_before_what_was_written_to_the_cache():
    assert Usage.clamped(10, 0, 8, cache_write_tokens=6) == Usage(10, 0, 4, cache_write_tokens=6)


@given(clamped, clamped)
def test_a_sum_has_the_kinds_of_both_and_the_later_tier(one, other):
    total = one + other
    assert total == Usage.checked(**total.counts, service_tier=other.service_tier or one.service_tier)
    if one.total_tokens + other.total_tokens <= MAX_TOKENS:
        assert total.counts == {name: one.counts[name] + other.counts[name] for name in COUNTS}


@given(clamped)
def test_without_cached_keeps_the_rest_as_far_as_it_fits(usage):
    rest = usage.without_cached()
    left = usage.input_tokens - usage.cached_input_tokens
    assert (rest.input_tokens, rest.cached_input_tokens, rest.service_tier) == (left, 0, usage.service_tier)
    assert rest.image_input_tokens == min(usage.image_input_tokens, left)
    kept = ("output_tokens", "cache_write_tokens", "cache_write_1h_tokens", *OF_OUTPUT)
    assert all(getattr(rest, name) == getattr(usage, name) for name in kept)


@given(clamped, clamped)
def test_what_is_beyond_an_earlier_usage_adds_up_to_the_later_one(before, since):
    after = before + since
    if before.total_tokens + since.total_tokens <= MAX_TOKENS:
        assert after.beyond(before).counts == since.counts
        assert before.beyond(after) == Usage(service_tier=before.service_tier)
    assert after.beyond(before).service_tier == after.service_tier


def test_a_usage_shows_the_parts_that_it_has():
    assert repr(Usage(2, 1)) == "Usage(input_tokens=2, output_tokens=1, cached_input_tokens=0)"
    assert repr(Usage(2, 1, 1, 1, service_tier="flex")) == (
        "Usage(input_tokens=2, output_tokens=1, cached_input_tokens=1, cache_write_tokens=1, service_tier='flex')"
    )
