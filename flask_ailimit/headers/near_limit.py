"""``x-ratelimit-near-limit``: which limits are nearly used up. Our own: no API or draft has a header for it.

It is in no dialect, because it says the same to the clients of each.
"""

from flask_ailimit.engine.decision import Decision

from .ietf import named_verdicts

NAME = "x-ratelimit-near-limit"


def near_limit_headers(decision: Decision) -> list[tuple[str, str]]:
    """Name the quotas whose soft percent is used, as ``RateLimit-Policy`` names them; nothing if there is none."""
    for verdict in decision.verdicts:
        if verdict.charge.quota.soft_percent and verdict.is_near:
            names = [name for name, each in named_verdicts(decision) if each.is_near]
            return [(NAME, ", ".join(names))]
    return []
