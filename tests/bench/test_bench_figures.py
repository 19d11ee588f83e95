"""The arithmetic of the bench, on numbers that one can check by hand."""

import json
from statistics import median

import pytest
from figures import (
    FULL,
    MEETS,
    MISSES,
    NOT_MEASURED,
    SHOWN,
    Figure,
    Size,
    added,
    compared,
    here_and_there,
    not_measured,
    ratios,
    scaled,
)
from hypothesis import given
from hypothesis import strategies as st
from racing import Work, orders, race
from reporting import aim_of, markdown, measured, missed_line, number, raw, spread_of

MACHINE = {"day": "2026-01-01", "python": "P", "system": "S", "processor": "C", "cores": 2, "packages": {"flask": "3"}}


def test_ratio_is_taken_block_by_block():
    assert ratios([2, 30], [4, 10]) == [0.5, 3]


def test_blocks_that_have_no_partner_are_an_error():
    with pytest.raises(ValueError, match="shorter"):
        ratios([1, 2], [1])


def test_added_is_what_the_bare_request_of_the_same_block_does_not_take():
    assert added([150, 400], [100, 200]) == [50, 200]


def test_scaled_is_what_it_would_be_where_a_bare_request_takes_48_us():
    assert scaled([100, 100], [96, 48]) == [50, 100]


@pytest.mark.parametrize(
    ("samples", "aim", "at_least", "verdict"),
    [
        ([0.2, 0.3, 9.0], 0.3, False, MEETS),
        ([0.2, 0.31, 0.1, 0.5], 0.25, False, MISSES),
        ([0.9, 0.95, 0.1], 0.9, True, MEETS),
        ([0.89], 0.9, True, MISSES),
        ([5.0], None, False, SHOWN),
        ([], 1.0, False, NOT_MEASURED),
    ],
)
def test_median_is_judged_against_the_aim(samples, aim, at_least, verdict):
    assert Figure("f", samples, "x", aim, at_least).verdict == verdict


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=30), st.floats(0.01, 100), st.booleans())
def test_part_of_the_aim_is_above_one_where_the_aim_is_missed(samples, aim, at_least):
    figure = Figure("f", samples, "x", aim, at_least)
    if figure.verdict == MISSES:
        assert figure.of_aim > 1
    else:
        assert figure.of_aim <= 1


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=30))
def test_median_lies_in_the_middle_half(samples):
    low, high = Figure("f", samples).middle_half
    assert low <= median(samples) * (1 + 1e-9)
    assert high >= median(samples) * (1 - 1e-9)
    assert min(samples) <= low <= high <= max(samples) or low == pytest.approx(high)


def test_middle_half_leaves_out_what_was_disturbed():
    assert Figure("f", [1, 2, 3, 4, 1000]).middle_half == (2, 4)


@pytest.mark.parametrize(("waits", "judged", "beside"), [(True, [2.0], "4.00"), (False, [4.0], "2.00")])
def test_what_waits_is_judged_by_the_clock_and_the_rest_by_the_processor(waits, judged, beside):
    wall, processor = {"ours": [20.0], "peer": [10.0]}, {"ours": [4.0], "peer": [1.0]}
    figure = compared("f", "ours", "peer", (wall, processor), 3.0, waits=waits, remark="why")
    assert figure.samples == judged
    assert figure.times["ours"] == (wall if waits else processor)["ours"]
    assert figure.remark.startswith("why; ")
    assert beside in figure.remark


def test_time_is_judged_here_and_as_on_the_reference_machine():
    plain, there = here_and_there(Figure("f", [100.0], "ms", 75.0), [96.0])
    assert (plain.samples, plain.verdict) == ([100.0], MISSES)
    assert (there.samples, there.verdict) == ([50.0], MEETS)
    assert "96 us" in plain.remark


@pytest.mark.parametrize(("size", "parts"), [(FULL, (1000, 30)), (Size(10, 0.01), (10, 5)), (Size(1, 0.0001), (1, 1))])
def test_size_makes_less_of_everything(size, parts):
    assert (size.part(1000), min(30, size.rounds(1 if size is FULL else 0.5))) == parts


def test_everybody_goes_first_and_nobody_follows_the_same_one_always():
    turns = [*orders(["a", "b", "c"], 6)]
    assert {turn[0] for turn in turns} == {"a", "b", "c"}
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)
    before = {each: {turn[turn.index(each) - 1] for turn in turns if turn.index(each)} for each in "abc"}
    assert all(len(others) > 1 for others in before.values())


def test_race_gives_a_value_for_each_block_of_each_contestant():
    cleaned = []
    contestants = {
        "little": lambda: Work(lambda: sum(range(100)), after=lambda: cleaned.append(1)),
        "much": lambda: Work(lambda: sum(range(100_000))),
    }
    wall, processor = race(contestants, Size(3), 5)
    assert {name: len(times) for name, times in wall.items()} == {"little": 3, "much": 3}
    assert median(ratios(processor["much"], processor["little"])) > 10
    assert cleaned == []  # A contestant's process is its own.


def test_contestant_that_fails_is_named():
    def fails():
        raise ValueError("the store is away")

    with pytest.raises(RuntimeError, match=r"ours: ValueError: the store is away"):
        race({"ours": lambda: Work(fails)}, Size(1), 1)


def test_contestant_whose_process_ends_is_named():
    with pytest.raises(RuntimeError, match=r"ours: its process ended"):
        race({"ours": lambda: Work(lambda: __import__("os")._exit(3))}, Size(1), 1)


FIGURES = {
    "Family": [
        Figure("good | one", [0.2, 0.25, 0.3], "x", 0.3, times={"peer": [391.4]}, remark="r"),
        Figure("bad", [0.5], "x", 0.9, at_least=True),
        not_measured("gone", "token-throttle could not be installed"),
    ]
}


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (0.25361, "0.254"), (12.345, "12.3"), (123456.7, "123,457")])
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


def test_row_says_aim_median_and_spread():
    good, bad, gone = FIGURES["Family"]
    assert (aim_of(good), measured(good), spread_of(good)) == ("≤ 0.3 x", "0.25 x", "0.225 to 0.275")
    assert (aim_of(bad), measured(bad), spread_of(bad)) == ("≥ 0.9 x", "0.5 x", "")
    assert (aim_of(gone), measured(gone), spread_of(gone)) == ("", "", "")


def test_table_names_what_misses_and_why_something_is_not_there():
    page = markdown(FIGURES, MACHINE)
    assert "1 figure misses its aim:\n- bad: 0.5 x, aim ≥ 0.9 x" in page
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert {row.replace("\\|", "").count("|") for row in rows} == {8}
    assert "token-throttle could not be installed" in page


def test_nothing_is_missed_when_nothing_is():
    assert missed_line({"Family": FIGURES["Family"][:1]}) == "Every figure is where its aim says."


def test_raw_numbers_can_be_read_back():
    told = json.loads(raw(FIGURES, MACHINE, {"Family": 1.23}))
    assert [figure["samples"] for figure in told["figures"]] == [[0.2, 0.25, 0.3], [0.5], []]
    assert told["figures"][0]["microseconds"] == {"peer": [391.4]}
    assert told["machine"]["packages"] == {"flask": "3"}
