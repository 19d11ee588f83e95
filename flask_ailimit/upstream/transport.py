"""The transports that official SDKs are given: httpx2's or httpx's, for threads or for an event loop."""

import importlib
import socket
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

from flask_ailimit.engine import ConfigurationError

from . import blocking
from .target import Target

LIBRARIES = ("httpx2", "httpx")
"""Those whose transports there are. OpenAI's and Anthropic's SDKs use the first."""

_CONNECTIONS, _KEPT_ALIVE = 1000, 100
"""As the SDKs' own clients have: openai 3.57 and anthropic 2.14, ``_constants.py``."""

_KEEP_ALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5))
"""Seconds, and how many probes: they hold a long call open. As anthropic 2.14 sets them, ``_base_client.py``."""

Targets = Callable[[], Sequence[Target]]
"""Answers an upstream, and those that are asked if it can't answer."""


def http_transport(library: str, targets: Targets, inner: Any = None, **options: Any) -> Any:
    """A transport for ``library``'s Client.

    Args:
        library: ``httpx2`` or ``httpx``.
        targets: The upstreams.
        inner: The transport that sends; None for one with the connection limits and the keep-alive of the SDKs' own.
        **options: Of that one, such as ``proxy`` or ``verify``.

    Raises:
        ConfigurationError: The library is another one, or is not installed.
    """
    module = module_of(library)
    return blocking.transport_of(module)(module, targets, inner or module.HTTPTransport(**_usual(module, options)))


def async_http_transport(library: str, targets: Targets, inner: Any = None, **options: Any) -> Any:
    """A transport for ``library``'s AsyncClient; see :func:`http_transport`."""
    module = module_of(library)
    from . import waiting  # noqa: PLC0415  it needs anyio, which comes with the libraries

    return waiting.transport_of(module)(module, targets, inner or module.AsyncHTTPTransport(**_usual(module, options)))


def module_of(library: str) -> ModuleType:
    """The library.

    Raises:
        ConfigurationError: It is none that has such transports, or is not installed.
    """
    if library not in LIBRARIES:
        raise ConfigurationError(f"library: 'httpx2' or 'httpx' is needed. Got {str(library)[:40]!r}.")
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ConfigurationError(
            f"upstream: {library} is not installed. Install it: pip install 'flask-ailimit[upstream]'."
        ) from error


def _usual(module: ModuleType, options: dict[str, Any]) -> dict[str, Any]:
    limits = module.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_KEPT_ALIVE)
    return {"limits": limits, "socket_options": list(_keep_alive()), **options}


def _keep_alive() -> Iterator[tuple[int, int, int]]:
    yield socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1
    for name, value in _KEEP_ALIVE:
        option = getattr(socket, name, None)  # Not every system has all of them.
        if option is not None:
            yield socket.IPPROTO_TCP, option, value
