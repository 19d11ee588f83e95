"""Key functions, which return who sent the request. Their keys are hashed before anything is stored."""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

from flask_ailimit.current import current_request
from flask_ailimit.http.errors import AmbiguousKey
from flask_ailimit.http.responses import clean_request_id

from .misconfigured import ConfigurationError

AUTHORIZATION = "authorization"
KEY_HEADERS = (AUTHORIZATION, "x-api-key", "api-key")
"""The headers in which the SDKs of OpenAI, Anthropic and Azure send a key."""

_IPV6_SUBSCRIBER = 64
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^`|~-]+")
_HOLD_NO_KEY = ("content-length", "content-type", "cookie", "host")
_PARTS_KEYS = re.compile(r"[\s,]")
_WITH_PORT = re.compile(r"(\d+\.\d+\.\d+\.\d+):\d{1,5}|\[([^\]]+)\](?::\d{1,5})?", re.ASCII)
_PARAMETER = re.compile(r"""[\w-]+\s*=\s*("[^"]*"|[^\s,"=]+)""")


def api_key() -> str:
    """The request's API key from ``Authorization``, ``x-api-key`` or ``api-key``, as the SDKs send it; "" without one.

    Requests without a key are counted by address. ``Proxy-Authorization``, cookies, the query, and the user name and
    password of ``Basic`` are not read. If a gateway adds such headers, or the app authenticates by another header, use
    :func:`api_key_in`.

    Raises:
        AmbiguousKey: There are two different keys. The answer is a 400, because a client that sends a second key could
            otherwise choose the count that its requests are charged to.
    """
    return _one_key(KEY_HEADERS)


def api_key_in(header: str) -> Callable[[], str]:
    """A key function that reads only one header, by which the app authenticates. Its name may be in any case.

    From ``authorization`` it returns the Bearer token. The header may hold one key twice, but not two different keys.

    Raises:
        ConfigurationError: It is not the name of a header that can hold a key.
    """
    name = header.lower() if isinstance(header, str) else ""
    if not _HEADER_NAME.fullmatch(name) or name in _HOLD_NO_KEY:
        raise ConfigurationError(
            "api_key_in: the name of a header that holds a key is needed, such as 'x-api-key'; servers drop names with "
            f"an underscore. Got {str(header)[:40]!r}."
        )
    return _reader(name)


@lru_cache(maxsize=64)
def _reader(name: str) -> Callable[[], str]:
    # Limits with the same key function call it once, so each header has only one function.
    def read() -> str:
        return _one_key((name,))

    read.__name__ = read.__qualname__ = f"api_key_in({name!r})"
    return read


@lru_cache(maxsize=64)
def _variable(header: str) -> str:
    return f"HTTP_{header.upper().replace('-', '_')}"


def _one_key(headers: Iterable[str]) -> str:
    environ = current_request().environ
    keys: set[str] = set()
    for header in headers:
        value = environ.get(_variable(header))
        if value:
            keys.update(_credentials(value) if header == AUTHORIZATION else map(str.strip, value.split(",")))
    keys.discard("")
    if len(keys) > 1:
        raise AmbiguousKey(clean_request_id(environ.get("HTTP_X_REQUEST_ID")))
    return keys.pop() if keys else ""


def _credentials(value: str) -> list[str]:
    """The keys that an app may read from an ``Authorization`` header, whose lines the server has joined by commas.

    A Bearer token holds no white space and no comma (RFC 6750, section 2.1). From several words, apps take the first,
    the last or all. Many apps take everything after the first blank, or the header without the word Bearer, so a key
    counts with any scheme and without one.
    """
    scheme, _, token = value.partition(" ")
    if scheme == "Bearer" and token.isascii() and not _PARTS_KEYS.search(token):  # Most requests.
        return [token]
    words = value.replace(",", " ").split()
    tokens = [word for word in words if word.lower() != "bearer"]
    if len(tokens) < len(words) or len(words) == 1:
        return tokens
    if [word.lower() for word in words[:-1]] == ["basic"] and _is_basic(words[1]):
        return []
    return _PARAMETER.sub(" ", value).replace(",", " ").split()[1:]


def _is_basic(credentials: str) -> bool:
    """Whether it is a user name and a password (RFC 7617)."""
    try:
        return ":" in b64decode(credentials).decode()
    except (Base64Error, ValueError):
        return False


def remote_address() -> str:
    """The client's address as the server sees it; for IPv6 the /64 network, because a subscriber has all of it.

    Behind a proxy, wrap the app in :class:`werkzeug.middleware.proxy_fix.ProxyFix`. Forwarded headers are not read
    here, because a client can write anything into them. If the forwarded text is no address, the proxy's is returned.
    """
    request = current_request()
    forwarded = request.environ.get("werkzeug.proxy_fix.orig")
    peer = forwarded.get("REMOTE_ADDR") if forwarded else request.remote_addr
    return _subscriber(request.remote_addr or "") or _subscriber(peer or "") or peer or ""


def _subscriber(text: str) -> str:
    """The IPv4 address, or the network of the IPv6 address, without a port; empty if the text is no address.

    Some proxies write the client's port into ``X-Forwarded-For``, such as ``1.2.3.4:5678`` and ``[2001:db8::1]:5678``
    (RFC 7239, section 6, allows it in ``Forwarded``).
    """
    with_port = _WITH_PORT.fullmatch(text)
    try:
        address = ip_address(with_port[1] or with_port[2] if with_port else text)
    except ValueError:
        return ""
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ip_network((address, _IPV6_SUBSCRIBER), strict=False))
