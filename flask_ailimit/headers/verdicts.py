"""What the dialects share: the two counts that they report of a verdict."""

from flask_ailimit.engine.decision import Verdict


def most_and_left(verdict: Verdict) -> tuple[int, int]:
    """The most units that can be had at once, and how many of them are left.

    The first is the quota's burst, which is its limit unless the user says otherwise. Headers that have no
    word for a burst report it as the limit: a client then never sees more left than the limit.
    """
    burst = verdict.quota.burst
    return burst, min(verdict.remaining, burst)
