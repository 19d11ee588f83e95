"""``x-ratelimit-{limit,remaining,reset}-{requests,tokens}``, as OpenAI documents them.

Source: OpenAI's rate limit guide (2026-06): the limit is what is permitted before it is exhausted, the reset
is the time until it is back in its initial state, in the text of a Go duration.
"""

from flask_ailimit.engine.decision import Decision
from flask_ailimit.engine.quota import REQUESTS, TOKEN_UNITS

from .durations import go_duration
from .verdicts import most_and_left

_UNITS = [
    (tuple(f"x-ratelimit-{field}-{name}" for field in ("limit", "remaining", "reset")), units)
    for name, units in (("requests", (REQUESTS,)), ("tokens", TOKEN_UNITS))
]

NAMES = tuple(name for names, _ in _UNITS for name in names)


def openai_headers(decision: Decision) -> list[tuple[str, str]]:
    """Report the binding request quota and the binding token quota; a unit without a quota has no headers.

    ``tokens`` is the most restrictive of all token quotas, be they total, input or output, so that a request
    refused for its output never comes with a header that says plenty is left.
    """
    headers = []
    for (limit_name, remaining_name, reset_name), units in _UNITS:
        verdict = decision.binding_of(units)
        if verdict is not None:
            limit, remaining = most_and_left(verdict)
            headers += [
                (limit_name, str(limit)),
                (remaining_name, str(remaining)),
                (reset_name, go_duration(verdict.reset_after_us)),
            ]
    return headers
