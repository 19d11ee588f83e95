"""One decision over all charges of a request: all are taken, or none. Pure; the stores bring state and time."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from .algorithms import ALGORITHMS, State
from .algorithms.base import new
from .charge import Charge, Settlement
from .decision import Decision, Verdict
from .quota import Quota


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

_NO_LEASE = -1

Read = Callable[[bytes], Record]
"""Answers a subject's record, empty if there is none. It is read, and never changed."""


def decide(read: Read, charges: Sequence[Charge], now_us: int, lease: int) -> tuple[Decision, Changes]:
    """Answer the charges and, if every one fits, the records that taking them leaves behind.

    Charges of one request may share a count: each is answered as one charge together with those before it. A refusal
    changes nothing, save that a count from the future, where the clock went back, is brought to the present: else
    every refusal until then would find it as it was.
    """
    opened: dict[bytes, tuple[Record, dict[bytes, int], Record]] = {}
    subject = b""
    verdicts = []
    for charge in charges:
        payer, quota, cost, scope, dry, _ = charge
        if payer != subject:
            subject = payer
            if subject not in opened:
                opened[subject] = read(subject), {}, {}
            record, asked, taken = opened[subject]
        bucket = quota.bucket(scope)
        state = record[bucket][0] if bucket in record else ()
        before = asked.get(bucket, 0)
        admit = ALGORITHMS[quota.algorithm].admit
        fits, after, remaining, reset_us, retry_us = admit(state, now_us, quota, before + cost, lease)
        if dry:
            _, _, remaining, reset_us, _ = admit(state, now_us, quota, before, lease)
        else:
            asked[bucket] = before + cost
            if after is not state:
                # A count is as if never used once it is reset: from then on it may be forgotten.
                taken[bucket] = new(Bucket, (after, now_us + reset_us))
        verdicts.append(new(Verdict, (charge, fits or not cost, remaining, reset_us, retry_us, None)))
    decision = Decision(tuple(verdicts), now_us)
    if decision.allowed:
        changes: Changes = {}
        for subject, (record, _, taken) in opened.items():
            if taken:
                changes[subject] = record | taken
        return decision, changes
    records = {subject: record for subject, (record, _, _) in opened.items()}
    untaken = [_untaken(records[verdict.charge.subject], verdict, now_us, lease) for verdict in verdicts]
    return Decision(tuple(untaken), now_us), _from_the_future(records, charges, now_us)


def settle(read: Read, settlements: Iterable[Settlement], now_us: int) -> tuple[int, Changes]:
    """Answer how many counts were no longer known, and the records to write.

    What was used too much is charged even to a count that is gone; a refund to it is nothing.
    """
    unknown = 0
    changes: Changes = {}
    for settlement in settlements:
        charge = settlement.charge
        quota, bucket = charge.quota, charge.bucket
        record = _record(read, changes, charge.subject)
        algorithm, state = ALGORITHMS[quota.algorithm], _state(record, bucket)
        unknown += not state or algorithm.expires(state, quota) <= now_us
        settled = algorithm.settle(
            state, now_us, quota, settlement.taken_at_us, charge.cost, settlement.actual, settlement.lease
        )
        _replace(record, bucket, quota, settled)
    return unknown, changes


def renew(read: Read, leases: Iterable[tuple[Charge, int]], now_us: int) -> Changes:
    """Answer the records in which these leases run for a whole period from now."""
    changes: Changes = {}
    for charge, lease in leases:
        quota, bucket = charge.quota, charge.bucket
        record = _record(read, changes, charge.subject)
        algorithm = ALGORITHMS[quota.algorithm]
        if bucket in record and algorithm.renew:
            _replace(record, bucket, quota, algorithm.renew(record[bucket].state, now_us, quota, lease))
    return changes


def _record(read: Read, changes: Changes, subject: bytes) -> Record:
    if subject not in changes:
        changes[subject] = read(subject).copy()
    return changes[subject]


def _replace(record: Record, bucket: bytes, quota: Quota, state: State) -> None:
    if state:
        record[bucket] = Bucket(state, ALGORITHMS[quota.algorithm].expires(state, quota))
    else:
        record.pop(bucket, None)


def _state(record: Record, bucket: bytes) -> State:
    return record[bucket].state if bucket in record else ()


def _untaken(record: Record, verdict: Verdict, now_us: int, lease: int) -> Verdict:
    """The verdict when nothing is taken, because this charge or another one was refused."""
    charge = verdict.charge
    algorithm = ALGORITHMS[charge.quota.algorithm]
    step = algorithm.admit(_state(record, charge.bucket), now_us, charge.quota, 0, lease)
    wait = 0 if verdict.allowed else verdict.retry_after_us
    return Verdict(charge, verdict.allowed, step.remaining, step.reset_after_us, wait)


def _from_the_future(records: Changes, charges: Iterable[Charge], now_us: int) -> Changes:
    """The records of counts that end earlier once they are brought to the present: their clock went back."""
    changes: Changes = {}
    for charge in charges:
        quota, bucket, record = charge.quota, charge.bucket, records[charge.subject]
        algorithm = ALGORITHMS[quota.algorithm]
        state = _state(record, bucket)
        present = algorithm.settle(state, now_us, quota, now_us, 0, 0, _NO_LEASE)
        if present and algorithm.expires(present, quota) < algorithm.expires(state, quota):
            _replace(changes.setdefault(charge.subject, record.copy()), bucket, quota, present)
    return changes
