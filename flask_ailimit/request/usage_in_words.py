"""What a payer has left of its plan in words, as the command prints it."""

from collections.abc import Iterator
from datetime import UTC, datetime

from flask_ailimit.engine.quota import is_money
from flask_ailimit.money import in_words

from .usage import InheritedLimit, LimitUsage, UsageReport

_OWN = ("plan", "model", "default")


def usage_in_words(report: UsageReport) -> Iterator[str]:
    """A line for each limit, below the models that it is of, with where its value was set."""
    model = None
    for limit in report.limits:
        if limit.model is not None and limit.model != model:
            yield f"model {limit.model}"
        model = limit.model
        yield ("" if model is None else "    ") + f"{limit.name}: {_left(limit)}  ({_source(limit)})"


def _left(limit: LimitUsage) -> str:
    if limit.limit is None:
        return "unlimited"
    if limit.budget is not None:
        return limit.budget.sentence.removesuffix(".")
    if limit.limit == 0:
        return "nothing is allowed"
    left = f"{limit.remaining} of {limit.burst} left"
    return left if limit.reset_after is None else f"{left}, full again in {limit.reset_after:.1f} s"


def _source(limit: LimitUsage) -> str:
    until = "" if limit.source.until is None else f" until {datetime.fromtimestamp(limit.source.until, UTC):%FT%TZ}"
    inherited = [_value(each, limit.unit) for each in limit.inherited or () if limit.source.type not in _OWN]
    tried = ", only tried" if limit.tried else ""
    return f"{limit.source.type}{until}{tried}" + (f", in the plan {' and '.join(inherited)}" if inherited else "")


def _value(limit: InheritedLimit, unit: str) -> str:
    if limit.limit is None:
        return "unlimited"
    if is_money(unit):  # In the same window as the value that holds.
        return in_words(limit.limit, unit)
    burst = "" if limit.burst == limit.limit else f", up to {limit.burst} at once"
    return f"{limit.limit}{'' if limit.period is None else f' per {limit.period} s'}{burst}"
