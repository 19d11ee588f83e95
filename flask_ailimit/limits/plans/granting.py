"""Whether a payer can be granted credit: from when until when, beside which budget, and how much in all."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from flask_ailimit.engine import ConfigurationError, Quota
from flask_ailimit.engine.grant import Grant
from flask_ailimit.engine.quota import LATEST_SECOND, MAX_EXACT, MOST_GRANTS, amount_in_words

from .change import PayerName
from .changes_in_words import time_in_words
from .credit import Credit

_MOST_SHOWN = 20


def lasting(begins: datetime | None, until: datetime | timedelta | None, now_s: int) -> tuple[int, int]:
    """From which second until which credit lasts.

    Args:
        begins: When it begins, with a time zone; None for at once.
        until: When it ends, with a time zone; or how long it lasts; None for no end.
        now_s: The time, in seconds since the epoch.

    Raises:
        ConfigurationError: A time has no zone, or it would end before it begins.
    """
    for name, moment in (("begins", begins), ("until", until)):
        if isinstance(moment, datetime) and moment.tzinfo is None:
            raise ConfigurationError(f"{name}: a time with a time zone is needed, such as 2026-12-31T18:00+00:00.")
    begin = 0 if begins is None else int(begins.timestamp())
    end = LATEST_SECOND
    if isinstance(until, timedelta):
        end = (begin or now_s) + int(until.total_seconds())
    elif until is not None:
        end = int(until.timestamp())
    if begin < 0 or not max(now_s, begin) < end <= LATEST_SECOND:
        raise ConfigurationError(
            "until: credit ends after it begins, after now, and before 2106. "
            f"Got {_time_if_any(begin or now_s)} to {_time_if_any(end)}."
        )
    return begin, end


def require_budget(payer: PayerName, unit: str, budgets: Sequence[tuple[str, Quota]]) -> None:
    """Check that credit in this unit has a budget to stand beside.

    Args:
        payer: Who would have it.
        unit: Its unit.
        budgets: The budgets over all models that the payer may have, with the names of their plans.

    Raises:
        ConfigurationError: None is in the unit. The sentence names those that there are.
    """
    if any(quota.unit == unit for _, quota in budgets):
        return
    there_are = ", ".join(f"{quota.text} ({plan})" for plan, quota in budgets[:_MOST_SHOWN]) or "none"
    raise ConfigurationError(
        f"{payer} has no budget in {amount_in_words(0, unit).partition(' ')[2]} over all models, beside which it could "
        f"use credit. Budgets of the plans that it may have: {there_are}."
    )


def require_room(payer: PayerName, credit: Credit, grants: Iterable[Grant], now_s: float) -> None:
    """Check that a payer has neither more grants in a unit, nor more by them, than can be counted.

    Args:
        payer: Who would have it.
        credit: What it would have besides.
        grants: Its grants in the same unit.
        now_s: The time, in seconds since the epoch.

    Raises:
        ConfigurationError: It has.
    """
    others = [grant for grant in grants if grant.ends > now_s]
    if len(others) >= MOST_GRANTS:
        raise ConfigurationError(
            f"credit: {payer} has {len(others)} grants that have not ended, and more can't be counted. Undo some, and "
            "grant in one what is left of them."
        )
    if credit.amount + sum(grant.amount for grant in others) > MAX_EXACT:
        most = amount_in_words(MAX_EXACT, credit.unit)
        raise ConfigurationError(
            f"credit: {payer} would have more than {most} by all its grants, the most that every store counts exactly. "
            "Grant less."
        )


def _time_if_any(at: int) -> str:
    return time_in_words(at) if 0 <= at <= LATEST_SECOND else "a time that can't be counted"
