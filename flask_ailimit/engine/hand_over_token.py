"""The token by which work is handed over: what was reserved, and a note, authenticated.

``v2.<body>.<code>``, printable ASCII. The body is JSON in base64url (RFC 4648, section 5); the code is a keyed BLAKE2b
(RFC 7693) over all before it. Everybody who gets a token can read it: subjects are hashes, but the names of scopes and
the note are plain text.
"""

import hmac
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any, NamedTuple

from .calendars import Calendar
from .charge import Charge
from .errors import HandOverError
from .grant import Grant
from .quota import Quota
from .reservation import Taken

_VERSION = "v2"
_PERSON = b"hand over"
_MOST_NOTE_BYTES = 4096
_OF_ALL = 9
"""Arguments of a quota that any has: those before ``every``."""

_FOREIGN = (
    "This is no token of this app's, or it was changed on the way. Give take_over() what hand_over() answered, letter "
    "by letter, and both the same secret."
)

Note = Mapping[str, str | int]
"""What the giver wants the taker to know."""


class Part(NamedTuple):
    """What was reserved in one store.

    Attributes:
        until_us: When the token is too old, by that store's clock.
        taken: What each reservation took.
    """

    until_us: int
    taken: Sequence[Taken]


class Token(NamedTuple):
    """What a token says.

    Attributes:
        name: Its own: no other token has it.
        note: The giver's.
        parts: By the place of the store.
    """

    name: str
    note: Note
    parts: Mapping[str, Part]


def key_of(secret: bytes) -> bytes:
    """The key for tokens, from an engine's secret of 16 to 64 bytes."""
    return blake2b(key=secret, person=_PERSON, digest_size=32).digest()


def require_note(note: Note) -> dict[str, str | int]:
    """Answer the note.

    Raises:
        ValueError: It is longer than 4,096 bytes of JSON, or has something else than texts and whole numbers by name.
    """
    if any(type(name) is not str or type(value) not in (str, int) for name, value in note.items()):
        raise ValueError("note: texts and whole numbers under names are needed.")
    if len(json.dumps(dict(note))) > _MOST_NOTE_BYTES:
        raise ValueError(f"note: at most {_MOST_NOTE_BYTES} bytes as JSON.")
    return dict(note)


def write_token(key: bytes, note: Note, parts: Mapping[str, Part]) -> str:
    """A token with a name of its own."""
    told = {
        "name": secrets.token_hex(16),
        "note": note,
        "parts": {place: [part.until_us, [_packed(taken) for taken in part.taken]] for place, part in parts.items()},
    }
    text = f"{_VERSION}.{_encoded(json.dumps(told, separators=(',', ':')).encode())}"
    return f"{text}.{_code(key, text)}"


def read_token(key: bytes, token: str) -> Token:
    """What a token says.

    Raises:
        HandOverError: It was not written with this key, or by a version of this library that writes others.
    """
    if not isinstance(token, str) or not token.isascii():
        raise HandOverError(_FOREIGN)
    text, _, code = token.rpartition(".")
    if not hmac.compare_digest(_code(key, text), code):
        raise HandOverError(_FOREIGN)
    version, _, body = text.partition(".")
    if version != _VERSION:
        raise HandOverError("This token was made by another version of flask_ailimit. Update whoever takes it over.")
    told = json.loads(urlsafe_b64decode(body))
    parts = {
        place: Part(until, [_unpacked(*each) for each in taken]) for place, (until, taken) in told["parts"].items()
    }
    return Token(told["name"], told["note"], parts)


def _packed(taken: Taken) -> list[Any]:
    charges = []
    for charge, at_us in taken.charges:
        shadow = [True] if charge.shadow else []
        taken_so = [charge.subject.hex(), _allowed(charge.quota), charge.cost, charge.scope, charge.dry, at_us]
        charges.append([*taken_so, *shadow])
    return [taken.lease, charges]


def _allowed(quota: Quota) -> tuple[Any, ...]:
    """The arguments of the quota; what it is called and whether clients know it only matters where it is told of."""
    told = *quota.given, quota.label, quota.in_headers, quota.soft_percent
    if quota.has_windows:
        calendar = quota.calendar
        days = [calendar.zone, calendar.week_starts, calendar.month_starts]
        elsewhere = [quota.credit_windows] if quota.credit_windows else []
        return *told, quota.every, days, quota.credit, *elsewhere
    if quota.soft_percent:
        return told
    return quota.given


def _unpacked(lease: int, charges: Iterable[Any]) -> Taken:
    return Taken(
        lease,
        [
            (Charge(bytes.fromhex(subject), _quota(*allowed), cost, scope, dry, shadow=bool(shadow)), at_us)
            for subject, allowed, cost, scope, dry, at_us, *shadow in charges
        ],
    )


def _quota(*given: Any) -> Quota:
    """The quota of the arguments of :func:`_allowed`."""
    plain, windows = given[:_OF_ALL], given[_OF_ALL:]
    if not windows:
        return Quota(*plain)
    every, calendar, credit, *elsewhere = windows
    grants = tuple(Grant(*grant) for grant in credit)
    others = tuple((period, other) for some in elsewhere for period, other in some)
    return replace(Quota(*plain), every=every, calendar=Calendar(*calendar), credit=grants, credit_windows=others)


def _code(key: bytes, text: str) -> str:
    return _encoded(blake2b(text.encode(), key=key, digest_size=32).digest())


def _encoded(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode()
