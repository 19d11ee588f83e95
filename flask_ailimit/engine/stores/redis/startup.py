"""What can be seen of a server when the app starts: is it old, does it forget counts, may we do what we must."""

import logging
import re
from collections.abc import Callable, Mapping

from redis.exceptions import (
    ConnectionError,  # noqa: A004  redis-py's, as the next
    NoPermissionError,
    TimeoutError,  # noqa: A004
)

from flask_ailimit.engine.errors import ConfigurationError

from .addresses import Address
from .breaker import describe
from .greeting import speaks_tls
from .links import Link
from .mistakes import mistake_by_tls, mistake_in, mistake_of
from .scripts import load

_log = logging.getLogger("flask_ailimit")

_LEAST_VERSION = (6, 2)
_MOST_GREETED = 3


def examine(link: Link, address: Address, prefix: str, enroll: Callable[[], None], *, by_tls: bool) -> bool:
    """Try what will be needed, and warn of what will hurt; answer whether the server is there.

    One that is away is only logged: it may come back.

    Args:
        link: The way there.
        address: Where that is.
        prefix: What the keys begin with.
        enroll: Makes this machine known there.
        by_tls: Whether the way is by TLS.

    Raises:
        ConfigurationError: What is answered, or not, is no matter of waiting.
    """
    key = f"{prefix}:{{}}:probe".encode()
    told: Mapping[str, str] = {}
    try:
        told = _told(link)
        wrong = mistake_in(told, address)
        if not wrong:
            link.wire.send("EVAL", load("probe").text, b"1", key)
            link.try_out(load("probe"), [key])  # Known by now, and so asked for by its name.
            enroll()
    except Exception as error:
        wrong = mistake_of(error, address, prefix) or _mistake_by_tls(error, address, by_tls=by_tls)
        if wrong:
            raise ConfigurationError(f"storage_uri: {link.name} {wrong}") from error
        _log.error("%s is not to be reached, limits follow on_store_error: %s", link.name, describe(error))
        return False
    if wrong:
        raise ConfigurationError(f"storage_uri: {link.name} {wrong}")
    version = re.match(r"(\d+)\.(\d+)", told.get("redis_version", ""))  # Valkey's: the one that it is compatible with.
    if version and (int(version[1]), int(version[2])) < _LEAST_VERSION:
        raise ConfigurationError(
            f"storage_uri: {link.name} is version {told['redis_version']}; Redis 6.2 or Valkey is needed."
        )
    policy = told.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        _log.warning(
            "%s has maxmemory-policy %s: when its memory is full it forgets counts, and limits are granted anew. "
            "Run: CONFIG SET maxmemory-policy noeviction",
            link.name,
            policy,
        )
    return True


def _told(link: Link) -> Mapping[str, str]:
    try:
        return link.wire.info()
    except NoPermissionError as error:
        if "'info'" not in str(error).lower():
            raise
        _log.warning("%s doesn't let this user see INFO: its version and maxmemory-policy are not checked.", link.name)
        return {}


def _mistake_by_tls(error: Exception, address: Address, *, by_tls: bool) -> str | None:
    """What is wrong if the other side speaks TLS and this one doesn't, or the other way round: nobody says so then."""
    if not isinstance(error, (ConnectionError, TimeoutError)):
        return None
    for host, port in address.hosts[:_MOST_GREETED]:
        wrong = mistake_by_tls(speaks_tls(host, port), by_tls, address)
        if wrong:
            return wrong
    return None
