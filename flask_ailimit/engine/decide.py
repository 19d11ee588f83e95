"""One decision over all charges of a request: all are taken, or none. Pure; the stores bring state and time."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from .algorithms import ALGORITHMS, State
from .charge import Charge, Settlement
from .decision import Decision, Verdict


class Bucket(NamedTuple):
    """One count as a store keeps it.

    Attributes:
        state: The algorithm's numbers.
        expires_us: Microseconds since the epoch from which the count may be forgotten.
    """

    state: State
    expires_us: int


Record = dict[bytes, Bucket]
"""All counts of one subject, by bucket name."""

Changes = dict[bytes, Record]
"""The records to write, by subject; an empty record is to be deleted."""

Read = Callable[[bytes], Record]
"""Answers a fresh copy of a subject's record, empty if there is none."""


def decide(read: Read, charges: Sequence[Charge], now_us: int, lease: int) -> tuple[Decision, Changes]:
    """Answer the charges and, if every one fits, the records that taking them leaves behind.

    Charges of one request may share a count: each sees what the ones before it took.
    """
    records: Changes = {}
    changed: set[bytes] = set()
    verdicts = []
    for charge in charges:
        quota, subject, bucket = charge.quota, charge.subject, charge.bucket
        if subject not in records:
            records[subject] = read(subject)
        record = records[subject]
        algorithm = ALGORITHMS[quota.algorithm]
        state = record[bucket].state if bucket in record else ()
        step = algorithm.admit(state, now_us, quota, charge.cost, lease)
        if charge.dry:
            untouched = algorithm.admit(state, now_us, quota, 0, lease)
            step = step._replace(remaining=untouched.remaining, reset_after_us=untouched.reset_after_us)
        elif step.state is not state:
            record[bucket] = Bucket(step.state, algorithm.expires(step.state, quota))
            changed.add(subject)
        verdicts.append(Verdict(charge, step.allowed, step.remaining, step.reset_after_us, step.retry_after_us))
    decision = Decision(tuple(verdicts), now_us)
    if decision.allowed:
        return decision, {subject: records[subject] for subject in changed}
    return Decision(tuple(_untaken(read, verdict, now_us, lease) for verdict in verdicts), now_us), {}


def settle(read: Read, settlements: Iterable[Settlement], now_us: int) -> tuple[int, Changes]:
    """Answer how many counts were no longer known, and the records to write.

    What was used too much is charged even to a count that is gone; a refund to it is nothing.
    """
    unknown = 0
    changes: Changes = {}
    for settlement in settlements:
        charge = settlement.charge
        record = _record(read, changes, charge.subject)
        bucket = record.get(charge.bucket)
        unknown += bucket is None
        algorithm = ALGORITHMS[charge.quota.algorithm]
        state = algorithm.settle(
            bucket.state if bucket else (),
            now_us,
            charge.quota,
            settlement.taken_at_us,
            charge.cost,
            settlement.actual,
            settlement.lease,
        )
        _replace(record, charge, state)
    return unknown, changes


def renew(read: Read, leases: Iterable[tuple[Charge, int]], now_us: int) -> Changes:
    """Answer the records in which these leases run for a whole period from now."""
    changes: Changes = {}
    for charge, lease in leases:
        record = _record(read, changes, charge.subject)
        algorithm = ALGORITHMS[charge.quota.algorithm]
        if charge.bucket in record and algorithm.renew:
            _replace(record, charge, algorithm.renew(record[charge.bucket].state, now_us, charge.quota, lease))
    return changes


def _record(read: Read, changes: Changes, subject: bytes) -> Record:
    if subject not in changes:
        changes[subject] = read(subject)
    return changes[subject]


def _replace(record: Record, charge: Charge, state: State) -> None:
    if state:
        record[charge.bucket] = Bucket(state, ALGORITHMS[charge.quota.algorithm].expires(state, charge.quota))
    else:
        record.pop(charge.bucket, None)


def _untaken(read: Read, verdict: Verdict, now_us: int, lease: int) -> Verdict:
    """The verdict of a charge that fits but was not taken, because another one was refused."""
    if not verdict.allowed:
        return verdict
    charge = verdict.charge
    bucket = read(charge.subject).get(charge.bucket)
    step = ALGORITHMS[charge.quota.algorithm].admit(bucket.state if bucket else (), now_us, charge.quota, 0, lease)
    return Verdict(charge, True, step.remaining, step.reset_after_us, 0)
