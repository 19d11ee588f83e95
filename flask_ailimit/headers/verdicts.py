"""What the dialects share: which verdict speaks for a unit, and the two counts it reports."""

from collections.abc import Container

from flask_ailimit.engine.decision import Decision, Verdict


def binding_of(decision: Decision, units: Container[str]) -> Verdict | None:
    """The verdict that matters most among those of ``units``; None if the decision has none of them."""
    verdicts = tuple(verdict for verdict in decision.verdicts if verdict.quota.unit in units)
    return Decision(verdicts, decision.at_us).binding if verdicts else None


def most_and_left(verdict: Verdict) -> tuple[int, int]:
    """The most units that can be had at once, and how many of them are left.

    The first is the quota's burst, which is its limit unless the user says otherwise. Headers that have no
    word for a burst report it as the limit: a client then never sees more left than the limit.
    """
    burst = verdict.quota.burst
    return burst, burst - verdict.used
