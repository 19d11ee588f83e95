"""``anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}``.

Source: Anthropic's API reference on rate limits: resets are RFC 3339 times in UTC, and ``tokens`` is the most
restrictive token limit in effect.
"""

from datetime import datetime, timedelta
from functools import lru_cache

from flask_ailimit.engine.decision import Decision
from flask_ailimit.engine.quota import INPUT_TOKENS, OUTPUT_TOKENS, REQUESTS, TOKEN_UNITS

from .durations import seconds_up
from .verdicts import most_and_left

_UNITS = [
    (tuple(f"anthropic-ratelimit-{name}-{field}" for field in ("limit", "remaining", "reset")), units)
    for name, units in (
        ("requests", (REQUESTS,)),
        ("tokens", TOKEN_UNITS),
        ("input-tokens", (INPUT_TOKENS,)),
        ("output-tokens", (OUTPUT_TOKENS,)),
    )
]
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  UTC, but a time zone makes the text five times slower
_LAST_SECOND = 253_402_300_799
"""9999-12-31T23:59:59Z: RFC 3339 years have four digits, and a huge burst fills for longer."""

NAMES = tuple(name for names, _ in _UNITS for name in names)


def anthropic_headers(decision: Decision) -> list[tuple[str, str]]:
    """Report the binding quota of each unit that has one; the reset is when it is as if never used."""
    headers = []
    for (limit_name, remaining_name, reset_name), units in _UNITS:
        verdict = decision.binding_of(units)
        if verdict is not None:
            limit, remaining = most_and_left(verdict)
            headers += [
                (limit_name, str(limit)),
                (remaining_name, str(remaining)),
                (reset_name, _rfc3339(seconds_up(decision.at_us + verdict.reset_after_us))),
            ]
    return headers


@lru_cache(maxsize=256)  # Most answers of one second have the same.
def _rfc3339(seconds: int) -> str:
    return f"{(_EPOCH + timedelta(0, min(seconds, _LAST_SECOND))).isoformat()}Z"
