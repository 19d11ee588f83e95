"""Limits that are tried before they hold: on nobody, or enforced for a part of the payers.

A payer's place among all payers of a plan is a hash, so it is always the same ones that come first, on every machine,
and a larger part has those of a smaller one. What a payer has used goes on when it comes to be in that part.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import replace
from hashlib import blake2b

from .derived import windows_of, with_value
from .plan import ALL_PAYERS, CANDIDATE, Plan, PlanLimit

_FIRST = -1
"""The place of a payer that is in every part, also in one of 0 percent."""


def place_of(subject: bytes, name: str) -> int:
    """The place of a subject among all, from 0 to 99.

    Args:
        subject: Its hash.
        name: What is tried: for another name, others come first.
    """
    digest = blake2b(name.encode(), key=subject, digest_size=8).digest()
    return int.from_bytes(digest, "big") * ALL_PAYERS >> 64


def holds_for(subject: bytes, name: str, percent: int) -> bool:
    """Whether what is enforced for a part of all subjects, 0 to 100 percent, is enforced for this one."""
    return percent == ALL_PAYERS or place_of(subject, name) < percent


def all_enforced(plan: Plan) -> Plan:
    """The plan as it would be if all that is tried held."""
    return _variant(plan, _FIRST, 0) if plan.percents else plan


def as_tried(plan: Plan, subject: bytes) -> Plan:
    """The plan as it holds for a payer: some of its limits are only tried."""
    percents = plan.percents
    if not percents:
        return plan
    place = place_of(subject, plan.name)
    number = bisect_right(percents, place)
    found = plan.variants.get(number)
    if found is None:
        found = plan.variants[number] = _variant(plan, place, number)
    return found


def _variant(plan: Plan, place: int, number: int) -> Plan:
    rules = plan.models and tuple(replace(rule, limits=tuple(_held(rule.limits, place))) for rule in plan.models)
    return replace(plan, limits=tuple(_held(plan.limits, place)), models=rules, key=f"{plan.key}@{number}")


def _held(limits: Iterable[PlanLimit], place: int) -> Iterator[PlanLimit]:
    for limit in limits:
        is_enforced = place < limit.percent
        plain = replace(limit, candidate=None, enforced_percent=None)
        if limit.candidate is None:
            yield plain if is_enforced else replace(plain, shadow=True)
            continue
        tried = with_value(plain, limit.candidate, CANDIDATE)
        if is_enforced:
            yield tried
            continue
        yield plain
        held = {window for _, window in windows_of(plain)}
        for part, window in windows_of(tried):
            yield replace(part, shadow=True, beside=window in held)
