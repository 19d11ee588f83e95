"""Makes the status, headers and body of a refusal from its decision. Pure functions, without Flask.

Each part was tried with the real SDKs. ``docs/headers.md`` describes all of it.
"""

import os
import re
from http import HTTPStatus
from math import ceil
from random import Random

from flask_ailimit.engine.clock import MICROSECONDS
from flask_ailimit.engine.decision import Decision, Verdict
from flask_ailimit.engine.quota import (
    CONCURRENCY,
    EVER,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    REQUESTS,
    TOKEN_UNITS,
    TOKENS,
    Quota,
    amount_in_words,
    in_largest_unit,
)
from flask_ailimit.engine.standing import Standing, standing_of
from flask_ailimit.headers.durations import go_duration, milliseconds_up, seconds_up
from flask_ailimit.headers.ietf import named_verdicts
from flask_ailimit.upstream.refusing import LIMITED_BY, UPSTREAM

from .problems import ERROR_FORMATS, Problem, content_type

__all__ = [
    "ERROR_FORMATS",
    "LONGEST_RETRY",
    "clean_request_id",
    "content_type",
    "fair_wait_us",
    "id_headers",
    "is_request_id",
    "never_taken_body",
    "never_taken_headers",
    "new_request_id",
    "parse_retry_count",
    "refusal_body",
    "refusal_headers",
    "refusal_message",
    "refusal_status",
    "unavailable_body",
    "unavailable_headers",
    "upstream_body",
    "upstream_headers",
]

LONGEST_RETRY = 60
"""Seconds. If the wait is longer, some SDKs retry at once and others sleep so long. So they are asked not to retry."""

_LONGEST_FAIR_US = LONGEST_RETRY * MICROSECONDS
_LONGEST_GUESS_US = 20 * MICROSECONDS
_MOST_DOUBLINGS = 4
_SPREAD_US = 900_000
_DIGITS = 3

_SPENT = "insufficient_quota"
"""OpenAI's code, and its type, for a budget that is spent."""

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

_OF_UPSTREAMS = {
    "upstream_busy": "This service may send no more to its model's provider at the moment.",
    "upstream_limited": "The provider of this service's model takes no more calls of this service.",
    "upstream_unavailable": "The provider of this service's model can't answer now.",
    "upstream_failed": "The provider of this service's model gave no whole answer. It may have worked on the request.",
    "upstream_rejected": "The provider of this service's model does not take this request. Waiting does not help.",
    "upstream_too_large": (
        "This request is larger than the provider of this service's model takes. Waiting does not help: shorten the "
        "prompt or lower max_tokens."
    ),
}
"""What is said to a client that got no answer of an upstream, by our code for it."""


def new_request_id() -> str:
    """A new id for one request: ``req_`` and 24 hexadecimal digits, 96 random bits. It is no secret."""
    return f"req_{_numbers.getrandbits(96):024x}"


# The system's random numbers would take ten times as long. This is not Python's global generator, because an app that
# seeds that one would get the same ids in all its workers. Each child process seeds this one again.
_numbers = Random()  # noqa: S311  see above
os.register_at_fork(after_in_child=_numbers.seed)


def clean_request_id(value: str | None) -> str:
    """Return a client's X-Request-Id if it is 1 to 128 of ``A-Za-z0-9_.-``, else a new id."""
    return value if value is not None and is_request_id(value) else new_request_id()


def is_request_id(value: str) -> bool:
    """Whether the value is 1 to 128 of ``A-Za-z0-9_.-``, and so fit for a header."""
    return _REQUEST_ID.fullmatch(value) is not None


def id_headers(request_id: str) -> list[tuple[str, str]]:
    """The headers in which the SDKs of OpenAI and Anthropic look for the id of an answer."""
    return [("x-request-id", request_id), ("request-id", request_id)]


def refusal_status(decision: Decision, too_large_status: int = 413) -> int:
    """429 if waiting helps, else ``too_large_status``.

    No client that was tried retries a 413. A 400 is for clients that don't know 413. OpenAI sends a 429, and several
    clients retry it in vain.
    """
    _require_refused(decision)
    return 429 if decision.possible else too_large_status


def refusal_headers(decision: Decision, request_id: str, tries: int | None = None) -> list[tuple[str, str]]:
    """The headers that only a refusal has: how long to wait, whether to retry, and the request's id.

    Retry-After is in whole seconds, 1 or more (urllib3 raises on a fraction). retry-after-ms is exact to the
    millisecond, and the SDKs prefer it. After either wait the request fits, if no other request comes first. A request
    that never fits has neither header, but ``x-should-retry: false``. Neither has one whose budget is spent: the SDKs
    would send it three times otherwise, and other clients would sleep for weeks.

    Args:
        decision: The decision that refused.
        request_id: From :func:`clean_request_id`.
        tries: How often the client says it was refused before; see :func:`fair_wait_us`.

    Raises:
        ValueError: The decision refuses nothing, or the id didn't come from :func:`clean_request_id`.
    """
    verdict = _require_refused(decision)
    wait_us = None if verdict.is_spent else fair_wait_us(verdict, tries)
    return _wait_headers(wait_us) + _common_headers(request_id)


def parse_retry_count(value: str | None) -> int | None:
    """How often a client says it was refused before: the SDKs' ``x-stainless-retry-count``; None if it is no count."""
    return int(value) if value is not None and value.isascii() and value.isdigit() and len(value) <= _DIGITS else None


def fair_wait_us(verdict: Verdict, tries: int | None) -> int | None:
    """The wait in microseconds that a client is told, so that no client is always the last of several.

    Clients that are refused at the same moment would all come back at the same moment, and the first would be first
    again each time. So up to 0.9 s are added to the wait, and less after each try: a client that was refused more often
    comes earlier. For calls in flight the wait is a guess, and it doubles with each try, up to 20 s. A client that
    counts no tries is told the wait as it is, and so is one that must wait more than a minute.
    """
    wait_us = verdict.retry_after_us
    if wait_us is None or tries is None or wait_us > _LONGEST_FAIR_US:
        return wait_us
    if verdict.quota.unit == CONCURRENCY:
        return max(wait_us, min(wait_us << min(tries, _MOST_DOUBLINGS), _LONGEST_GUESS_US))
    return min(wait_us + _SPREAD_US // (tries + 1), _LONGEST_FAIR_US)


def refusal_message(decision: Decision, unnamed_output: int = 0) -> str:
    """The sentence for a person: the limit that refused, how much was used and requested, and what to do.

    The wait is a number of seconds, rounded up to a tenth, right after "Try again in", because many clients find it
    with a regular expression, and misread minutes.

    If clients are not told of the limit (``in_headers=False``), the sentence has the wait and nothing else.

    Args:
        decision: The decision that refused.
        unnamed_output: Output tokens that were reserved because the request names no maximum.
    """
    verdict = _require_refused(decision)
    quota, cost = verdict.quota, verdict.charge.cost
    if not quota.in_headers:
        return _message_without_limit(verdict)
    named = f" '{quota.label}'" if quota.label else ""
    standing = standing_of(verdict)
    if standing is not None:
        return _budget_message(verdict, standing, named, is_guess=unnamed_output > 0)
    default = min(unnamed_output, cost) if quota.unit in (TOKENS, OUTPUT_TOKENS) else 0
    why = f" Of these, {default} output tokens were reserved because the request names no maximum: send max_tokens."
    why = why if default else ""
    if verdict.retry_after_us is None:
        units = "slots" if quota.unit == CONCURRENCY else quota.unit.replace("_", " ")
        # What a guess may have added to tokens is never the reason.
        least = "at least " if quota.unit in (TOKENS, INPUT_TOKENS, OUTPUT_TOKENS) else ""
        return (
            f"This request needs {least}{cost} {units}, "
            f"but a limit{named} of {quota.text} allows {quota.burst} at most. "
            f"Waiting does not help: {_ADVICE.get(quota.unit, 'make a smaller request')}.{why}"
        )
    wait = f"Try again in {_spoken(verdict.retry_after_us)}."
    if quota.unit == CONCURRENCY:
        return f"Concurrency limit{named} reached: {verdict.used} of {quota.limit} in flight. {wait}"
    noun = _NOUNS.get(quota.unit, "Limit")
    burst = "" if quota.burst == quota.limit else f" with a burst of {quota.burst}"
    return f"{noun}{named} reached: limit {quota.text}{burst}, used {verdict.used}, requested {cost}.{why} {wait}"


def _message_without_limit(verdict: Verdict) -> str:
    """The sentence about a limit of which clients are not told."""
    if verdict.is_spent:
        return "The service takes no such request of yours at present. To wait a little does not help."
    if verdict.retry_after_us is None:
        return "This request is larger than the service takes. Waiting does not help: make a smaller request."
    return f"The service takes no such request at the moment. Try again in {_spoken(verdict.retry_after_us)}."


def _budget_message(verdict: Verdict, standing: Standing, named: str, *, is_guess: bool) -> str:
    """The sentence about a budget: what is spent, reserved and left, when it is renewed, and what to do."""
    quota, wait_us = verdict.quota, verdict.retry_after_us
    asked = f"this request may cost {amount_in_words(verdict.charge.cost, quota.unit)}"
    why = " The request names no maximum, so output was reserved that it may not need: send max_tokens."
    why = why if is_guess else ""
    if verdict.is_spent:
        advice = "Ask for more credit, or wait until then." if standing.resets else "Ask for more credit."
        return f"Budget{named} spent: {asked}, {standing.sentence}{why} {advice}"
    if wait_us is None:
        whole = f"a budget{named} of {quota.text} allows less"
        return f"T{asked[1:]}, but {whole}. Waiting does not help: shorten the prompt or lower max_tokens.{why}"
    wait = f"Try again in {_spoken(wait_us)}."
    return f"Budget{named} reserved by other calls: {asked}, {standing.sentence}{why} {wait}"


def refusal_body(
    decision: Decision, status: int, request_id: str, error_format: str = "hybrid", *, unnamed_output: int = 0
) -> dict[str, object]:
    """The JSON body of a refusal. It has only numbers and names: no subject, key, scope or prompt.

    Of a limit of which clients are not told (``in_headers=False``) it has neither.

    Args:
        decision: The decision that refused.
        status: The status of the answer, from :func:`refusal_status`.
        request_id: The id in the headers.
        error_format: A key of :data:`ERROR_FORMATS`.
        unnamed_output: As in :func:`refusal_message`.

    Raises:
        ValueError: The decision refuses nothing.
    """
    verdict = _require_refused(decision)
    told = named_verdicts(decision.told())
    unit = verdict.quota.unit if verdict.quota.in_headers else REQUESTS
    code = _code(verdict, unit)
    problem = Problem(
        uri=f"{_PROBLEM_TYPES}quota-exceeded",
        title="Quota exceeded",
        status=status,
        detail=refusal_message(decision, unnamed_output),
        code=code,
        openai_type=code if code == _SPENT else "tokens" if unit in TOKEN_UNITS else unit,
        openai_code=code if verdict.retry_after_us is None or code == _SPENT else "rate_limit_exceeded",
        request_id=request_id,
        limit=next((_limit(name, each) for name, each in told if each is verdict), None),
        policies=tuple(name for name, each in told if not each.allowed),
    )
    return ERROR_FORMATS[error_format](problem)


def unavailable_headers(request_id: str, retry_after: int = 1) -> list[tuple[str, str]]:
    """The headers of a 503: the limits can't be checked.

    ``retry_after`` is whole seconds, 1 or more.
    """
    return _wait_headers(retry_after * MICROSECONDS) + _common_headers(request_id)


def unavailable_body(request_id: str, error_format: str = "hybrid") -> dict[str, object]:
    """The JSON body of a 503. It says nothing about the store; the log says what failed."""
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
    """The headers of an answer to a request that can't be taken, and that waiting doesn't help."""
    return _wait_headers(None) + _common_headers(request_id)


def never_taken_body(
    status: int, code: str, detail: str, request_id: str, error_format: str = "hybrid"
) -> dict[str, object]:
    """The JSON body of an answer to a request that can't be taken, and that waiting doesn't help.

    Args:
        status: 400, 403 or 413.
        code: Our code for the problem, such as ``invalid_body`` or ``not_allowed``.
        detail: A sentence that repeats nothing of the request.
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


def upstream_headers(
    request_id: str, upstream: str, limited_by: str | None, retry_after: float | None
) -> list[tuple[str, str]]:
    """The headers of an answer to a request that got none of an upstream.

    Args:
        request_id: From :func:`clean_request_id`.
        upstream: The upstream's name.
        limited_by: Whose limit it is: ``app`` or ``provider``; None if it is no limit.
        retry_after: Seconds after which to come back; None if that doesn't help.
    """
    wait_us = None if retry_after is None else max(1, ceil(retry_after * MICROSECONDS))
    whose = [] if limited_by is None else [(LIMITED_BY, limited_by)]
    return [*_wait_headers(wait_us), *_common_headers(request_id), (UPSTREAM, upstream), *whose]


def upstream_body(
    status: int, code: str, retry_after: float | None, request_id: str, error_format: str = "hybrid"
) -> dict[str, object]:
    """The JSON body of an answer to a request that got none of an upstream. It has nothing of the upstream's answer.

    Args:
        status: The status of the answer.
        code: A key of the sentences about upstreams.
        retry_after: As of :func:`upstream_headers`.
        request_id: The id in the headers.
        error_format: A key of :data:`ERROR_FORMATS`.
    """
    advice = "" if retry_after is None else f" Try again in {_spoken(ceil(retry_after * MICROSECONDS))}."
    may_come_back = status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
    types = {HTTPStatus.TOO_MANY_REQUESTS: "requests", HTTPStatus.BAD_REQUEST: "invalid_request_error"}
    problem = Problem(
        uri=f"{_PROBLEM_TYPES}temporary-reduced-capacity" if may_come_back else "about:blank",
        title="Temporary reduced capacity" if may_come_back else HTTPStatus(status).phrase,
        status=status,
        detail=_OF_UPSTREAMS[code] + advice,
        code=code,
        openai_type=types.get(HTTPStatus(status), "server_error"),
        openai_code=code,
        request_id=request_id,
    )
    return ERROR_FORMATS[error_format](problem)


def _require_refused(decision: Decision) -> Verdict:
    if not decision.refused:
        raise ValueError("decision: it refuses nothing, so there is no refusal to write.")
    return decision.refused[0]


def _code(verdict: Verdict, unit: str) -> str:
    if verdict.is_spent and verdict.quota.in_headers:
        return _SPENT
    if verdict.retry_after_us is None:
        return "cost_exceeds_limit"
    if unit in TOKEN_UNITS:
        return "token_limit_exceeded"
    return "concurrency_limit_exceeded" if unit == CONCURRENCY else "rate_limit_exceeded"


def _limit(name: str, verdict: Verdict) -> dict[str, object]:
    quota, wait_us = verdict.quota, verdict.retry_after_us
    standing = standing_of(verdict)
    if standing is not None:
        return {
            "name": name,
            "text": quota.text,
            **standing._asdict(),
            "requested": amount_in_words(verdict.charge.cost, quota.unit).partition(" ")[0],
            "reset_after": None if quota.every == EVER else milliseconds_up(verdict.reset_after_us) / 1000,
            "retry_after": None if wait_us is None or verdict.is_spent else max(1, milliseconds_up(wait_us)) / 1000,
        }
    return {
        "name": name,
        "text": _in_words(quota),
        "limit": quota.limit,
        "burst": quota.burst,
        "remaining": quota.burst - verdict.used,
        "used": verdict.used,
        "requested": verdict.charge.cost,
        "reset_after": milliseconds_up(verdict.reset_after_us) / 1000,
        "retry_after": None if wait_us is None else max(1, milliseconds_up(wait_us)) / 1000,
    }


def _in_words(quota: Quota) -> str:
    """The limit as a person would say it; one on requests as Flask-Limiter says it: ``3 per 1 hour``."""
    if quota.unit != REQUESTS or quota.every:
        return quota.text
    count, name = in_largest_unit(quota.period)
    return f"{quota.limit} per {count} {name}"


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
