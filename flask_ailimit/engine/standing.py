"""How a budget stands, as it is told: amounts as decimal texts, and the end of its window with its time zone."""

from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from .clock import MICROSECONDS
from .decision import Verdict
from .quota import EVER, Quota, decimal_of, is_money, unit_told


class Standing(NamedTuple):
    """How a budget stands. Amounts are texts in whole units: of money ``12.50``, of tokens ``1200``.

    Attributes:
        unit: The currency, such as ``USD``; of what is no money the unit, such as ``output_tokens``.
        limit: What the window allows.
        spent: What was used in it; more than the limit, if calls used more than they had reserved.
        reserved: What calls in flight have reserved, of the window and of credit.
        credit: What is left of the payer's credit, less what is owed; it may be below zero.
        left: What can be had now, of the window and of credit together.
        resets: When the window ends, as an ISO 8601 time with the offset of its zone; None if it never does.
        zone: The zone in which it ends; None if it never does.
    """

    unit: str
    limit: str
    spent: str
    reserved: str
    credit: str
    left: str
    resets: str | None
    zone: str | None

    @property
    def sentence(self) -> str:
        """What is spent, reserved and left, and when the window ends."""
        ends = "" if self.resets is None else f" It is renewed at {self.resets} ({self.zone})."
        credit = "" if self.credit in ("0", "0.00") else f", credit {self.credit} {self.unit}"
        return (
            f"{self.spent} of {self.limit} {self.unit} spent, {self.reserved} {self.unit} reserved{credit}, "
            f"{self.left} {self.unit} left.{ends}"
        )


def standing_of(verdict: Verdict) -> Standing | None:
    """How the budget of a verdict stands; None if its count is no budget."""
    known, quota = verdict.spending, verdict.quota
    if known is None:
        return None
    return Standing(
        unit_told(quota.unit),
        amount(quota, quota.limit),
        amount(quota, known.spent),
        amount(quota, known.reserved + known.reserved_credit),
        amount(quota, known.credit),
        amount(quota, verdict.remaining),
        *renewal(quota, known.ends_us),
    )


def amount(quota: Quota, units: int) -> str:
    """An amount of what a quota counts, as a text: of money ``12.50``, of tokens ``1200``."""
    return decimal_of(units) if is_money(quota.unit) else str(units)


def renewal(quota: Quota, ends_us: int) -> tuple[str | None, str | None]:
    """When a window ends, as an ISO 8601 time with the offset of its zone, and the zone; None for what never ends."""
    if quota.every == EVER:
        return None, None
    zone = quota.calendar.zone
    tz = UTC if zone == "UTC" else ZoneInfo(zone)
    return datetime.fromtimestamp(ends_us // MICROSECONDS, tz).isoformat(), zone
