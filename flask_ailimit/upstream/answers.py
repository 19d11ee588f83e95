"""What an answer of a provider means, or the lack of one: a kind, and for each kind what to do. Pure tables.

A client can't choose the kind that stops others (``SPENT`` pauses an account), nor that of a wrong key: they follow
from statuses and words of the provider's, and from how some of its sentences begin. Where a sentence may repeat what a
client wrote, only kinds that concern this one call are read from it.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Literal, NamedTuple

from .error_body import NOTHING, ErrorBody, error_in
from .header_values import header_of
from .told import told_by


class Kind(StrEnum):
    """What became of a call."""

    GOOD = "good"
    THROTTLED = "throttled"
    """Too much at the moment. It may be long: whoever waits compares the wait with the most that he waits."""
    SPENT = "spent"
    """The account's money or quota is used up."""
    NEVER_FITS = "never fits"
    """The request is larger than the whole limit."""
    NOT_IN_PLAN = "not in plan"
    """The account doesn't have this model."""
    OVERLOADED = "overloaded"
    """The provider is overloaded or broken. What it began is not billed."""
    UNSENT = "unsent"
    """The provider has not begun with it."""
    UNCERTAIN = "uncertain"
    """The provider may have answered, and may bill it."""
    TRUNCATED = "truncated"
    """The answer began, and did not end."""
    CALLER = "caller"
    """The request is wrong."""
    TOO_LONG = "too long"
    """The prompt is longer than the model takes."""
    CREDENTIAL = "credential"
    """The key is not taken."""
    FILTERED = "filtered"
    """The provider doesn't answer such content."""


class Policy(NamedTuple):
    """What to do after an answer of a kind.

    Attributes:
        retry: Whether to send the same again: after the wait it asks for, within the budget of retries.
        falls_back: Whether another target may be asked.
        fault: Whether it counts against the provider's health; see :attr:`Answer.is_fault`.
        pause: Who waits besides this call. ``until told``: all calls of the same models, if the answer asks for a wait.
            ``account``: all calls of the account, for a time of the app's own; somebody must be told.
        refund: What is given back of what was reserved. ``all``: nothing was used. ``estimate``: nothing is given back,
            and what was really used stays unknown. ``seen``: it is settled with what was seen, and without a report of
            the provider's nothing is given back.
        only_larger: Another target must take more: a larger limit, or a longer prompt.
    """

    retry: bool = False
    falls_back: bool = False
    fault: bool = False
    pause: Literal["none", "until told", "account"] = "none"
    refund: Literal["all", "estimate", "seen"] = "all"
    only_larger: bool = False


POLICIES: Mapping[Kind, Policy] = {
    Kind.GOOD: Policy(refund="seen"),
    Kind.THROTTLED: Policy(retry=True, falls_back=True, pause="until told"),
    Kind.SPENT: Policy(falls_back=True, pause="account"),
    Kind.NEVER_FITS: Policy(falls_back=True, only_larger=True),
    Kind.NOT_IN_PLAN: Policy(falls_back=True),
    Kind.OVERLOADED: Policy(retry=True, falls_back=True, fault=True, pause="until told"),
    Kind.UNSENT: Policy(retry=True, falls_back=True, fault=True),
    Kind.UNCERTAIN: Policy(fault=True, refund="estimate"),
    Kind.TRUNCATED: Policy(fault=True, refund="seen"),
    Kind.CALLER: Policy(),
    Kind.TOO_LONG: Policy(falls_back=True, only_larger=True),
    Kind.CREDENTIAL: Policy(falls_back=True),
    Kind.FILTERED: Policy(refund="seen"),
}
"""A kind per row. Another kind is a row here."""

NO_FAULTS = frozenset({"pool", "cancelled", "failed", "conflict", "request-timeout"})
"""Reasons that say nothing of the provider's health: what we did ourselves, or raised, as of an event loop that is
closed, and what it declined in good order."""


class Answer(NamedTuple):
    """What a call met with.

    Attributes:
        kind: What that means.
        status: The HTTP status; 0 without an answer.
        retry_after: Seconds after which the provider asks to come back, 0 to ten years of them; None if it doesn't ask.
        reason: A short word of our own for logs, never a text of the provider's.
        should_retry: The provider's ``x-should-retry``; None if it sent none.
    """

    kind: Kind
    status: int
    retry_after: float | None
    reason: str
    should_retry: bool | None = None

    @property
    def policy(self) -> Policy:
        """What to do."""
        return POLICIES[self.kind]

    @property
    def is_fault(self) -> bool:
        """Whether it counts against the provider's health."""
        return POLICIES[self.kind].fault and self.reason not in NO_FAULTS

    def is_worth_retrying(self, most: float, *, uncertain: bool = False) -> bool:
        """Whether to send the same again.

        Args:
            most: Seconds. Who is asked to wait longer doesn't.
            uncertain: Also if the provider may have answered already, and may bill both.
        """
        if not (POLICIES[self.kind].retry or (uncertain and self.kind is Kind.UNCERTAIN)):
            return False
        # With a wait, "false" may only mean that most clients would not wait so long. Ours say so, too.
        return self.should_retry is not False if self.retry_after is None else self.retry_after <= most


_STATUSES = {
    400: (Kind.CALLER, "bad-request"),
    401: (Kind.CREDENTIAL, "unauthorized"),
    402: (Kind.SPENT, "spent"),
    403: (Kind.CREDENTIAL, "forbidden"),
    404: (Kind.CALLER, "not-found"),
    408: (Kind.UNSENT, "request-timeout"),
    409: (Kind.UNSENT, "conflict"),
    413: (Kind.CALLER, "too-large"),
    422: (Kind.CALLER, "bad-request"),
    425: (Kind.UNSENT, "conflict"),
    429: (Kind.THROTTLED, "throttled"),
    499: (Kind.UNCERTAIN, "cancelled"),
    501: (Kind.CALLER, "not-implemented"),
    505: (Kind.CALLER, "not-implemented"),
    529: (Kind.OVERLOADED, "overloaded"),
}
"""What a status means of which nothing more is known. Others below 500 are the caller's, from 500 on the provider's."""

_SPENT, _FITS_NOT, _NO_PLAN = Kind.SPENT, Kind.NEVER_FITS, Kind.NOT_IN_PLAN
_WORDS = {
    "insufficient_quota": _SPENT,
    "billing_error": _SPENT,
    "billing_not_active": _SPENT,
    "billing_hard_limit_reached": _SPENT,
    "enforced_spend_limit_reached": _SPENT,
    "contract_spend_limit_reached": _SPENT,
    "upstream_spent": _SPENT,
    "cost_exceeds_limit": _FITS_NOT,
    "model_not_found": _NO_PLAN,
    "deploymentnotfound": _NO_PLAN,
    "model_not_allowed": _NO_PLAN,
    "model_not_priced": _NO_PLAN,
    "not_allowed": _NO_PLAN,
    "context_length_exceeded": Kind.TOO_LONG,
    "exceed_context_size_error": Kind.TOO_LONG,
    "content_filter": Kind.FILTERED,
    "content_policy_violation": Kind.FILTERED,
    "responsibleaipolicyviolation": Kind.FILTERED,
    "moderation_blocked": Kind.FILTERED,
    "invalid_prompt": Kind.FILTERED,
    "api_key_invalid": Kind.CREDENTIAL,
    "invalid_api_key": Kind.CREDENTIAL,
    "authentication_error": Kind.CREDENTIAL,
    "overloaded_error": Kind.OVERLOADED,
    "engine_overloaded_error": Kind.OVERLOADED,
}
"""Words of the providers' and our own, in the order in which they count if an error has several."""

PAUSED = "paused"
"""The reason of a call that our own transport has not sent, because the provider has asked for a pause."""

_OF_OUR_TRANSPORT = {
    (429, "upstream_paused"): (Kind.THROTTLED, PAUSED),
    (504, "upstream_silent"): (Kind.UNCERTAIN, "silent"),
}
"""What our own transport answers in a provider's place, by status and word."""

_BEGINNINGS = (
    "your credit balance is too low",
    "you have reached your specified api usage limits",
    "you have reached your specified workspace api usage limits",
)
"""How Anthropic's sentences about spent money begin, which come with status 400 and no word for it."""

_SENTENCES = (
    (re.compile(r"^request too large for"), Kind.NEVER_FITS),
    (re.compile(r"\bplan does not (?:yet )?(?:include|have|support)\b"), Kind.NOT_IN_PLAN),
    (re.compile(r"^prompt is too long|^input is too long|maximum context length|context window"), Kind.TOO_LONG),
    (re.compile(r"^(?:the )?input token count .{0,40}exceeds the maximum"), Kind.TOO_LONG),
    (re.compile(r"\bexceeds the available context size\b|^prompt contains \d+ tokens"), Kind.TOO_LONG),
)
"""Sentences without a word for it, which may repeat what a client wrote."""

_REQUESTED = re.compile(r"\blimit:? ([0-9]{1,15}),.{0,80}?\brequested:? ([0-9]{1,15})\b")


def answer_of(status: int, headers: Mapping[str, str], body: bytes, now: float) -> Answer:
    """Read an answer. Nothing that a provider sends makes it raise.

    Args:
        status: Its HTTP status.
        headers: By lower-case name.
        body: Its first 64 KiB, decoded; may be empty.
        now: Seconds since 1970, for an answer without a ``Date``.
    """
    return read_answer(status, headers, NOTHING if is_good(status) else error_in(body), now)


def is_good(status: int) -> bool:
    """Whether a status says that the answer is one."""
    return 200 <= status < 300  # noqa: PLR2004  as HTTP has it


def read_answer(status: int, headers: Mapping[str, str], error: ErrorBody, now: float) -> Answer:
    """As :func:`answer_of`, of a body that was read before."""
    kind, reason = _meaning(status, error)
    if kind is Kind.GOOD:
        return Answer(kind, status, None, reason)
    told = told_by(headers, now)
    asked = error.wait if told.retry_after is None else told.retry_after
    if asked is None and kind is Kind.THROTTLED:
        asked = told.until_free
    hint = {"true": True, "false": False}.get(header_of(headers, "x-should-retry").lower())
    return Answer(kind, status, asked, reason, hint)


def _meaning(status: int, error: ErrorBody) -> tuple[Kind, str]:
    if is_good(status):
        return Kind.GOOD, "good"
    for said, meaning in _OF_OUR_TRANSPORT.items():
        if said[0] == status and said[1] in error.words:
            return meaning
    if not 100 <= status < 600:  # noqa: PLR2004  as HTTP has it
        return Kind.UNCERTAIN, "odd-status"
    if 400 <= status < 500:  # noqa: PLR2004  as HTTP has it
        kind = _said(status, error)
        if kind is not None:
            return kind, kind.replace(" ", "-")
        if status == 403 and error == NOTHING:  # noqa: PLR2004
            # A firewall in front of the provider refuses a request for what is in it. That must stop nobody else.
            return Kind.CALLER, "forbidden"
    usual = (Kind.CALLER, "odd-status") if status < 400 else (Kind.CALLER, "bad-request")  # noqa: PLR2004
    return _STATUSES.get(status, usual if status < 500 else (Kind.OVERLOADED, "server-error"))  # noqa: PLR2004


def _said(status: int, error: ErrorBody) -> Kind | None:
    """The kind that the error itself names."""
    for word, kind in _WORDS.items():
        if word in error.words:
            return kind
    message = error.message.lower()
    if message.startswith(_BEGINNINGS):
        return Kind.SPENT
    if status == 413 and "rate_limit_exceeded" in error.words:  # noqa: PLR2004  so says Groq
        return Kind.NEVER_FITS
    sizes = _REQUESTED.search(message)
    if sizes and int(sizes[2]) > int(sizes[1]):
        return Kind.NEVER_FITS
    return next((kind for sentence, kind in _SENTENCES if sentence.search(message)), None)
