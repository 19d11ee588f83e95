"""``x-ratelimit-{limit,remaining,reset}-{requests,tokens}``, as OpenAI documents them.

Source: OpenAI's rate limit guide (2026-06): the limit is what is permitted before it is exhausted, the reset
is the time until it is back in its initial state, in the text of a Go duration.
"""

from flask_ailimit.engine.decision import Decision
from flask_ailimit.engine.quota import REQUESTS, TOKEN_UNITS

from .durations import go_duration
from .verdicts import binding_of, most_and_left

_UNITS = {"requests": (REQUESTS,), "tokens": TOKEN_UNITS}

NAMES = tuple(f"x-ratelimit-{field}-{unit}" for unit in _UNITS for field in ("limit", "remaining", "reset"))


def openai_headers(decision: Decision) -> list[tuple[str, str]]:
    """Report the binding request quota and the binding token quota; a unit without a quota has no headers.

    ``tokens`` is the most restrictive of all token quotas, be they total, input or output, so that a request
    refused for its output never comes with a header that says plenty is left.
    """
    headers = []
    for name, units in _UNITS.items():
        verdict = binding_of(decision, units)
        if verdict is not None:
            limit, remaining = most_and_left(verdict)
            headers += [
                (f"x-ratelimit-limit-{name}", str(limit)),
                (f"x-ratelimit-remaining-{name}", str(remaining)),
                (f"x-ratelimit-reset-{name}", go_duration(verdict.reset_after_us)),
            ]
    return headers
