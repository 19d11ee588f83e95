"""Credit: what an operator grants a payer beside a budget, how it is written, and which limit of a plan it is for."""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from flask_ailimit.engine import ConfigurationError, Quota
from flask_ailimit.engine.grant import Grant
from flask_ailimit.engine.quota import BUDGET, EVER, MAX_EXACT, MOST_GRANTS, SESSION, amount_in_words
from flask_ailimit.money.amounts import parse_money, shown

_AMOUNT = re.compile(r"([0-9]{1,16})\s+([a-z][a-z0-9_]{0,31})|[0-9.]+\s+[A-Z]{3}")
_CLOCKS_DIFFER_BY = 3600
"""Seconds: a grant is handed to the store for so much longer than this machine's clock says, because the store's own
clock tells when it ends."""

Grants = Mapping[str, tuple[Grant, ...]]
"""A payer's grants by their units, those that end soonest first."""

NO_GRANTS: Grants = MappingProxyType({})


class Credit(NamedTuple):
    """What was granted.

    Attributes:
        unit: In which unit, such as ``nano_usd``.
        amount: How much of it, 1 to 2**53 - 1.
        begins: The second since the epoch from which it may be used; 0 for at once.
        ends: The second at which what is left of it is lost; that of ``LATEST_SECOND`` for never.
    """

    unit: str
    amount: int
    begins: int
    ends: int


def amount_of(text: object) -> tuple[int, str]:
    """Read ``"20 USD"``, ``"+20.50 USD"`` or ``"1000000 tokens"`` into an amount in whole units, and the unit.

    Raises:
        ConfigurationError: It is no such text, or not a whole number from 1 to 2**53 - 1 of units.
    """
    written = text.strip().removeprefix("+").lstrip() if isinstance(text, str) else ""
    match = _AMOUNT.fullmatch(written)
    if match is None:
        raise ConfigurationError(
            "credit: an amount and its unit are needed, such as '20 USD', '2.50 EUR' or '1000000 tokens'. "
            f"Got {shown(text)}."
        )
    if match[1]:
        amount, unit = int(match[1]), match[2]
    else:
        money = parse_money(written)
        amount, unit = money.nano, money.unit
    if not 1 <= amount <= MAX_EXACT:
        raise ConfigurationError(
            f"credit: more than nothing is needed, and at most {amount_in_words(MAX_EXACT, unit)}. Got {text!r:.60}."
        )
    return amount, unit


def is_budget(quota: Quota) -> bool:
    """Whether credit may stand beside what a quota allows."""
    return quota.algorithm == BUDGET


def taking_credit(quotas: Iterable[tuple[Quota | None, bool]]) -> set[int]:
    """Which of a plan's limits over all models take a payer's credit: of each unit the budget of the longest window.

    The shorter ones still bound what is spent in their windows, and a grant that several took would be burnt twice. A
    limit that is only tried takes credit if it would were it to hold: its count is its own.

    Args:
        quotas: What each limit allows, None if it counts nothing; and whether it is only tried.

    Returns:
        The places of those that take credit.
    """
    found: dict[tuple[str, bool], tuple[tuple[bool, int, bool, bool], int]] = {}
    for place, (quota, is_tried) in enumerate(quotas):
        if quota is not None and is_budget(quota):
            known = found.get((quota.unit, is_tried))
            if known is None or _length(quota) > known[0]:
                found[quota.unit, is_tried] = _length(quota), place
    return {
        place
        for (unit, is_tried), (length, place) in found.items()
        if not is_tried or (unit, False) not in found or length >= found[unit, False][0]
    }


def _length(quota: Quota) -> tuple[bool, int, bool, bool]:
    """How long a budget's windows are: for ever is longest. Of one length, those of a calendar come before a session's.

    No two budgets of a plan are equally long, so that the order in which it names them doesn't matter.
    """
    return quota.every == EVER, quota.period, quota.every not in ("", SESSION), bool(quota.every)


def by_unit(grants: Iterable[tuple[str, Grant]]) -> Grants:
    """Grants by their units, those that end soonest first."""
    found: dict[str, list[Grant]] = {}
    for unit, grant in grants:
        found.setdefault(unit, []).append(grant)
    return {unit: tuple(sorted(some, key=lambda grant: (grant.ends, grant.id))) for unit, some in found.items()}


def still_granted(grants: Grants, now_s: float) -> Grants:
    """Those that may not have ended yet by the clock of the store, at most so many as a quota can have."""
    since = now_s - _CLOCKS_DIFFER_BY
    if all(some[0].ends > since and len(some) <= MOST_GRANTS for some in grants.values()):
        return grants
    left = {unit: tuple(grant for grant in some if grant.ends > since)[-MOST_GRANTS:] for unit, some in grants.items()}
    return {unit: some for unit, some in left.items() if some}
