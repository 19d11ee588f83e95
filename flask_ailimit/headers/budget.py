"""``x-ratelimit-budget``: how the budgets of a request stand. Our own: no API or draft has a header for it.

The value is a list of RFC 9651: the name of each budget, as in ``RateLimit-Policy``, with parameters. Amounts are
texts, because a decimal of that format has three places. It is in no dialect, because it says the same to the clients
of each.
"""

from flask_ailimit.engine.decision import Decision
from flask_ailimit.engine.standing import Standing, standing_of

from .ietf import named_verdicts

NAME = "x-ratelimit-budget"


def budget_headers(decision: Decision) -> list[tuple[str, str]]:
    """Say of each budget what is spent, reserved and left, and when it is renewed; nothing if there is none."""
    for verdict in decision.verdicts:
        if verdict.spending is not None:
            named = [(name, standing_of(each)) for name, each in named_verdicts(decision)]
            return [(NAME, ", ".join(_item(name, standing) for name, standing in named if standing is not None))]
    return []


def _item(name: str, standing: Standing) -> str:
    told = standing._asdict()
    parameters = "".join(f';{key}="{value}"' for key, value in told.items() if value is not None)
    return f'"{name}"{parameters}'
