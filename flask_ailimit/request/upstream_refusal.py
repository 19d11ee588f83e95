"""Makes the answer to a request that got none of an upstream of the app."""

import logging
from collections.abc import Mapping
from typing import NamedTuple

from flask_ailimit.http.errors import UpstreamRefused, upstream_refused
from flask_ailimit.http.responses import new_request_id
from flask_ailimit.signals import tell
from flask_ailimit.signals import upstream_refused as told
from flask_ailimit.upstream.answers import PAUSED, Answer, Kind
from flask_ailimit.upstream.pacing import Wait
from flask_ailimit.upstream.refusing import LIMITED_BY, OWN, THEIRS

from .ledger import Ledger

_log = logging.getLogger("flask_ailimit")

BUSY, LIMITED, UNAVAILABLE = "upstream_busy", "upstream_limited", "upstream_unavailable"
FAILED, REJECTED, TOO_LARGE = "upstream_failed", "upstream_rejected", "upstream_too_large"

_SHORTLY = 1.0
"""Seconds after which to come back, where a provider is in trouble and names no time."""

_GATEWAY_TIMEOUT = 504

_FACTS_IF_OFF = {"error_format": "hybrid"}
"""Of an answer where limits are switched off, and with them the settings."""


class Meaning(NamedTuple):
    """What a client is told.

    Attributes:
        status: The HTTP status.
        code: Our code for it.
        limited_by: Whose limit it is; None if it is no limit.
        wait: Seconds after which to come back; None if that doesn't help.
        charges_nothing: Whether the client gets back what was reserved. It doesn't if its request itself is wrong, or
            it could have such requests for nothing, while the provider may bill them.
    """

    status: int
    code: str
    limited_by: str | None = None
    wait: float | None = None
    charges_nothing: bool = True


_MEANINGS = {
    Kind.SPENT: Meaning(503, LIMITED, THEIRS),
    Kind.NEVER_FITS: Meaning(413, TOO_LARGE, THEIRS, charges_nothing=False),
    Kind.TOO_LONG: Meaning(413, TOO_LARGE, charges_nothing=False),
    Kind.FILTERED: Meaning(400, REJECTED, charges_nothing=False),
    Kind.CALLER: Meaning(502, REJECTED, charges_nothing=False),
    Kind.NOT_IN_PLAN: Meaning(502, REJECTED),
    Kind.OVERLOADED: Meaning(503, UNAVAILABLE, wait=_SHORTLY),
    Kind.UNSENT: Meaning(503, UNAVAILABLE, wait=_SHORTLY),
}
"""By the kind of the provider's answer. Throttled calls are told from each other, and all others have failed."""


def meaning_of(answer: Answer, headers: Mapping[str, str]) -> Meaning:
    """What a client is told after an answer of an upstream, or of our own transport in its place.

    Args:
        answer: What the answer means.
        headers: Its headers, by lower-case name.
    """
    is_own = headers.get(LIMITED_BY) == OWN
    if is_own and answer.status == _GATEWAY_TIMEOUT:  # So says our transport that the provider has not answered.
        return Meaning(502, FAILED)
    asked = answer.retry_after
    if answer.kind is Kind.THROTTLED:
        wait = _SHORTLY if asked is None else asked
        is_theirs = not is_own or answer.reason == PAUSED
        return Meaning(429, LIMITED, THEIRS, wait) if is_theirs else Meaning(429, BUSY, OWN, wait)
    meaning = _MEANINGS.get(answer.kind, Meaning(502, FAILED))
    if meaning.wait is None or asked is None:
        return meaning
    return meaning._replace(wait=asked, limited_by=OWN if is_own else None)


def meaning_of_wait(wait: Wait) -> Meaning:
    """What a client is told whose request would wait too long for an upstream."""
    if wait.why in ("open", "half-open"):
        return Meaning(503, UNAVAILABLE, OWN, wait.seconds)
    if wait.why == "spent":
        return _MEANINGS[Kind.SPENT]
    if wait.why == PAUSED:
        return Meaning(429, LIMITED, THEIRS, wait.seconds)
    return Meaning(429, BUSY, OWN, wait.seconds)


def answer_with(ledger: Ledger | None, upstream: str, meaning: Meaning, why: str) -> UpstreamRefused:
    """The error that is the answer to the current request. If it is sent, the client is charged as it says.

    Args:
        ledger: What the request owes; None if limits are switched off.
        upstream: The upstream's name.
        meaning: What the client is told.
        why: A word for the log.
    """
    said = meaning._asdict()
    facts_of_answer = _FACTS_IF_OFF | {"request_id": new_request_id()} if ledger is None else ledger.answer_facts
    error = upstream_refused(said.pop("status"), upstream, said.pop("code"), **said, **facts_of_answer)
    _log.warning(
        "upstream %s: request %s is answered with %d %s (%s).",
        *(upstream, error.request_id, meaning.status, meaning.code, why),
    )
    if ledger is not None:
        ledger.turned_away = error
        facts = {"limited_by": meaning.limited_by, "retry_after": meaning.wait}
        tell(told, ledger.app, upstream=upstream, status=meaning.status, code=meaning.code, **facts, **ledger.facts)
    return error
