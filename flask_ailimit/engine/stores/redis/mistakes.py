"""What a server answers at the start that no waiting will mend, and what to write instead."""

import ssl
from collections.abc import Iterator, Mapping

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    InvalidResponse,
    MovedError,
    NoPermissionError,
)

from .addresses import Address
from .breaker import describe
from .sentinels import UnknownPrimaryError

_LOGIN = (AuthenticationError, AuthorizationError, NoPermissionError)
_IN_SCRIPT = ("ACL failure in script", "executing the script can't run this command")
_COMMANDS = "+evalsha +eval +time +get +set +del +zadd +zrange +zremrangebyscore +expire +info"
_NO_DATABASE = ("DB index is out of range", "invalid DB index")
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST")


def mistake_of(error: Exception, address: Address, prefix: str) -> str | None:
    """What is wrong, and what to do about it, behind the name of the server; None if waiting may help.

    Args:
        error: What came of asking.
        address: Who was asked.
        prefix: What the keys begin with.
    """
    if isinstance(error, _LOGIN) or any(each in str(error) for each in _IN_SCRIPT):
        return (
            f"refuses the user: {describe(error)}. It needs the right password, and the rights ~{prefix}:* {_COMMANDS}."
        )
    of_tls = next((each for each in _causes(error) if isinstance(each, ssl.SSLError)), None)
    return _of_tls(of_tls, error, address) if of_tls else _of_kind(error, address)


def mistake_in(told: Mapping[str, str], address: Address) -> str | None:
    """The same of what a server tells of itself: it does answer, and is of another kind than the URI says."""
    if told.get("redis_mode") == "sentinel" or told.get("server_mode") == "sentinel":
        return f"is a sentinel. Write {_scheme(address, '+sentinel')}host:26379/mymaster for {_own_scheme(address)}."
    if told.get("cluster_enabled") == "1" and address.kind != "cluster":
        return _is_a_node(address)
    return None


def mistake_by_tls(spoken: bool | None, wanted: bool, address: Address) -> str | None:
    """The same where TLS is spoken by one of two only. ``spoken`` is None if that isn't known."""
    if spoken is None or spoken == wanted:
        return None
    kind = f"+{address.kind}" if address.kind else ""
    if spoken:
        return f"speaks TLS. Write rediss{kind}:// for redis{kind}://."
    return f"doesn't speak TLS. Write redis{kind}:// for rediss{kind}://, or have it speak TLS."


def _is_a_node(address: Address) -> str:
    """The sentence for one node of a cluster that was taken for a server."""
    return f"is a node of a cluster. Write {_scheme(address, '+cluster')} for {_own_scheme(address)}."


def _of_kind(error: Exception, address: Address) -> str | None:
    """What is wrong if the server is of another kind than the URI says."""
    text, plain = str(error), _scheme(address, "")
    sentences = (
        (
            isinstance(error, UnknownPrimaryError),
            f"is asked for a primary that isn't there: {text}. Write {_scheme(address, '+sentinel')}host:26379/NAME.",
        ),
        (isinstance(error, MovedError) or "is not allowed in cluster mode" in text, _is_a_node(address)),
        ("cluster support disabled" in text, f"is no cluster. Write {plain} for {_scheme(address, '+cluster')}."),
        (
            any(each in text for each in _NO_DATABASE),
            f"has no database {address.db}. It has 16, from 0, unless its setting 'databases' says otherwise.",
        ),
        (
            "unknown command 'sentinel'" in text.lower(),
            f"is no sentinel. Write the port of the sentinels, usually 26379, or {plain} for a server that has none.",
        ),
        (
            "unknown command" in text.lower(),
            f"can't do what is needed: {describe(error)}. It must be Redis 6.2 or later, or Valkey.",
        ),
        (isinstance(error, InvalidResponse), "doesn't answer as Redis does: something else listens there."),
    )
    return next((sentence for is_it, sentence in sentences if is_it), None)


def _of_tls(found: ssl.SSLError, error: Exception, address: Address) -> str | None:
    if found.reason in _NO_TLS:
        return mistake_by_tls(spoken=False, wanted=True, address=address)
    if isinstance(found, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return None  # It went away in the middle.
    return (
        f"can't be trusted: {describe(error)}. Give the authority that signed its certificate as "
        "storage_options={'ssl_ca_certs': '/path/ca.pem'}."
    )


def _own_scheme(address: Address) -> str:
    return _scheme(address, f"+{address.kind}" if address.kind else "")


def _scheme(address: Address, kind: str) -> str:
    return f"redis{'s' if address.tls else ''}{kind}://"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
