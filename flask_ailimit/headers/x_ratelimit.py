"""``X-RateLimit-Limit``, ``-Remaining``, ``-Reset``: the oldest dialect, one limit only.

The reset is in seconds since 1970, as GitHub and Flask-Limiter send it and Cohere's SDK reads it.
"""

from flask_ailimit.engine.decision import Decision, Verdict
from flask_ailimit.engine.quota import CONCURRENCY, is_money

from .durations import seconds_up
from .verdicts import most_and_left

NAMES = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


def x_ratelimit_headers(decision: Decision) -> list[tuple[str, str]]:
    """Report the binding verdict; its reset is when the count is as if never used, rounded up to a second."""
    verdict = _reported(decision)
    if verdict is None:
        return []
    limit, remaining = most_and_left(verdict)
    reset = seconds_up(decision.at_us + verdict.reset_after_us)
    limit_name, remaining_name, reset_name = NAMES
    return [(limit_name, str(limit)), (remaining_name, str(remaining)), (reset_name, str(reset))]


def _reported(decision: Decision) -> Verdict | None:
    # An amount of money is no number that a client of this dialect would understand.
    # A free slot has no reset worth planning for: while all is well, a limit with a period says more.
    timed = [unit for unit in decision.units if unit != CONCURRENCY and not is_money(unit)]
    others = [unit for unit in decision.units if not is_money(unit)]
    if not decision.allowed:
        timed = others
    return decision.binding_of(timed or others)
