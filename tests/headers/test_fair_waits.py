"""Of several clients that are refused at once, none is always the last."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit.engine import Charge, Quota, Verdict
from flask_ailimit.http.responses import LONGEST_RETRY, fair_wait_us, parse_retry_count

SECOND = 1_000_000
A_MINUTE = Charge(b"0123456789abcdef", Quota(10, 60, algorithm="fixed-window"))
IN_FLIGHT = Charge(b"0123456789abcdef", Quota(2, 60, "concurrency", "concurrency"))

waits = st.integers(1, LONGEST_RETRY * SECOND)
tries = st.integers(0, 50)


def refused(charge, wait_us):
    return Verdict(charge, False, 0, 60 * SECOND, wait_us)


@given(waits, tries)
def test_wait_of_a_limit_over_time_is_at_most_a_second_longer_than_the_true_one(wait_us, tried):
    assert wait_us <= fair_wait_us(refused(A_MINUTE, wait_us), tried) < wait_us + SECOND


@given(waits, tries)
def test_who_was_refused_more_often_never_comes_later(wait_us, tried):
    verdict = refused(A_MINUTE, wait_us)
    assert fair_wait_us(verdict, tried + 1) <= fair_wait_us(verdict, tried)


@given(waits, tries)
def test_wait_that_clients_obey_stays_one(wait_us, tried):
    for charge in (A_MINUTE, IN_FLIGHT):
        assert fair_wait_us(refused(charge, wait_us), tried) <= LONGEST_RETRY * SECOND


@given(st.integers(1, 10**12))
def test_client_that_counts_no_tries_is_told_the_true_wait(wait_us):
    assert fair_wait_us(refused(A_MINUTE, wait_us), None) == wait_us
    assert fair_wait_us(refused(IN_FLIGHT, wait_us), None) == wait_us


@pytest.mark.parametrize(("tried", "seconds"), [(0, 1), (1, 2), (2, 4), (3, 8), (4, 16), (9, 16)])
def test_guess_at_a_slot_doubles_from_try_to_try(tried, seconds):
    assert fair_wait_us(refused(IN_FLIGHT, SECOND), tried) == seconds * SECOND


def test_request_that_never_fits_has_no_wait_however_often_it_is_tried():
    assert fair_wait_us(refused(A_MINUTE, None), 3) is None


@pytest.mark.parametrize(
    ("header", "count"),
    [(None, None), ("", None), ("0", 0), ("12", 12), ("-1", None), ("1.5", None), ("\u0663", None), ("9" * 5000, None)],
)
def test_tries_are_read_from_a_whole_number_and_nothing_else(header, count):
    assert parse_retry_count(header) == count
