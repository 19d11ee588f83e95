"""Would it pay to lend workers a part of a quota, so that not every decision is a trip to Redis?

    python bench/lease_mode [path of the trace]

The trace is not part of the project; see arrivals.py for its source. Everything else is worked out, nothing is measured
in time: the same figures come out each time. What is meant by each column is in docs/lease-mode.md.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from arrivals import Arrival, Request, assigned, in_bursts, overlaid, read_trace
from cases import BY_LOAD, EXACT, SECONDS, VARIED, Case
from judge import judged
from replaying import companions, fairness, first_calls, replay

TRACE = Path(__file__).parents[3] / "shared" / "data" / "azure_llm_conversations_2023.csv"
SEED = 1
LEASE_US = EXACT.lease_us
FEWER, EARLY = 10, 0.02
"""It is built if it needs so many times fewer trips, and refuses no more than this part of all requests too early."""


def requests_of(case: Case, trace: list[Arrival]) -> list[Request]:
    """The load of one case."""
    rows = in_bursts(trace, 300, 20) if case.bursts else overlaid(trace, case.copies, SECONDS[case.copies])
    return assigned(
        rows,
        max_output=case.max_output,
        subjects=case.subjects,
        workers=case.workers,
        routing=case.routing,
        seed=SEED,
    )


def early(exact: Sequence[bool], other: Sequence[bool]) -> int:
    """How many were refused that the limiter of today admits."""
    return sum(a and not b for a, b in zip(exact, other, strict=True))


def show(case: Case, trace: list[Arrival]) -> None:
    """A line for the case, and one for each policy."""
    requests = requests_of(case, trace)
    count, exact = len(requests), replay(requests, case.quota, EXACT)
    refused = count - sum(exact.admitted)
    findings = judged(requests, exact.admitted, case.quota)
    near = max(1, findings.near)
    ceiling = exact.trips / first_calls(requests, LEASE_US)
    print(
        f"{case.copies:>4}x {case.subjects:>5} {case.limit:>11,} {refused / count:>8.2%} {ceiling:>7.1f}x "
        f"{exact.trips / count:>6.2f}  {'exact':22}{'1.0x':>7} {0:>7.2%} {0:>7.2%} "
        f"{refused / count:>8.2%} {findings.granted_beyond:>5} {fairness(requests, exact.admitted):>7.4f}  {case.label}"
    )
    for policy in case.policies:
        outcome = replay(requests, case.quota, policy)
        beyond = judged(requests, outcome.admitted, case.quota).granted_beyond
        fewer, lost = exact.trips / outcome.trips, early(exact.admitted, outcome.admitted)
        meets = fewer >= FEWER and lost / count <= EARLY and not beyond
        print(
            f"{'':48}{policy.name:22}{fewer:>6.1f}x {lost / count:>7.2%} {lost / near:>7.2%} "
            f"{1 - sum(outcome.admitted) / count:>8.2%} {beyond:>5} {fairness(requests, outcome.admitted):>7.4f}"
            f"{'  meets the criteria' if meets else ''}",
            flush=True,
        )


def main(path: Path) -> None:
    try:
        trace = read_trace(path)
    except FileNotFoundError as error:
        sys.exit(str(error))
    print(f"{len(trace):,} requests in {trace[-1].at_us / 1e6:,.0f} s. AzurePublicDataset, CC BY 4.0, Microsoft.\n")
    print(
        f"{'load':>5} {'subj.':>5} {'limit/min':>11} {'refused':>8} {'ceiling':>8} {'trips':>6}  {'policy':22}"
        f"{'fewer':>7} {'early':>7} {'of near':>7} {'refused':>8} {'over':>5} {'Jain':>7}"
    )
    for case in (*BY_LOAD, *VARIED):
        show(case, trace)
    print("\nRequests that come to a worker within 1 ms of another one, and could share its trip:")
    for copies, seconds in SECONDS.items():
        case = Case(copies, 1, 1)
        requests = requests_of(case, trace)
        print(
            f"{copies:>4}x, {len(requests) / seconds:.0f} a second on {case.workers}: {companions(requests, 1000):.2%}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else TRACE)
