"""Key functions: who sent the request. Their answers are hashed before anything is kept of them."""

from ipaddress import IPv6Address, ip_address, ip_network

from flask import request

from .current import current_request

_IPV6_SUBSCRIBER = 64
_NO_KEY = {""}


def api_key() -> str:
    """The request's API key: ``Authorization: Bearer``, ``x-api-key`` or ``api-key``, as the SDKs send it.

    Answers "" without a key, and also for two different ones: a client must not choose, by sending a second key,
    which count it pays into. "" falls into one count per address, never past the limit.
    """
    environ = current_request().environ
    scheme, _, bearer = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    keys = {
        bearer.strip() if scheme.lower() == "bearer" else "",
        environ.get("HTTP_X_API_KEY", ""),
        environ.get("HTTP_API_KEY", ""),
    } - _NO_KEY
    return keys.pop() if len(keys) == 1 else ""


def remote_address() -> str:
    """The client's address as the server sees it; an IPv6 subscriber's whole /64 is one, as it can use any of them.

    Behind a proxy, wrap the app in :class:`werkzeug.middleware.proxy_fix.ProxyFix`; forwarded headers are not read
    here, since a client can write anything into them. What it forwards and is no address counts for the proxy.
    """
    forwarded = request.environ.get("werkzeug.proxy_fix.orig")
    peer = forwarded.get("REMOTE_ADDR") if forwarded else request.remote_addr
    return _subscriber(request.remote_addr or "") or _subscriber(peer or "") or peer or ""


def _subscriber(text: str) -> str:
    """The address, or the network that its subscriber has; empty if it is none."""
    try:
        address = ip_address(text)
    except ValueError:
        return ""
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ip_network((address, _IPV6_SUBSCRIBER), strict=False))
