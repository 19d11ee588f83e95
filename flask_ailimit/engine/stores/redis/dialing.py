"""redis-py's connections, with seconds of their own for being made, and one TLS context a process.

To connect takes several trips, and with TLS milliseconds of both ends' processors: far more than an answer. So the
time-out of an answer would take a server for away that has many connections to make.
"""

import socket
import ssl
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from redis.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_ANEW_EACH_TIME = ("ssl_validate_ocsp", "ssl_validate_ocsp_stapled")


class TlsContext:
    """What TLS with a server goes by. It is made once, and anew when a file that it was made of has changed.

    Args:
        options: redis-py's options for TLS, ``ssl_ca_certs`` and the like.

    Raises:
        OSError: A file can't be read, or has no such thing in it.
        RedisError: redis-py doesn't take an option.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._seen = self._look()
        self._context = self._make()

    def get(self) -> ssl.SSLContext:
        """The context, as the files are now. While they don't fit each other, as they were."""
        seen = self._look()
        if seen != self._seen:
            with suppress(OSError):
                self._context = self._make()
                self._seen = seen
        return self._context

    def _look(self) -> tuple[Any, ...]:
        """What changes with the files, and with the class that gevent puts in the place of Python's."""
        return (ssl.SSLContext, *(_stamp(self._options[name]) for name in FILES if name in self._options))

    def _make(self) -> ssl.SSLContext:
        # redis-py makes one for each socket, and knows what its options mean. This socket leads nowhere.
        connection = SSLConnection(host="localhost", **self._options)
        with socket.socket() as nowhere:
            wrapped = connection._wrap_socket_with_ssl(nowhere)  # type: ignore[no-untyped-call]  # noqa: SLF001
        with closing(wrapped):
            context: ssl.SSLContext = wrapped.context
        return context


def _stamp(path: str) -> tuple[int, ...] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


class _Dialing(AbstractConnection):
    """A connection that has ``socket_connect_timeout`` for each step by which it is made: TCP, TLS and the login."""

    def _connect(self) -> Any:
        sock = super()._connect()  # type: ignore[no-untyped-call,safe-super]  # of the class beside this one
        sock.settimeout(self.socket_connect_timeout)
        return sock

    def on_connect_check_health(self, check_health: bool = True) -> None:
        super().on_connect_check_health(check_health=check_health)
        sock: Any = self._sock
        sock.settimeout(self.socket_timeout)


class _DialingByTls(_Dialing, SSLConnection):
    def __init__(self, *, tls: TlsContext | None = None, **settings: Any) -> None:
        self._tls = tls
        super().__init__(**settings)

    def _wrap_socket_with_ssl(self, sock: socket.socket) -> Any:
        sock.settimeout(self.socket_connect_timeout)
        if self._tls is None:
            return super()._wrap_socket_with_ssl(sock)  # type: ignore[no-untyped-call]  # redis-py's
        return self._tls.get().wrap_socket(sock, server_hostname=self.host)


class Tcp(_Dialing, Connection):
    """To a host."""


class Tls(_DialingByTls):
    """To a host, by TLS."""


class Unix(_Dialing, UnixDomainSocketConnection):
    """To a socket of this machine."""


class ToPrimary(_Dialing, SentinelManagedConnection):
    """To whom the sentinels name."""


class ToPrimaryByTls(_DialingByTls, SentinelManagedSSLConnection):
    """To whom the sentinels name, by TLS."""


def tls_context(options: Mapping[str, Any]) -> TlsContext | None:
    """The context for all connections that have these options. None: OCSP, for which each needs one of its own."""
    if any(options.get(name) for name in _ANEW_EACH_TIME):
        return None
    return TlsContext({name: value for name, value in options.items() if name.startswith("ssl_")})
