"""A refusal as HTTP: status, headers and body, all from one decision. Pure functions, no Flask.

What clients do with each part was tried with their real SDKs; ``docs/headers.md`` tells the whole contract.
"""

import os
import re
from http import HTTPStatus
from random import Random

from .engine.clock import MICROSECONDS
from .engine.decision import Decision, Verdict
from .engine.quota import CONCURRENCY, INPUT_TOKENS, OUTPUT_TOKENS, REQUESTS, TOKEN_UNITS, TOKENS
from .headers.durations import go_duration, milliseconds_up, seconds_up
from .headers.ietf import named_verdicts
from .problems import ERROR_FORMATS, Problem, content_type

__all__ = [
    "ERROR_FORMATS",
    "LONGEST_RETRY",
    "clean_request_id",
    "content_type",
    "count_tries",
    "fair_wait_us",
    "id_headers",
    "is_request_id",
    "never_taken_body",
    "never_taken_headers",
    "new_request_id",
    "refusal_body",
    "refusal_headers",
    "refusal_message",
    "refusal_status",
    "unavailable_body",
    "unavailable_headers",
]

LONGEST_RETRY = 60
"""Seconds. Told to wait longer, some SDKs ignore it and come back at once, others sleep it: ask them not to retry."""

_LONGEST_FAIR_US = LONGEST_RETRY * MICROSECONDS
_LONGEST_GUESS_US = 20 * MICROSECONDS
_MOST_DOUBLINGS = 4
_SPREAD_US = 900_000
_DIGITS = 3

_PROBLEM_TYPES = "https://iana.org/assignments/http-problem-types#"
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_NOUNS = {
    REQUESTS: "Request limit",
    TOKENS: "Token limit",
    INPUT_TOKENS: "Input token limit",
    OUTPUT_TOKENS: "Output token limit",
}
_ADVICE = {
    TOKENS: "shorten the prompt or lower max_tokens",
    INPUT_TOKENS: "shorten the prompt",
    OUTPUT_TOKENS: "lower max_tokens",
}


def new_request_id() -> str:
    """A fresh id for one request: ``req_`` and 24 hexadecimal digits, 96 random bits. It is no secret."""
    return f"req_{_numbers.getrandbits(96):024x}"


# Asking the system for each id takes ten times as long. A generator of its own, because an application that seeds
# Python's makes all its workers draw alike; and each child process draws anew.
_numbers = Random()  # noqa: S311  see above
os.register_at_fork(after_in_child=_numbers.seed)


def clean_request_id(value: str | None) -> str:
    """Answer a client's X-Request-Id if it is 1 to 128 of ``A-Za-z0-9_.-``, else a fresh id."""
    return value if value is not None and is_request_id(value) else new_request_id()


def is_request_id(value: str) -> bool:
    """Whether it is 1 to 128 of ``A-Za-z0-9_.-``, and so fit for a header."""
    return _REQUEST_ID.fullmatch(value) is not None


def id_headers(request_id: str) -> list[tuple[str, str]]:
    """The names under which OpenAI's and Anthropic's SDKs look for the id of an answer."""
    return [("x-request-id", request_id), ("request-id", request_id)]


def refusal_status(decision: Decision, too_large_status: int = 413) -> int:
    """429 if waiting helps, else ``too_large_status``.

    No client that was tried retries a 413. 400 suits clients that know no 413; 429 is what OpenAI sends, and
    several clients retry it in vain.
    """
    _require_refused(decision)
    return 429 if decision.possible else too_large_status


def refusal_headers(decision: Decision, request_id: str, tries: int | None = None) -> list[tuple[str, str]]:
    """The headers that only a refusal has: how long to wait, whether to retry at all, and the request's id.

    Retry-After is whole seconds, 1 or more (urllib3 raises on a fraction); retry-after-ms is exact to the
    millisecond, and the SDKs prefer it. Who waits either is admitted, other traffic aside. A request that never
    fits has neither, and ``x-should-retry: false``.

    Args:
        decision: The decision that refused.
        request_id: From :func:`clean_request_id`.
        tries: How often the client was refused before, if it says so; see :func:`fair_wait_us`.

    Raises:
        ValueError: The decision refuses nothing, or the id didn't come from :func:`clean_request_id`.
    """
    return _wait_headers(fair_wait_us(_require_refused(decision), tries)) + _common_headers(request_id)


def count_tries(value: str | None) -> int | None:
    """How often a client says it was refused before: its ``x-stainless-retry-count``, as the SDKs send it, or None."""
    return int(value) if value is not None and value.isascii() and value.isdigit() and len(value) <= _DIGITS else None


def fair_wait_us(verdict: Verdict, tries: int | None) -> int | None:
    """Microseconds to ask a client for, so that of several that were refused at once none is always the last.

    All would come back at the same moment, and whoever is first then is first again the next time. So who has waited
    more often comes earlier: up to 0.9 s are added to the wait, the less of it the more tries there were. Where the
    wait is a guess, as it is for calls in flight, it doubles from try to try. A client that counts no tries is told
    the wait as it is.
    """
    wait_us = verdict.retry_after_us
    if wait_us is None or tries is None or wait_us > _LONGEST_FAIR_US:
        return wait_us
    if verdict.quota.unit == CONCURRENCY:
        return max(wait_us, min(wait_us << min(tries, _MOST_DOUBLINGS), _LONGEST_GUESS_US))
    return min(wait_us + _SPREAD_US // (tries + 1), _LONGEST_FAIR_US)


def refusal_message(decision: Decision, unnamed_output: int = 0) -> str:
    """For a person: which limit it was, how much was used and asked for, and what to do.

    The wait is a number of seconds right after "Try again in", rounded up to a tenth: many clients fish it out
    with a regular expression, and misread minutes.

    Args:
        decision: The decision that refused.
        unnamed_output: Output tokens that were reserved because the request names no maximum.
    """
    verdict = _require_refused(decision)
    quota, cost = verdict.quota, verdict.charge.cost
    default = min(unnamed_output, cost) if quota.unit in (TOKENS, OUTPUT_TOKENS) else 0
    why = f" Of these, {default} output tokens were reserved because the request names no maximum: send max_tokens."
    why = why if default else ""
    if verdict.retry_after_us is None:
        units = "slots" if quota.unit == CONCURRENCY else quota.unit.replace("_", " ")
        return (
            f"This request needs {cost} {units}, but a limit of {quota.text} allows {quota.burst} at most. "
            f"Waiting does not help: {_ADVICE.get(quota.unit, 'make a smaller request')}.{why}"
        )
    wait = f"Try again in {_spoken(verdict.retry_after_us)}."
    if quota.unit == CONCURRENCY:
        return f"Concurrency limit reached: {verdict.used} of {quota.limit} in flight. {wait}"
    noun = _NOUNS.get(quota.unit, "Limit")
    burst = "" if quota.burst == quota.limit else f" with a burst of {quota.burst}"
    return f"{noun} reached: limit {quota.text}{burst}, used {verdict.used}, requested {cost}.{why} {wait}"


def refusal_body(
    decision: Decision, status: int, request_id: str, error_format: str = "hybrid", *, unnamed_output: int = 0
) -> dict[str, object]:
    """The JSON body of a refusal. It is made of numbers and names: no subject, key, scope or prompt.

    Args:
        decision: The decision that refused.
        status: The status it is sent with, from :func:`refusal_status`.
        request_id: The id in the headers.
        error_format: A key of :data:`ERROR_FORMATS`.
        unnamed_output: As in :func:`refusal_message`.

    Raises:
        ValueError: The decision refuses nothing.
    """
    verdict = _require_refused(decision)
    named = named_verdicts(decision)
    unit, code = verdict.quota.unit, _code(verdict)
    problem = Problem(
        uri=f"{_PROBLEM_TYPES}quota-exceeded",
        title="Quota exceeded",
        status=status,
        detail=refusal_message(decision, unnamed_output),
        code=code,
        openai_type="tokens" if unit in TOKEN_UNITS else unit,
        openai_code=code if verdict.retry_after_us is None else "rate_limit_exceeded",
        request_id=request_id,
        limit=_limit(next(name for name, each in named if each is verdict), verdict),
        policies=tuple(name for name, each in named if not each.allowed),
    )
    return ERROR_FORMATS[error_format](problem)


def unavailable_headers(request_id: str, retry_after: int = 1) -> list[tuple[str, str]]:
    """The headers of a 503: the store is away and the limit's policy is to refuse.

    ``retry_after`` is whole seconds, 1 or more.
    """
    return _wait_headers(retry_after * MICROSECONDS) + _common_headers(request_id)


def unavailable_body(request_id: str, error_format: str = "hybrid") -> dict[str, object]:
    """The JSON body of a 503. It says nothing of the store: what broke belongs in the log."""
    problem = Problem(
        uri=f"{_PROBLEM_TYPES}temporary-reduced-capacity",
        title="Temporary reduced capacity",
        status=503,
        detail="Limits can't be checked right now, so this request was refused. Try again shortly.",
        code="limiter_unavailable",
        openai_type="server_error",
        openai_code="limiter_unavailable",
        request_id=request_id,
    )
    return ERROR_FORMATS[error_format](problem)


def never_taken_headers(request_id: str) -> list[tuple[str, str]]:
    """The headers of a refusal that no waiting helps against."""
    return _wait_headers(None) + _common_headers(request_id)


def never_taken_body(
    status: int, code: str, detail: str, request_id: str, error_format: str = "hybrid"
) -> dict[str, object]:
    """The JSON body of a refusal that no waiting helps against.

    Args:
        status: 400, 403 or 413.
        code: Our word for it, such as ``invalid_body`` or ``not_allowed``.
        detail: A sentence that repeats nothing of what was sent.
        request_id: The id in the headers.
        error_format: A key of :data:`ERROR_FORMATS`.
    """
    problem = Problem(
        uri="about:blank",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        openai_type="invalid_request_error",
        openai_code=code,
        request_id=request_id,
    )
    return ERROR_FORMATS[error_format](problem)


def _require_refused(decision: Decision) -> Verdict:
    if not decision.refused:
        raise ValueError("decision: it refuses nothing, so there is no refusal to write.")
    return decision.refused[0]


def _code(verdict: Verdict) -> str:
    if verdict.retry_after_us is None:
        return "cost_exceeds_limit"
    unit = verdict.quota.unit
    if unit in TOKEN_UNITS:
        return "token_limit_exceeded"
    return "concurrency_limit_exceeded" if unit == CONCURRENCY else "rate_limit_exceeded"


def _limit(name: str, verdict: Verdict) -> dict[str, object]:
    quota, wait_us = verdict.quota, verdict.retry_after_us
    return {
        "name": name,
        "limit": quota.limit,
        "burst": quota.burst,
        "remaining": quota.burst - verdict.used,
        "used": verdict.used,
        "requested": verdict.charge.cost,
        "reset_after": milliseconds_up(verdict.reset_after_us) / 1000,
        "retry_after": None if wait_us is None else max(1, milliseconds_up(wait_us)) / 1000,
    }


def _wait_headers(wait_us: int | None) -> list[tuple[str, str]]:
    if wait_us is None:
        return [("x-should-retry", "false")]
    headers = [
        ("Retry-After", str(max(1, seconds_up(wait_us)))),
        ("retry-after-ms", str(max(1, milliseconds_up(wait_us)))),
    ]
    return headers if wait_us <= LONGEST_RETRY * MICROSECONDS else [*headers, ("x-should-retry", "false")]


def _common_headers(request_id: str) -> list[tuple[str, str]]:
    if not is_request_id(request_id):
        raise ValueError("request_id: it is not fit for a header. Take it from clean_request_id().")
    return [*id_headers(request_id), ("Cache-Control", "no-store")]


def _spoken(wait_us: int) -> str:
    if wait_us > LONGEST_RETRY * MICROSECONDS:
        seconds = seconds_up(wait_us)
        return f"{seconds} s ({go_duration(seconds * MICROSECONDS)})"
    seconds, tenths = divmod(max(1, -(-wait_us * 10 // MICROSECONDS)), 10)
    return f"{seconds}.{tenths} s" if tenths else f"{seconds} s"
