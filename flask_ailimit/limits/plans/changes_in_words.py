"""Changes of plans in words, as the commands print them."""

from collections.abc import Iterator
from datetime import UTC, datetime

from flask_ailimit.engine.quota import LATEST_SECOND

from .change import BOOST, FORGET, MOVE, OF_LIMITS, RELOAD, UNDO, Change
from .plan import TRY


def change_in_words(change: Change, undone_by: int | None = None) -> Iterator[str]:
    """The lines that say who changed what, when and why."""
    yield f"{change.number}  {time_in_words(change.at)}  {change.by}: {what_in_words(change)}"
    yield f"    reason: {change.reason}"
    if undone_by is not None:
        yield f"    undone by {undone_by}"


def what_in_words(change: Change) -> str:
    """What was changed, from what and to what."""
    if change.kind == UNDO:
        return f"undo {change.undone}"
    if change.kind == FORGET:
        count = len(change.forgotten)
        return f"forget a payer, with {count} change{'' if count == 1 else 's'}"
    if change.kind == RELOAD:
        return "reload the plan file"
    what = f"{change.kind} {change.payer}"
    if change.credit is not None:
        return f"{what}: {change.after}{lasting_in_words(change.credit.begins, change.credit.ends)}"
    if change.kind in OF_LIMITS:
        under = f" under {change.plan}" if change.plan else ""
        what = f"{what}, {change.limit}{under}"
    elif change.kind == MOVE:
        what = f"{what}, plan"
    if change.kind == TRY:
        return f"{what}: {change.after} beside {change.before}"
    until = f" until {time_in_words(change.until)}" if change.kind == BOOST and change.until is not None else ""
    return f"{what}: from {change.before} to {change.after}{until}"


def lasting_in_words(begins: int, ends: int) -> str:
    """From when on and until when credit lasts."""
    begin = f" from {time_in_words(begins)}" if begins else ""
    return f"{begin} until {time_in_words(ends)}" if ends < LATEST_SECOND else f"{begin}, without an end"


def time_in_words(at: int) -> str:
    """A time, in UTC."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
