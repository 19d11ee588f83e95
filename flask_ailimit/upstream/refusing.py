"""What a call is answered that gets no answer of its upstream: as an HTTP response, which every SDK understands.

An exception would be taken for a lost connection, and the SDK would call again, three times. ``x-should-retry`` tells
it not to.
"""

import json
from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

UPSTREAM = "x-ailimit-upstream"
"""The header with the name of the upstream that answered."""

LIMITED_BY = "x-ailimit-limited-by"
"""The header of a refusal that says whose limit it is: ``app`` (ours) or ``provider``."""

OWN, THEIRS = "app", "provider"


class Final(NamedTuple):
    """An answer with its whole body.

    Attributes:
        status: Its HTTP status.
        headers: Its headers.
        body: Its body, as it was sent.
    """

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes


def refusal(name: str, status: int, code: str, message: str, seconds: float | None = None) -> Final:
    """Our own answer.

    Args:
        name: The upstream's name.
        status: Its HTTP status.
        code: A word for programs.
        message: A sentence for people.
        seconds: When it helps to call again; None if nobody knows.
    """
    headers = [("content-type", "application/json"), ("x-should-retry", "false"), (UPSTREAM, name), (LIMITED_BY, OWN)]
    if seconds is not None:
        headers += [("retry-after", str(max(1, ceil(seconds)))), ("retry-after-ms", str(max(1, ceil(seconds * 1000))))]
    body = {"error": {"message": message, "type": "upstream_unavailable", "code": code, "param": None}}
    return Final(status, headers, json.dumps(body).encode())


def not_now(name: str, why: str, seconds: float) -> Final:
    """The call would wait longer than it may."""
    if why in ("open", "half-open"):
        message = f"The upstream {name} fails, so calls to it are stopped. Try again in {seconds:.1f} s."
        return refusal(name, 503, "upstream_open", message, seconds)
    if why == "spent":
        message = f"The account of the upstream {name} has nothing left. It is asked again in {seconds:.1f} s."
        return refusal(name, 429, "upstream_spent", message)
    reasons = {"paused": "it has asked for a pause", "turn": "others wait before it"}
    because = reasons.get(why, f"its limit on {why} is reached")
    message = f"The upstream {name} can't take this call now: {because}. Try again in {seconds:.1f} s."
    return refusal(name, 429, f"upstream_{why}", message, seconds)


def line_is_full(name: str, seconds: float) -> Final:
    """As many calls wait as may."""
    message = f"Too many calls wait for the upstream {name}. Try again in {seconds:.1f} s."
    return refusal(name, 429, "upstream_line_full", message, seconds)


def too_many_retries(name: str) -> Final:
    """The caller's own client calls again, and no retries are left."""
    message = (
        f"Calls to the upstream {name} are repeated too often. Give the client max_retries=0: this transport does the "
        "retries."
    )
    return refusal(name, 429, "upstream_retries_spent", message)


def not_reached(name: str, reason: str, *, sent: bool) -> Final:
    """No answer came."""
    if sent:
        message = f"The upstream {name} gave no answer ({reason}). It may have worked."
        return refusal(name, 504, "upstream_silent", message)
    return refusal(name, 503, "upstream_unreachable", f"The upstream {name} can't be reached ({reason}).")


def passed_on(name: str, theirs: Final, *, is_limit: bool) -> Final:
    """The upstream's own answer, which the SDK is not to ask for again, neither there nor elsewhere."""
    ours = ("x-should-retry", UPSTREAM, LIMITED_BY, "location")
    headers = [(key, value) for key, value in theirs.headers if key.lower() not in ours]
    headers += [("x-should-retry", "false"), (UPSTREAM, name)]
    if is_limit:
        headers.append((LIMITED_BY, THEIRS))
    return theirs._replace(headers=headers)
