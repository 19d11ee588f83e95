import pytest

from flask_ailimit.engine import Charge, Decision, Quota, Verdict

SECOND = 1_000_000


def verdict(*, remaining=5, retry_after_us=0, limit=10, burst=None):
    charge = Charge(bytes(16), Quota(limit, 60, burst=burst), 3)
    return Verdict(charge, retry_after_us == 0, remaining, 7 * SECOND, retry_after_us)


SOON, LATER, NEVER = (verdict(remaining=1, retry_after_us=us) for us in (SECOND, 2_500_000, None))
FITS = verdict()


@pytest.mark.parametrize(
    ("verdicts", "allowed", "possible", "binding", "retry_after"),
    [
        ([], True, True, None, 0.0),
        ([FITS], True, True, FITS, 0.0),
        ([SOON, FITS, LATER], False, True, LATER, 2.5),
        ([SOON, NEVER, LATER], False, False, NEVER, None),
    ],
)
def test_decision_is_what_its_worst_verdict_says(verdicts, allowed, possible, binding, retry_after):
    decision = Decision(tuple(verdicts), 0)
    assert (decision.allowed, decision.possible, decision.retry_after) == (allowed, possible, retry_after)
    assert decision.binding is binding


def test_refusals_come_worst_first():
    assert Decision((SOON, FITS, NEVER, LATER), 0).refused == (NEVER, LATER, SOON)


def test_allowed_decision_is_bound_by_the_smallest_part_left():
    large = verdict(remaining=50, limit=1000)
    small = verdict(remaining=5, limit=10)
    assert Decision((small, large), 0).binding is large


def test_numbers_of_a_verdict_are_seconds_and_units():
    with_burst = verdict(remaining=3, limit=10, burst=4)
    assert (with_burst.limit, with_burst.used, with_burst.reset_after, with_burst.retry_after) == (10, 1, 7.0, 0.0)
    assert NEVER.retry_after is None
