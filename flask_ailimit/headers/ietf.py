"""``RateLimit-Policy`` and ``RateLimit``, the IETF's fields, which can name every quota of a request.

Source: draft-ietf-httpapi-ratelimit-headers-11 (2026-05-23); each value is a List of RFC 9651.
"""

import itertools
from functools import lru_cache

from flask_ailimit.engine.clock import MICROSECONDS
from flask_ailimit.engine.decision import Decision, Verdict
from flask_ailimit.engine.quota import CONCURRENCY, EVER, REQUESTS, Quota

from .durations import seconds_up

NAMES = ("RateLimit-Policy", "RateLimit")

_LARGEST = 999_999_999_999_999
"""RFC 9651, section 3.3.1: an Integer has at most 15 digits."""


def ietf_headers(decision: Decision) -> list[tuple[str, str]]:
    """Report every quota, in the order charged: its policy, what is left of it, and for how long.

    ``t``, the effective window in seconds, is how long the client should make do with ``r``: until the count
    is as if never used, or as long as ``r`` lasts at the policy's own rate, whichever is longer. So r/t never
    invites more than the policy allows (draft, section 6). In a refusal only a refused policy has a ``t``, its
    wait, and Retry-After, the longest wait, never ends before it.
    """
    if not decision.verdicts:
        return []
    names, policies = _policies(decision.quotas)
    service_limit = _service_limit if decision.allowed else _refused_service_limit
    limits = ", ".join(map(service_limit, names, decision.quotas, decision.verdicts))
    return [("RateLimit-Policy", policies), ("RateLimit", limits)]


def named_verdicts(decision: Decision) -> list[tuple[str, Verdict]]:
    """Each verdict with its policy's name, unique within the decision.

    The name is the quota's, such as ``tokens-per-minute``; the second of the same name (another scope or
    subject) is ``tokens-per-minute-2``.
    """
    names, _ = _policies(decision.quotas)
    return list(zip(names, decision.verdicts, strict=True))


@lru_cache(maxsize=1024)
def _policies(quotas: tuple[Quota, ...]) -> tuple[tuple[str, ...], str]:
    """The policies' names and the value of ``RateLimit-Policy``: the same for each request of a route."""
    names: list[str] = []
    for quota in quotas:
        numbered = (f"{quota.name}-{number}" for number in itertools.count(2))
        names.append(next(name for name in itertools.chain([quota.name], numbered) if name not in names))
    return tuple(names), ", ".join(map(_policy, names, quotas))


def _policy(name: str, quota: Quota) -> str:
    if quota.unit == CONCURRENCY:
        return f'"{name}";q={min(quota.limit, _LARGEST)};qu="concurrent-requests"'
    # "tokens" is not a registered quota unit, but without qu the policy would claim to count requests.
    unit = "" if quota.unit == REQUESTS else f';qu="{quota.unit.replace("_", "-")}"'
    burst = "" if quota.burst == quota.limit else f";ailimit-burst={min(quota.burst, _LARGEST)}"
    window = "" if quota.every == EVER else f";w={quota.period}"
    return f'"{name}";q={min(quota.limit, _LARGEST)}{unit}{window}{burst}'


def _service_limit(name: str, quota: Quota, verdict: Verdict) -> str:
    remaining = verdict.remaining
    if quota.unit == CONCURRENCY or quota.every == EVER:
        return f'"{name}";r={min(remaining, _LARGEST)}'
    window = -(-verdict.reset_after_us // MICROSECONDS)
    lasts = -(-remaining * quota.period // quota.limit) if quota.limit else 0  # A budget may be of credit alone.
    window = max(window, lasts)
    if remaining > _LARGEST or window > _LARGEST:
        remaining, window = min(remaining, _LARGEST), min(window, _LARGEST)
    return f'"{name}";r={remaining};t={window}'


def _refused_service_limit(name: str, quota: Quota, verdict: Verdict) -> str:
    remaining = f'"{name}";r={min(verdict.remaining, _LARGEST)}'
    if quota.unit == CONCURRENCY or not verdict.retry_after_us:
        return remaining
    return f"{remaining};t={min(seconds_up(verdict.retry_after_us), _LARGEST)}"
