"""What is replayed: loads, limits and policies. The limits were searched for; what they refuse is worked out."""

from dataclasses import dataclass

from arrivals import SECOND
from borrower import Policy

from flask_ailimit.engine import Quota
from flask_ailimit.engine.quota import REQUESTS, TOKENS

EXACT = Policy("exact", flush_us=0)
BATCHED = Policy("settlements batched")
BULK = Policy("bulk", horizon_us=20 * SECOND, reach=1 / 16)
RATES = Policy("bulk and rate", horizon_us=20 * SECOND, reach=1 / 16, rates=0.9, memory_us=SECOND)
SMALL = Policy("chunks of 1 %", share=0.01, guard=16)
LARGE = Policy("chunks of 5 %", share=0.05, guard=4)
MAIN = (BATCHED, BULK, RATES)

SECONDS = {1: 3600, 10: 360, 100: 120}
"""How much of the trace is replayed, by the number of copies that are laid over each other."""


@dataclass(frozen=True)
class Case:
    """One load under one limit.

    Attributes:
        copies: How many times as dense as the trace.
        subjects: How many share the load, by Zipf's law.
        limit: Of each, per minute.
        workers: How many decide by themselves.
        routing: See :func:`arrivals.assigned`.
        algorithm: Of the quota.
        max_output: Tokens reserved for an answer; None for a limit on requests.
        bursts: What arrives in five minutes arrives in their first 20 s.
        policies: What is tried.
    """

    copies: int
    subjects: int
    limit: int
    workers: int = 8
    routing: str = "even"
    algorithm: str = "token-bucket"
    max_output: int | None = 1024
    bursts: bool = False
    policies: tuple[Policy, ...] = MAIN

    @property
    def quota(self) -> Quota:
        """The limit of each subject."""
        return Quota(self.limit, 60, REQUESTS if self.max_output is None else TOKENS, self.algorithm)

    @property
    def label(self) -> str:
        """What is special about it."""
        notes = [] if (self.workers, self.routing) == (8, "even") else [f"{self.workers} workers, {self.routing}"]
        notes += ["requests"] * (self.max_output is None) + ["window"] * (self.algorithm == "fixed-window")
        notes += ["bursts"] * self.bursts + ["overruns"] * (self.max_output == 256)
        return ", ".join(notes)


BY_LOAD = (
    *(Case(1, 1, limit) for limit in (810_000, 516_000, 312_000)),
    *(Case(1, 100, limit) for limit in (156_000, 72_000, 24_000)),
    Case(1, 1000, 42_000),
    *(Case(10, 1, limit) for limit in (5_040_000, 3_846_000, 2_766_000)),
    Case(10, 10, 1_176_000),
    *(Case(10, 100, limit) for limit in (975_000, 600_000, 156_000)),
    Case(10, 1000, 360_000),
    Case(100, 1, 30_270_000, policies=(BULK, RATES)),
    Case(100, 100, 4_860_000, policies=(BULK, RATES)),
)
VARIED = (
    Case(10, 1, 3_846_000, policies=(SMALL, LARGE)),
    Case(10, 1, 3_846_000, workers=2, policies=(BULK, RATES)),
    Case(10, 1, 3_846_000, workers=32, policies=(BULK, RATES)),
    Case(10, 1, 3_846_000, routing="skewed", policies=(BULK, RATES)),
    Case(10, 100, 600_000, workers=2, policies=(BULK, RATES)),
    Case(10, 100, 600_000, routing="sticky", policies=(BULK, RATES)),
    Case(10, 1, 4_200_000, algorithm="fixed-window", policies=(BULK,)),
    Case(10, 1, 2_760, max_output=None, policies=(BULK, RATES)),
    Case(10, 1, 3_240, max_output=None, algorithm="fixed-window", policies=(BULK,)),
    Case(10, 100, 540, max_output=None, algorithm="fixed-window", policies=(BULK,)),
    Case(1, 1, 2_300_000, bursts=True, policies=(BULK, RATES)),
    Case(10, 1, 3_600_000, max_output=256, policies=(BULK, RATES)),
)
