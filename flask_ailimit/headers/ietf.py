"""``RateLimit-Policy`` and ``RateLimit``, the IETF's fields, which can name every quota of a request.

Source: draft-ietf-httpapi-ratelimit-headers-11 (2026-05-23); each value is a List of RFC 9651.
"""

from collections import Counter

from flask_ailimit.engine.decision import Decision, Verdict
from flask_ailimit.engine.quota import CONCURRENCY, REQUESTS, Quota

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
    named = named_verdicts(decision)
    if not named:
        return []
    policies = ", ".join(_policy(name, verdict.quota) for name, verdict in named)
    limits = ", ".join(_service_limit(name, verdict, decision) for name, verdict in named)
    return [("RateLimit-Policy", policies), ("RateLimit", limits)]


def named_verdicts(decision: Decision) -> list[tuple[str, Verdict]]:
    """Each verdict with its policy's name, unique within the decision.

    The name is the quota's, such as ``tokens-per-minute``; the second of the same name (another scope or
    subject) is ``tokens-per-minute-2``. A quota's own name never ends in a digit, so the two can't collide.
    """
    seen: Counter[str] = Counter()
    named = []
    for verdict in decision.verdicts:
        name = verdict.quota.name
        seen[name] += 1
        named.append((name if seen[name] == 1 else f"{name}-{seen[name]}", verdict))
    return named


def _policy(name: str, quota: Quota) -> str:
    if quota.unit == CONCURRENCY:
        return f'"{name}";q={_integer(quota.limit)};qu="concurrent-requests"'
    # "tokens" is not a registered quota unit, but without qu the policy would claim to count requests.
    unit = "" if quota.unit == REQUESTS else f';qu="{quota.unit.replace("_", "-")}"'
    burst = "" if quota.burst == quota.limit else f";ailimit-burst={_integer(quota.burst)}"
    return f'"{name}";q={_integer(quota.limit)}{unit};w={quota.period}{burst}'


def _service_limit(name: str, verdict: Verdict, decision: Decision) -> str:
    window = _effective_window(verdict, decision)
    remaining = f'"{name}";r={_integer(verdict.remaining)}'
    return remaining if window is None else f"{remaining};t={_integer(window)}"


def _effective_window(verdict: Verdict, decision: Decision) -> int | None:
    quota = verdict.quota
    if quota.unit == CONCURRENCY:
        return None
    if not decision.allowed:
        return seconds_up(verdict.retry_after_us) if verdict.retry_after_us else None
    lasts = -(-verdict.remaining * quota.period // quota.limit)
    return max(seconds_up(verdict.reset_after_us), lasts)


def _integer(value: int) -> int:
    return min(value, _LARGEST)
