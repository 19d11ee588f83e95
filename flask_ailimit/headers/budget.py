"""``x-ratelimit-budget``: how the budgets of a request stand. Our own: no API or draft has a header for it.

The value is a list of RFC 9651: the name of each budget, as in ``RateLimit-Policy``, with parameters. Amounts are
texts, because a decimal of that format has three places. It is in no dialect, because it says the same to the clients
of each.
"""

from functools import lru_cache

from flask_ailimit.engine.decision import Decision, Verdict
from flask_ailimit.engine.quota import Quota, decimal_of, is_money, unit_told
from flask_ailimit.engine.standing import amount, renewal

from .ietf import named_verdicts

NAME = "x-ratelimit-budget"


def budget_headers(decision: Decision) -> list[tuple[str, str]]:
    """Say of each budget what is spent, reserved and left, and when it is renewed; nothing if there is none."""
    for verdict in decision.verdicts:
        if verdict.spending is not None:
            return [(NAME, ", ".join([_item(name, each) for name, each in named_verdicts(decision) if each.spending]))]
    return []


def _item(name: str, verdict: Verdict) -> str:
    known, quota = verdict.spending, verdict.quota
    assert known is not None  # noqa: S101  see budget_headers
    in_unit = decimal_of if is_money(quota.unit) else str
    reserved = in_unit(known.reserved + known.reserved_credit)
    return (
        f'{_begin(name, quota)};spent="{in_unit(known.spent)}";reserved="{reserved}";credit="{in_unit(known.credit)}";'
        f'left="{in_unit(verdict.remaining)}"{_end(quota, known.ends_us)}'
    )


@lru_cache(maxsize=1024)
def _begin(name: str, quota: Quota) -> str:
    return f'"{name}";unit="{unit_told(quota.unit)}";limit="{amount(quota, quota.limit)}"'


@lru_cache(maxsize=1024)  # Most requests of a window ask for the same.
def _end(quota: Quota, ends_us: int) -> str:
    at, zone = renewal(quota, ends_us)
    return "" if at is None else f';resets="{at}";zone="{zone}"'
