"""One decision over all charges of a request: all are taken, or none. Pure; the stores bring state and time."""

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from .algorithms import ALGORITHMS, State
from .algorithms.base import new
from .algorithms.budget import used_of_grants
from .charge import Charge, Settlement
from .clock import MICROSECONDS
from .decision import Decision, Settled, Verdict
from .notice import NOTICE, notice_of
from .quota import LATEST_SECOND, Quota

MOST_COUNTS = 512
"""How many counts of one subject may live at once: a client can make up scopes, and each decision reads them all."""


class Counted(Protocol):
    """One count as a store keeps it.

    Attributes:
        state: The algorithm's numbers.
        expires_us: Microseconds since the epoch, a whole second, from which the count may be forgotten.
    """

    @property
    def state(self) -> State:  # noqa: D102  see the class
        ...

    @property
    def expires_us(self) -> int:  # noqa: D102  see the class
        ...


class Bucket(NamedTuple):
    """A count, see :class:`Counted`."""

    state: State
    expires_us: int


Record = dict[bytes, Counted]
"""All counts of one subject, by bucket name."""

Changes = dict[bytes, Record]
"""The records to write, by subject; an empty record is to be deleted."""

_MOST_WITH_TRIED = MOST_COUNTS // 2
"""Beyond so many counts none begins that is only tried, so that those of limits that hold find a place."""

_LATEST_US = LATEST_SECOND * MICROSECONDS
_NO_LEASE = -1

Read = Callable[[bytes], Record]
"""Answers a subject's record, empty if there is none. It is read, and never changed."""


def decide(read: Read, charges: Sequence[Charge], now_us: int, lease: int) -> tuple[Decision, Changes]:
    """Answer the charges and, if every one fits, the records that taking them leaves behind.

    Charges of one request may share a count: each is answered as one charge together with those before it. A refusal
    takes nothing, but some counts it brings to the present: one from the future, where the clock went back, because
    every refusal until then would find it as it was, and one under another limit than before, because the wait that is
    told must be true, and it may end later than was noted.

    A charge whose count would be one more than :data:`MOST_COUNTS` is refused until so many have ended that there is
    room for it. To forget another count in its favour would forget what that one's subject owes.

    A shadow charge that doesn't fit, or whose count finds no place, is not taken, and the others are as if it weren't.
    """
    opened: dict[bytes, _Opened] = {}
    verdicts = _each_alone(read, charges, now_us, lease, opened)
    crowded_out = _crowded_out(opened, verdicts, now_us)
    for place, verdict in crowded_out.items():
        verdicts[place] = verdict
    decision = Decision(tuple(verdicts), now_us)
    if decision.allowed:
        changes: Changes = {}
        for subject, (record, _, taken, _) in opened.items():
            if taken:
                changes[subject] = alive(record, now_us) | taken
        return decision, changes
    records = {subject: record for subject, (record, *_) in opened.items()}
    changes = {}
    for place, verdict in enumerate(verdicts):
        untaken = _untaken(records, verdict, now_us, lease, changes)
        is_crowded_out = place in crowded_out
        verdicts[place] = verdict._replace(spending=untaken.spending) if is_crowded_out else untaken
    return Decision(tuple(verdicts), now_us), changes


def _each_alone(
    read: Read, charges: Sequence[Charge], now_us: int, lease: int, opened: "dict[bytes, _Opened]"
) -> list[Verdict]:
    """The answer of each charge's count, noting in ``opened`` what is known of each subject."""
    subject = b""
    verdicts = []
    for charge in charges:
        payer, quota, cost, scope, dry, _, floor, shadow = charge
        if payer != subject:
            subject = payer
            record, asked, taken, wanted = opened.get(subject) or _open(subject, read, opened)
        bucket = quota.bucket(scope)
        if quota.credit:
            quota = _with_credit_left(record, charge, now_us)
        state = _state(record, bucket, now_us)
        before = asked.get(bucket, 0)
        algorithm = ALGORITHMS[quota.algorithm]
        admit, spending = algorithm.admit, algorithm.spending
        step = admit(state, now_us, quota, before + cost, lease)
        if floor:
            kept = min(floor, max(0, quota.burst - before - cost))
            with_floor = admit(state, now_us, quota, before + cost + kept, lease)
            step = step if with_floor.allowed else with_floor
        fits, after, remaining, reset_us, retry_us = step
        if shadow and not (fits and _has_place(bucket, record, taken, wanted, now_us)):
            wait_us = None if fits else retry_us
            left = max(0, remaining - floor)
            verdicts.append(_told(charge, quota, False, left, reset_us, wait_us, state, now_us))
            continue
        if after is not state and not dry:
            # A count is as if never used once it is reset: from then on it may be forgotten.
            taken[bucket] = new(Bucket, (after, _second(now_us + reset_us)))
        elif after is not state or not fits:
            wanted.add(bucket)
        if dry:
            _, after, remaining, reset_us, _ = admit(state, now_us, quota, before, lease)
        else:
            asked[bucket] = before + cost
        left = remaining - floor if remaining > floor else 0
        if spending:
            verdicts.append(_told(charge, quota, fits, left, reset_us, retry_us, after, now_us))
        else:
            verdicts.append(new(Verdict, (charge, fits, left, reset_us, retry_us, None, None)))
    return verdicts


def _open(subject: bytes, read: Read, opened: "dict[bytes, _Opened]") -> "_Opened":
    opened[subject] = new(_Opened, (read(subject), {}, {}, set()))
    return opened[subject]


def _has_place(bucket: bytes, record: Record, taken: Record, wanted: set[bytes], now_us: int) -> bool:
    """Whether a count that is only tried is in the record, or finds a place there."""
    if len(record) + len(taken) + len(wanted) < _MOST_WITH_TRIED:
        return True
    living = alive(record, now_us).keys()
    return bucket in living or len(living | taken.keys() | wanted | {bucket}) <= _MOST_WITH_TRIED


def settle(
    read: Read, settlements: Iterable[Settlement], now_us: int, *, is_heard: bool = True
) -> tuple[Settled, Changes]:
    """Answer how many counts were no longer known and which have passed their soft percent, and the records to write.

    What was used too much is charged even to a count that is gone; a refund to it is nothing. A settlement that leaves
    its count above the soft percent writes a notice into the same record, unless there is one; so one settlement of
    all workers is told in each window. A settlement of nothing (``actual`` 0) is never told: that is how a store gives
    back by itself what nobody asked it to. Nor is one of a limit that is only tried; with ``is_heard`` False, none is.
    """
    unknown = 0
    passed: list[Verdict] = []
    below: list[Charge] = []
    changes: Changes = {}
    for settlement in settlements:
        charge = settlement.charge
        quota, bucket = charge.quota, charge.bucket
        record = _record(read, changes, charge.subject, now_us)
        if quota.credit:
            quota = _with_credit_left(record, charge, now_us)
        algorithm, state = ALGORITHMS[quota.algorithm], _state(record, bucket, now_us)
        unknown += not state or algorithm.expires(state, quota) <= now_us
        settled = algorithm.settle(
            state, now_us, quota, settlement.taken_at_us, charge.cost, settlement.actual, settlement.lease
        )
        _replace(record, bucket, quota, settled)
        if quota.soft_left >= 0 and settlement.actual and not charge.shadow and is_heard:
            step = algorithm.admit(settled, now_us, quota, 0, _NO_LEASE)
            known = algorithm.spending and algorithm.spending(settled, now_us, quota)
            reset_us = known.ends_us - now_us if known else step.reset_after_us
            if step.remaining > quota.soft_left:
                if settlement.actual == charge.cost:
                    below.append(charge)
            elif _noticed(record, charge, reset_us, now_us):
                passed.append(Verdict(charge, True, step.remaining, reset_us, 0))
    return Settled(unknown, tuple(passed), tuple(below)), changes


def renew(read: Read, held: Iterable[tuple[Charge, Container[int]]], now_us: int) -> Changes:
    """Answer the records in which the leases that are held of each count run for a whole period from now."""
    changes: Changes = {}
    for charge, leases in held:
        quota, bucket = charge.quota, charge.bucket
        record = _record(read, changes, charge.subject, now_us)
        algorithm = ALGORITHMS[quota.algorithm]
        if bucket in record and record[bucket].state and algorithm.renew:
            _replace(record, bucket, quota, algorithm.renew(record[bucket].state, now_us, quota, leases))
    return changes


def alive(record: Record, now_us: int) -> Record:
    """The counts that have not ended. The others need not be kept."""
    return {bucket: count for bucket, count in record.items() if count.expires_us > now_us}


class _Opened(NamedTuple):
    """What a decision knows of one subject.

    Attributes:
        record: Its counts.
        asked: Of each count, the units asked for so far.
        taken: The counts as they are if all is allowed.
        wanted: Counts beside those that need a place in the record if all is to be allowed.
    """

    record: Record
    asked: dict[bytes, int]
    taken: Record
    wanted: set[bytes]


def _crowded_out(opened: dict[bytes, _Opened], verdicts: Sequence[Verdict], now_us: int) -> dict[int, Verdict]:
    """The verdicts over charges that would fit, but whose counts find no place in a record, by their own places."""
    found: dict[int, Verdict] = {}
    for subject, (record, _, taken, wanted) in opened.items():
        if len(record) + len(taken) + len(wanted) <= MOST_COUNTS:
            continue
        needed, living = taken.keys() | wanted, alive(record, now_us)
        ends = sorted([count.expires_us for bucket, count in living.items() if bucket not in needed])
        lacking = len(ends) + len(needed) - MOST_COUNTS
        if lacking <= 0:
            continue
        wait_us = ends[lacking - 1] - now_us if lacking <= len(ends) else None
        for place, (charge, fits, *_) in enumerate(verdicts):
            if fits and charge.subject == subject and charge.bucket in needed and charge.bucket not in living:
                found[place] = Verdict(charge, False, 0, wait_us or 0, wait_us)
    return found


def _noticed(record: Record, charge: Charge, reset_after_us: int, now_us: int) -> bool:
    """Leave a notice that somebody is told: the count has passed its soft percent. Answers whether nobody was yet.

    If the record has no room for the notice, nobody is told: every settlement would tell it.
    """
    quota, notice = charge.quota, notice_of(charge.bucket)
    # A window of a calendar may be longer than its nominal period: that of a day of 25 hours.
    period_us, is_there = max(quota.period_us, reset_after_us if quota.has_windows else 0), notice in record
    # One that ends later than a period from now is none: the clock went back.
    if is_there and record[notice].expires_us <= _second(now_us + period_us):
        return False
    if len(alive(record, now_us)) - is_there >= MOST_COUNTS:
        return False
    # What is owed counts in the next window, too, which is another one all the same.
    follows_clock = ALGORITHMS[quota.algorithm].follows_clock
    window_us = period_us - now_us % period_us if follows_clock else min(reset_after_us, period_us)
    record[notice] = Bucket(NOTICE, min(_second(now_us + window_us), _LATEST_US))
    return True


def _record(read: Read, changes: Changes, subject: bytes, now_us: int) -> Record:
    if subject not in changes:
        changes[subject] = alive(read(subject), now_us)
    return changes[subject]


def _replace(record: Record, bucket: bytes, quota: Quota, state: State) -> None:
    if state:
        record[bucket] = Bucket(state, _second(ALGORITHMS[quota.algorithm].expires(state, quota)))
    else:
        record.pop(bucket, None)


def _second(at_us: int) -> int:
    """The first whole second that is no earlier: so exact are the ends of counts in every store."""
    return -(-at_us // MICROSECONDS) * MICROSECONDS


def _state(record: Record, bucket: bytes, now_us: int) -> State:
    """A count's numbers. Once it has ended it is as if never used, also under a limit by which it would not have."""
    if bucket not in record:
        return ()
    count = record[bucket]
    return count.state if count.expires_us > now_us else ()


def _with_credit_left(record: Record, charge: Charge, now_us: int) -> Quota:
    """The budget of a charge with what other counts have left of its credit.

    Credit belongs to a payer, and each count knows only what was used of it beside its own budget. Under another plan
    the payer may have a budget of other windows, which is another count.
    """
    quota, used = charge.quota, dict[int, int]()
    for bucket in quota.credited_in(charge.scope):
        if bucket in record:
            for grant, amount in used_of_grants(_state(record, bucket, now_us)).items():
                used[grant] = used.get(grant, 0) + amount
    if not used:
        return quota
    left = tuple(grant._replace(amount=max(0, grant.amount - used.get(grant.id, 0))) for grant in quota.credit)
    return replace(quota, credit=left)


def _untaken(records: Changes, verdict: Verdict, now_us: int, lease: int, changes: Changes) -> Verdict:
    """The verdict when nothing is taken, because this charge or another one was refused; ``changes`` is added to."""
    charge = verdict.charge
    quota, bucket, record = charge.quota, charge.bucket, records[charge.subject]
    if quota.credit:
        quota = _with_credit_left(record, charge, now_us)
    algorithm, state = ALGORITHMS[quota.algorithm], _state(record, bucket, now_us)
    step = algorithm.admit(state, now_us, quota, 0, lease)
    if step.state is not state:
        present = step.state
    else:
        present = algorithm.settle(state, now_us, quota, now_us, 0, 0, _NO_LEASE)
        ends_us = algorithm.expires(present, quota) if present else 0
        if (
            present
            and algorithm.expires(state, quota) <= ends_us
            and min(ends_us, _LATEST_US) <= record[bucket].expires_us
        ):
            present = ()
    if present:
        _replace(changes.setdefault(charge.subject, alive(record, now_us)), bucket, quota, present)
    wait = 0 if verdict.allowed else verdict.retry_after_us
    left = max(0, step.remaining - charge.floor)
    return _told(charge, quota, verdict.allowed, left, step.reset_after_us, wait, state, now_us)


def _told(
    charge: Charge,
    quota: Quota,
    allowed: bool,
    left: int,
    reset_us: int,
    wait_us: int | None,
    state: State,
    now_us: int,
) -> Verdict:
    """A verdict; of a budget with how it stands. It is reset when its window ends, although credit stays used."""
    spending = ALGORITHMS[quota.algorithm].spending
    if not spending:
        return Verdict(charge, allowed, left, reset_us, wait_us)
    known = spending(state, now_us, quota)
    told_us = known.ends_us - now_us if known.spent or known.reserved else 0
    return Verdict(charge, allowed, left, told_us, wait_us, None, known)
