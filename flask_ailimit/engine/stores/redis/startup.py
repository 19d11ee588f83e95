"""What can be seen of a server when the app starts: is it old, does it forget counts, may we do what we must."""

import logging
import ssl
from collections.abc import Callable, Mapping

from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError

from flask_ailimit.engine.errors import ConfigurationError

from .breaker import describe
from .links import Link
from .scripts import load

_log = logging.getLogger("flask_ailimit")

_LOGIN = (AuthenticationError, AuthorizationError, NoPermissionError)
_IN_SCRIPT = ("ACL failure in script", "executing the script can't run this command")
_LEAST_VERSION = (6, 2)
_COMMANDS = "+evalsha +eval +time +get +set +del +zadd +zrange +zremrangebyscore +expire +info"


def examine(link: Link, key: bytes, prefix: str, enroll: Callable[[], None]) -> None:
    """Try what will be needed, and warn of what will hurt. A server that is away is only logged: it may come back.

    Args:
        link: The way there.
        key: A key to try it with.
        prefix: What the keys begin with, for the message.
        enroll: Makes this machine known there.

    Raises:
        ConfigurationError: The server is too old, TLS fails, or the login or its rights are wrong.
    """
    try:
        told = _told(link)
        link.wire.send("EVAL", load("probe").text, b"1", key)
        link.try_out(load("probe"), [key])  # Known by now, and so asked for by its name.
        enroll()
    except Exception as error:
        if isinstance(error, _LOGIN) or any(text in str(error) for text in _IN_SCRIPT):
            raise ConfigurationError(
                f"storage_uri: {link.name} refuses the user: {describe(error)}. It needs the right password, and the "
                f"rights ~{prefix}:* {_COMMANDS}."
            ) from error
        if _is_tls(error):
            raise ConfigurationError(
                f"storage_uri: {link.name} can't be trusted: {describe(error)}. Give the authority that signed its "
                "certificate as storage_options={'ssl_ca_certs': '/path/ca.pem'}."
            ) from error
        _log.error("%s is not to be reached, limits follow on_store_error: %s", link.name, describe(error))
        return
    version = told.get("redis_version")  # Valkey says so too: the version that it is compatible with.
    if version and tuple(int(part) for part in version.split(".")[:2]) < _LEAST_VERSION:
        raise ConfigurationError(f"storage_uri: {link.name} is version {version}; Redis 6.2 or Valkey is needed.")
    policy = told.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        _log.warning(
            "%s has maxmemory-policy %s: when its memory is full it forgets counts, and limits are granted anew. "
            "Run: CONFIG SET maxmemory-policy noeviction",
            link.name,
            policy,
        )


def _told(link: Link) -> Mapping[str, str]:
    try:
        return link.wire.info()
    except NoPermissionError as error:
        if "'info'" not in str(error).lower():
            raise
        _log.warning("%s doesn't let this user see INFO: its version and maxmemory-policy are not checked.", link.name)
        return {}


def _is_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
