"""The trail of a Redis: a sorted set of texts by their numbers, which never expires.

Of all types of Redis it is the one whose commands the scripts use anyway, so that a user of the server needs no further
right. Each member begins with its number: two entries with one text are two.
"""

from collections.abc import Collection

from redis.exceptions import RedisError

from flask_ailimit.engine.errors import StoreError

from .links import Link
from .scripts import load

_AT_ONCE = 1000
"""Entries of one answer: a trail of a hundred thousand would not come within the time that an answer has."""

_ADVICE = (
    "Turn on its append-only file (CONFIG SET appendonly yes, and in its configuration: appendonly yes), or keep the "
    "counts in a directory on a disk, if there is one machine."
)


def read(link: Link, prefix: bytes, number: int) -> list[tuple[int, str]]:
    """The entries with this number and higher ones, in order.

    Raises:
        StoreError: The server can't answer, or something else is under the key.
    """
    found = list[tuple[int, str]]()
    while True:
        some: list[bytes] = link.run(load("changes"), [_key(prefix)], b"%d" % number, b"%d" % _AT_ONCE)
        found += map(_entry, some)
        if len(some) < _AT_ONCE:
            return found
        number = found[-1][0] + 1


def add(link: Link, prefix: bytes, text: str, last: int, without: Collection[int]) -> bool:
    """Append an entry after the one with the number ``last``, and erase others; see ``KeepsChanges``.

    If a connection breaks, the script may run twice. The second time it finds that the last number is another one, and
    answers False, although the entry is there.
    """
    erased = [b"%d" % number for number in without]
    arguments = (b"%d" % last, text.encode(), *erased)
    return bool(link.run(load("add_change"), [_key(prefix)], *arguments, even_when_full=True))


def may_be_lost(link: Link) -> str | None:
    """When the entries may be lost, if the server says so."""
    try:
        if link.wire.info().get("aof_enabled") == "1":
            return None
        if link.wire.slotted:
            return f"Changes of plans may not survive a restart of {link.name}: it has no append-only file. {_ADVICE}"
        saves = link.wire.send("CONFIG", b"GET", b"save")[1]
    except (RedisError, StoreError, IndexError):
        return None  # It is away, or doesn't let this user see.
    if saves:
        return None
    return f"Changes of plans don't survive a restart of {link.name}: it saves nothing. {_ADVICE}"


def _key(prefix: bytes) -> bytes:
    return prefix + b":{}:changes"


def _entry(member: bytes) -> tuple[int, str]:
    number, _, text = member.partition(b" ")
    try:
        return int(number), text.decode()
    except ValueError as error:
        raise StoreError("An entry of the changes of plans in Redis is damaged.", transient=False) from error
