"""Whether the counts of a Redis last: it must save them, and must not throw them away when its memory is full."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from redis.exceptions import ResponseError

from flask_ailimit.engine.errors import StoreError

from .breaker import describe
from .links import Link

_Answer = TypeVar("_Answer")

_TURN_ON = "Turn on its append-only file (CONFIG SET appendonly yes, and in its configuration: appendonly yes)."


def may_lose_counts(link: Link) -> str | None:
    """When its counts may be lost, and what to do, in sentences; also if that can't be seen. None if they last.

    Raises:
        StoreError: The server can't answer.
    """
    told = _asked(link, link.wire.info)
    if told is None:
        return (
            f"Whether {link.name} keeps its counts can't be seen: it doesn't let this user see INFO. Give the user the "
            "right +info."
        )
    policy = told.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        return (
            f"{link.name} throws counts away when its memory is full: it has maxmemory-policy {policy}. "
            "Run: CONFIG SET maxmemory-policy noeviction."
        )
    return None if told.get("aof_enabled") == "1" else _without_file(link)


def _without_file(link: Link) -> str | None:
    """The same of a server that has no append-only file."""
    if link.wire.slotted:
        return f"{link.name} may lose its counts when it restarts: it has no append-only file. {_TURN_ON}"
    saves = _asked(link, lambda: link.wire.send("CONFIG", b"GET", b"save"))
    if saves is None:
        return (
            f"Whether {link.name} keeps its counts can't be seen: it has no append-only file, and doesn't let this "
            f"user see whether it makes snapshots. {_TURN_ON} Or give the user the right +config|get."
        )
    if _value_of(saves):
        return None
    return f"{link.name} loses all counts when it restarts: it saves nothing. {_TURN_ON}"


def _asked(link: Link, ask: Callable[[], _Answer]) -> _Answer | None:
    """What the server answers; None if it doesn't let this user ask, or has no such command.

    Raises:
        StoreError: It can't be reached.
    """
    try:
        return ask()
    except ResponseError:
        return None
    except StoreError:
        raise
    except Exception as error:  # redis-py raises more than its own errors while a cluster changes.
        raise StoreError(f"{link.name} didn't answer: {describe(error)}") from error


def _value_of(answer: Any) -> bytes:
    """The value in an answer to CONFIG GET of one setting: a name and its value, as a list or as a mapping."""
    values = list(answer.values()) if isinstance(answer, Mapping) else list(answer)[1:]
    return bytes(values[0]) if values else b""
