"""``anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}``.

Source: Anthropic's API reference on rate limits: resets are RFC 3339 times in UTC, and ``tokens`` is the most
restrictive token limit in effect.
"""

from datetime import UTC, datetime

from flask_ailimit.engine.decision import Decision
from flask_ailimit.engine.quota import INPUT_TOKENS, OUTPUT_TOKENS, REQUESTS, TOKEN_UNITS

from .durations import seconds_up
from .verdicts import binding_of, most_and_left

_UNITS = {
    "requests": (REQUESTS,),
    "tokens": TOKEN_UNITS,
    "input-tokens": (INPUT_TOKENS,),
    "output-tokens": (OUTPUT_TOKENS,),
}
_LAST_SECOND = 253_402_300_799
"""9999-12-31T23:59:59Z: RFC 3339 years have four digits, and a huge burst fills for longer."""

NAMES = tuple(f"anthropic-ratelimit-{unit}-{field}" for unit in _UNITS for field in ("limit", "remaining", "reset"))


def anthropic_headers(decision: Decision) -> list[tuple[str, str]]:
    """Report the binding quota of each unit that has one; the reset is when it is as if never used."""
    headers = []
    for name, units in _UNITS.items():
        verdict = binding_of(decision, units)
        if verdict is not None:
            limit, remaining = most_and_left(verdict)
            headers += [
                (f"anthropic-ratelimit-{name}-limit", str(limit)),
                (f"anthropic-ratelimit-{name}-remaining", str(remaining)),
                (f"anthropic-ratelimit-{name}-reset", _rfc3339(decision.at_us + verdict.reset_after_us)),
            ]
    return headers


def _rfc3339(us: int) -> str:
    seconds = min(seconds_up(us), _LAST_SECOND)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
