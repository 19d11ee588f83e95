"""The headers of answers: who they are, when they were made, what is left of the limits, and when to come again."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from flask_ailimit.engine import Decision
from flask_ailimit.engine.clock import MICROSECONDS
from flask_ailimit.headers.anthropic import anthropic_headers
from flask_ailimit.headers.durations import go_duration, milliseconds_up, seconds_up
from flask_ailimit.headers.openai import openai_headers

from .endpoints import Dialect
from .fault import Fault

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LIMIT = 1000
Pairs = list[tuple[str, str]]


def usual_headers(dialect: Dialect, number: int, now_us: int) -> Pairs:
    """The date, and the number by which a call can be asked about."""
    name = "request-id" if dialect == "anthropic" else "x-request-id"
    return [("date", http_date(now_us)), (name, f"req_{number}")]


def http_date(now_us: int) -> str:
    """A time as ``Date`` and ``Retry-After`` write it."""
    return format_datetime(_EPOCH + timedelta(microseconds=now_us), usegmt=True)


def limit_headers(dialect: Dialect, decision: Decision, clock_off_by: float) -> Pairs:
    """What the provider's own limits have left, as its API says it."""
    if dialect == "anthropic":
        off = round(clock_off_by * MICROSECONDS)
        return anthropic_headers(replace(decision, at_us=decision.at_us + off))
    told = openai_headers(decision)
    # Azure says neither its limits nor when they are whole again.
    return [(name, value) for name, value in told if dialect == "openai" or "-remaining-" in name]


def waits(dialect: Dialect, wait_us: int) -> Pairs:
    """When to come again after the provider's own limits have refused."""
    hints = [("retry-after", str(seconds_up(wait_us)))]
    return hints if dialect == "anthropic" else [*hints, ("retry-after-ms", str(milliseconds_up(wait_us)))]


def ordered_waits(dialect: Dialect, fault: Fault, now_us: int) -> Pairs:
    """When to come again, as the fault orders it."""
    headers: Pairs = []
    if fault.retry_after is not None:
        at_us = now_us + round(fault.retry_after * MICROSECONDS) if fault.as_date else 0
        headers.append(("retry-after", http_date(at_us) if fault.as_date else str(fault.retry_after)))
    if fault.retry_after_ms is not None:
        headers.append(("retry-after-ms", str(fault.retry_after_ms)))
    if fault.reset is not None:
        headers += _spent_limit(dialect, fault.unit, round(fault.reset * MICROSECONDS), now_us)
    return headers


def _spent_limit(dialect: Dialect, unit: str, reset_us: int, now_us: int) -> Pairs:
    if dialect == "anthropic":
        at = _EPOCH + timedelta(seconds=seconds_up(now_us + reset_us))
        begin, reset = f"anthropic-ratelimit-{unit}-", f"{at:%Y-%m-%dT%H:%M:%SZ}"
        return [(f"{begin}limit", str(_LIMIT)), (f"{begin}remaining", "0"), (f"{begin}reset", reset)]
    values = {"limit": str(_LIMIT), "remaining": "0", "reset": go_duration(reset_us)}
    return [(f"x-ratelimit-{name}-{unit}", value) for name, value in values.items()]
