"""One change that an operator makes for one payer: an entry of the trail, and the JSON in which a store keeps it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from flask_ailimit.engine import ConfigurationError, StoreError
from flask_ailimit.engine.limit_text import Part, parse_quotas, parts_of
from flask_ailimit.engine.quota import CONCURRENCY, LATEST_SECOND, MAX_EXACT, REQUESTS, amount_in_words, is_money

from .caller import ADDRESS, SERVICE, is_role
from .credit import Credit
from .plan import BUDGET, TRY

VERSION = 3
RAISE, LOWER, BOOST = "raise", "lower", "boost"
SUSPEND, RESUME, MOVE = "suspend", "resume", "move"
CREDIT = "credit"
UNDO, FORGET, RELOAD = "undo", "forget", "reload"
OF_LIMITS = (RAISE, LOWER, BOOST, TRY)

LONGEST_ID = 256
LONGEST_NAME = 100
LONGEST_TEXT = 500
_LATEST = 2**33
"""Seconds since 1970, in the year 2242."""


class PayerName(NamedTuple):
    """Who pays: a role, and the id that the app gave the payer within it.

    Attributes:
        role: The role: one of the app's, ``address``, or ``service`` for everybody together.
        id: The id; empty for ``service``.
    """

    role: str
    id: str

    def __str__(self) -> str:
        return f"{self.role}:{self.id}" if self.id else self.role


EVERYBODY = PayerName(SERVICE, "")


class WhichLimit(NamedTuple):
    """Which limit of a plan.

    Attributes:
        unit: What is counted.
        period: Its window in seconds; 0 for calls in flight.
        model: The pattern of models to which it belongs; None for all models together.
        every: When its windows end, as of a quota; "" for a fixed length of time and for calls in flight.
    """

    unit: str
    period: int
    model: str | None
    every: str = ""

    def __str__(self) -> str:
        models = f" of {self.model}" if self.model is not None else ""
        return f"{BUDGET if is_money(self.unit) else self.unit}{models}"


@dataclass(frozen=True, kw_only=True)
class Change:
    """What an operator changed.

    Attributes:
        number: Its number in the trail. It, time, author and reason are empty until the change is appended there.
        kind: ``raise``, ``lower``, ``boost``, ``try``, ``suspend``, ``resume``, ``move``, ``credit``, ``undo``,
            ``forget`` or ``reload``.
        at: When it was made, in seconds since the epoch.
        by: Who made it.
        reason: Why.
        payer: Whose; None of ``undo``, ``forget`` and ``reload``.
        limit: Which limit is changed.
        value: What it is from then on: a text such as ``10 per minute``; of calls in flight a number. Of ``try``, what
            is tried beside it.
        plan: The only plan under which it is changed, None for all; of ``move`` the new plan, None for the app's own.
        until: The end of a boost, in seconds since the epoch.
        words: What a suspended client is told.
        credit: What was granted beside a budget.
        undone: The number of the entry that ``undo`` undoes.
        forgotten: The numbers of the entries that ``forget`` erased.
        before: What held before, in words.
    """

    number: int = 0
    kind: str
    at: int = 0
    by: str = ""
    reason: str = ""
    payer: PayerName | None = None
    limit: WhichLimit | None = None
    value: str | int | None = None
    plan: str | None = None
    until: int | None = None
    words: str | None = None
    credit: Credit | None = None
    undone: int | None = None
    forgotten: tuple[int, ...] = ()
    before: str | None = None

    @property
    def after(self) -> str:
        """What holds from then on, in words."""
        if self.kind == SUSPEND:
            return f"suspended: {self.words}"
        if self.kind == RESUME:
            return "not suspended"
        if self.kind == MOVE:
            return self.plan or "the plan that the app names"
        if self.credit is not None:
            return amount_in_words(self.credit.amount, self.credit.unit)
        return value_in_words(self.value)


def value_in_words(value: str | int | None) -> str:
    """The value of a limit; a number is one of calls in flight."""
    return f"{value} in flight" if isinstance(value, int) else str(value)


def written(change: Change) -> str:
    """The entry as JSON, in one line. Its number is not in it: the store gives it."""
    common = {
        "v": _version_of(change),
        "at": change.at,
        "by": change.by,
        "reason": change.reason,
        "kind": change.kind,
    }
    own = {name: _FIELDS[name].get(change) for name in _KEYS[change.kind]}
    return json.dumps({**common, **own}, ensure_ascii=False, separators=(",", ":"))


def read(number: int, text: str) -> Change | None:
    """Read an entry. None: a newer version of this library wrote it, and only that understands it.

    Raises:
        StoreError: It is damaged; the sentence says which, and what is wrong.
    """
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        raise _damaged(number, "it is not JSON") from None
    if not isinstance(entry, dict) or type(entry.get("v")) is not int:
        raise _damaged(number, "it has no version")
    if entry["v"] > VERSION:
        return None
    kind = entry.get("kind")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise _damaged(number, f"there is no kind {kind!r:.40}")
    keys = ("v", "kind", *_COMMON, *_KEYS[kind])
    if set(entry) != set(keys):
        wrong = ", ".join(sorted(map(repr, set(entry) ^ set(keys))))
        raise _damaged(number, f"of its keys these are too many, or missing: {wrong:.200}")
    for name in (*_COMMON, *_KEYS[kind]):
        if not _FIELDS[name].fits(entry[name]):
            raise _damaged(number, f"{name} can't be {entry[name]!r:.60}")
    change = _change(number, entry)
    _require_sense(change)
    return change


@lru_cache(maxsize=1024)
def limit_of_text(text: str, unit: str) -> Part:
    """The one limit that a text names.

    Args:
        text: The text.
        unit: What is counted.

    Raises:
        ConfigurationError: It is not one limit, such as ``10 per minute``.
    """
    counted = unit if is_money(unit) else REQUESTS  # Any unit has such texts, but for money.
    quotas = parse_quotas(text, unit=counted)
    if len(quotas) != 1:
        raise ConfigurationError(f"Name one limit at a time, such as '10 per minute'. Got {text[:80]!r}.")
    return parts_of(text, unit=counted)[0]


def is_text(value: object, longest: int = LONGEST_TEXT) -> bool:
    """Whether it is a text of one line, without control characters, of 1 to so many characters."""
    return isinstance(value, str) and 0 < len(value) <= longest and value.isprintable()


def _change(number: int, entry: Mapping[str, Any]) -> Change:
    payer = PayerName(entry["role"], entry["id"]) if "role" in entry else None
    limit = None
    if "period" in entry:
        limit = WhichLimit(entry["unit"], entry["period"], entry["model"], _every_of(entry["unit"], entry["value"]))
    credit = Credit(*(entry[name] for name in Credit._fields)) if "amount" in entry else None
    return Change(
        number=number,
        **{name: entry[name] for name in (*_COMMON, "kind")},
        payer=payer,
        limit=limit,
        **{name: entry[name] for name in ("value", "plan", "until", "words") if name in entry},
        credit=credit,
        undone=entry.get("entry"),
        forgotten=tuple(entry.get("entries", ())),
        before=entry.get("from"),
    )


def _require_sense(change: Change) -> None:
    """Check what the fields of an entry say together.

    Raises:
        StoreError: It makes no sense.
    """
    number, payer, credit = change.number, change.payer, change.credit
    if change.kind in OF_LIMITS and not _fits_its_window(change):
        seconds = change.limit and change.limit.period
        raise _damaged(number, f"{change.value!r:.60} is no limit on {change.limit} per {seconds} s")
    if payer is not None and (payer.role == SERVICE) != (payer.id == ""):
        raise _damaged(number, f"there is no payer {payer!s:.60}")
    if credit is not None and credit.ends <= credit.begins:
        raise _damaged(number, f"its credit ends at {credit.ends}, which is not after {credit.begins}")


def _fits_its_window(change: Change) -> bool:
    assert change.limit  # noqa: S101  a change of a limit has one
    if change.limit.unit == CONCURRENCY or isinstance(change.value, int):
        return change.limit.unit == CONCURRENCY and isinstance(change.value, int) and change.limit.period == 0
    try:
        return limit_of_text(str(change.value), change.limit.unit).period == change.limit.period
    except ConfigurationError:
        return False


def _every_of(unit: str, value: object) -> str:
    """When the windows end of the limit that a value is of: its text says it."""
    try:
        return limit_of_text(value, unit).every if isinstance(value, str) else ""
    except ConfigurationError:
        return ""


def _version_of(change: Change) -> int:
    """The version of an entry. A library that doesn't know the version passes over it."""
    if change.limit is not None and (change.limit.every or is_money(change.limit.unit)):
        return _SINCE_WINDOWS
    return _SINCE.get(change.kind, 1)


def _damaged(number: int, what: str) -> StoreError:
    return StoreError(
        f"The entry {number} of the changes of plans is damaged: {what}. Put back a copy of the trail, or correct it.",
        transient=False,
    )


def _is_whole(value: object, least: int = 0, most: int = _LATEST) -> bool:
    return type(value) is int and least <= value <= most


def _is_role(value: object) -> bool:
    return is_role(value) or value in (ADDRESS, SERVICE)


class _Field(NamedTuple):
    """A key of an entry: what it may hold, and where a change has it."""

    fits: Callable[[object], bool]
    get: Callable[[Change], object]


def _text(longest: int, *, optional: bool = False, empty: bool = False) -> Callable[[object], bool]:
    return lambda value: (optional and value is None) or (empty and value == "") or is_text(value, longest)


def _unit_of(change: Change) -> str | None:
    of = change.credit or change.limit
    return of and of.unit


_FIELDS: Mapping[str, _Field] = {
    "at": _Field(_is_whole, lambda change: change.at),
    "by": _Field(_text(LONGEST_NAME), lambda change: change.by),
    "reason": _Field(_text(LONGEST_TEXT), lambda change: change.reason),
    "role": _Field(_is_role, lambda change: change.payer and change.payer.role),
    "id": _Field(_text(LONGEST_ID, empty=True), lambda change: change.payer and change.payer.id),
    "unit": _Field(_text(LONGEST_NAME), _unit_of),
    "period": _Field(_is_whole, lambda change: change.limit and change.limit.period),
    "model": _Field(_text(LONGEST_ID, optional=True), lambda change: change.limit and change.limit.model),
    "plan": _Field(_text(LONGEST_NAME, optional=True), lambda change: change.plan),
    "value": _Field(lambda value: is_text(value) or _is_whole(value, 1, MAX_EXACT), lambda change: change.value),
    "until": _Field(_is_whole, lambda change: change.until),
    "amount": _Field(
        lambda value: _is_whole(value, 1, MAX_EXACT), lambda change: change.credit and change.credit.amount
    ),
    "begins": _Field(
        lambda value: _is_whole(value, 0, LATEST_SECOND), lambda change: change.credit and change.credit.begins
    ),
    "ends": _Field(
        lambda value: _is_whole(value, 1, LATEST_SECOND), lambda change: change.credit and change.credit.ends
    ),
    "words": _Field(_text(LONGEST_TEXT), lambda change: change.words),
    "from": _Field(_text(10**6, optional=True), lambda change: change.before),
    "entry": _Field(lambda value: _is_whole(value, 1), lambda change: change.undone),
    "entries": _Field(
        lambda value: isinstance(value, list) and all(_is_whole(each, 1) for each in value),
        lambda change: list(change.forgotten),
    ),
}
_SINCE: Mapping[str, int] = {TRY: 2, CREDIT: 3}
"""The version of entries that have a kind; of the others, 1."""

_SINCE_WINDOWS = 3
"""The version of entries about money, and about windows of a calendar or of a session."""

_COMMON = ("at", "by", "reason")
_LIMIT = ("role", "id", "unit", "period", "model", "plan", "value", "from")
_KEYS: Mapping[str, tuple[str, ...]] = {
    RAISE: _LIMIT,
    LOWER: _LIMIT,
    BOOST: (*_LIMIT, "until"),
    TRY: _LIMIT,
    SUSPEND: ("role", "id", "words", "from"),
    RESUME: ("role", "id", "from"),
    MOVE: ("role", "id", "plan", "from"),
    CREDIT: ("role", "id", *Credit._fields),
    UNDO: ("entry",),
    FORGET: ("entries",),
    RELOAD: (),
}
