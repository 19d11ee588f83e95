"""From a URI to redis-py's connections, without what is dangerous to a limiter in its defaults."""

from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from redis import SSLConnection
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool

from flask_ailimit.engine.errors import ConfigurationError

from .addresses import Address
from .cluster import Cluster, Place
from .dialing import FILES, Tcp, Tls, ToPrimary, ToPrimaryByTls, Unix, tls_context
from .sentinels import Sentinels
from .servers import OneServer, Wire

_FORWARDED = ("client_name", "sentinel_kwargs", "ssl", "username", "password")
_OF_TLS = {name for name in signature(SSLConnection.__init__).parameters if name.startswith("ssl_")}
_ENOUGH = 2**31  # Who holds connections knows how many there are; redis-py's own count knows nothing of forks.


def wires_to(
    address: Address, options: Mapping[str, Any], *, timeout: float, connect_timeout: float
) -> Callable[[int], Wire]:
    """What makes ways to the servers, each of so many connections at the most; nothing is sent yet.

    Args:
        address: Where they are.
        options: Further arguments for redis-py: TLS (``ssl_ca_certs`` and the like), ``username``, ``password``,
            ``client_name`` and ``sentinel_kwargs``.
        timeout: Seconds for each of sending and reading.
        connect_timeout: Seconds for each step by which a connection is made: TCP, TLS and the login.

    Raises:
        ConfigurationError: An option is none of these.
    """
    tls = is_by_tls(address, options)
    settings = {
        "username": address.username,
        "password": address.password,
        "socket_timeout": timeout,
        "socket_connect_timeout": connect_timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        **{name: value for name, value in options.items() if name not in ("ssl", "sentinel_kwargs")},
    }
    try:
        if tls:
            settings["tls"] = tls_context(options)
        wires = _wires(address, settings, options.get("sentinel_kwargs") or {}, tls=tls, patience=connect_timeout)
        wires(1)
    except (TypeError, ValueError, RedisError) as error:
        raise ConfigurationError(f"storage_options: redis-py doesn't take them: {error}") from error
    except OSError as error:
        raise ConfigurationError(f"storage_options: a file for TLS can't be used: {error}") from error
    return wires


def is_by_tls(address: Address, options: Mapping[str, Any]) -> bool:
    """Whether TLS is to be spoken.

    Raises:
        ConfigurationError: An option is none that there is, or doesn't go with that.
    """
    tls = address.tls or options.get("ssl") is True
    for name in options:
        if name not in _FORWARDED and name not in _OF_TLS:
            raise ConfigurationError(
                f"storage_options: there is no option {name[:40]!r} for redis. Use timeout, max_connections, "
                f"connect_timeout, prefix, machines, {', '.join(_FORWARDED)} or one of {', '.join(sorted(_OF_TLS))}."
            )
        if name in _OF_TLS and not tls:
            raise ConfigurationError(
                f"storage_options: {name} is for TLS, which this URI doesn't ask for. Write rediss:// for redis://."
            )
        if name in FILES and not Path(options[name]).exists():
            raise ConfigurationError(f"storage_options: {name}: there is no {options[name]}.")
    if type(options.get("ssl", tls)) is not bool or (tls and address.kind == "unix"):
        raise ConfigurationError("storage_options: ssl is True or False, and no TLS is spoken over a unix socket.")
    return tls


def _wires(
    address: Address, settings: Mapping[str, Any], of_sentinels: Mapping[str, Any], *, tls: bool, patience: float
) -> Callable[[int], Wire]:
    dial: Callable[..., Any] = partial(Tls if tls else Tcp, **settings)
    dial(host="localhost")  # It looks at what it is given; it doesn't connect.
    if address.kind == "cluster":

        def node_at(place: Place, most: int) -> OneServer:
            return OneServer(partial(dial, host=place[0], port=place[1]), most)

        return lambda most: Cluster(partial(node_at, most=most), address.hosts, patience)
    if address.kind == "sentinel":
        return lambda most: OneServer(_behind_sentinels(address, settings, of_sentinels, tls=tls), most)
    if address.kind == "unix":
        dial = partial(Unix, path=address.path, **settings)  # type: ignore[abstract]  # so is redis-py's
    else:
        host, port = address.hosts[0]
        dial = partial(dial, host=host, port=port)
    return lambda most: OneServer(partial(dial, db=address.db), most)


def _behind_sentinels(
    address: Address, settings: Mapping[str, Any], own: Mapping[str, Any], *, tls: bool
) -> Callable[[], Any]:
    """What makes connections to the primary. ``own`` are the settings of the sentinels themselves."""
    same = {name: settings[name] for name in settings if name.startswith(("socket_", "ssl_", "retry", "protocol"))}
    kwargs = {**same, "ssl": tls, **own}
    sentinels = Sentinels(address.hosts, sentinel_kwargs=kwargs)  # type: ignore[no-untyped-call]  # redis-py's
    context = tls_context(kwargs) if any(name in own for name in _OF_TLS) else settings.get("tls")
    for sentinel in sentinels.sentinels:
        pool = sentinel.connection_pool
        by_tls = issubclass(pool.connection_class, SSLConnection)
        pool.connection_class = Tls if by_tls else Tcp
        if by_tls:
            pool.connection_kwargs["tls"] = context
    primary = SentinelConnectionPool(  # type: ignore[no-untyped-call]  # likewise
        address.service,
        sentinels,
        connection_class=ToPrimaryByTls if tls else ToPrimary,
        db=address.db,
        max_connections=_ENOUGH,
        **settings,
    )
    make: Callable[[], Any] = primary.make_connection
    return make
