"""From a URI to redis-py's client, without what is dangerous to a limiter in its defaults."""

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from redis import Redis, SSLConnection
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

from flask_ailimit.engine.errors import ConfigurationError

from .addresses import Address
from .servers import Cluster, OneServer, Wire

_FORWARDED = ("client_name", "sentinel_kwargs", "ssl", "username", "password")
_OF_TLS = {name for name in signature(SSLConnection.__init__).parameters if name.startswith("ssl_")}
_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_ENOUGH = 2**31  # Who holds connections counts them; redis-py's own count knows nothing of forks.


def open_wire(address: Address, options: Mapping[str, Any], timeout: float, most: int) -> Wire:
    """Make the way to the servers; nothing is sent yet.

    Args:
        address: Where they are.
        options: Further arguments for redis-py: TLS (``ssl_ca_certs`` and the like), ``username``, ``password``,
            ``client_name`` and ``sentinel_kwargs``.
        timeout: Seconds for each of connecting, sending and reading.
        most: The most connections of this process.

    Raises:
        ConfigurationError: An option is none of these.
    """
    tls = address.tls or options.get("ssl") is True
    for name in options:
        if name not in _FORWARDED and name not in _OF_TLS:
            raise ConfigurationError(
                f"storage_options: there is no option {name[:40]!r} for redis. Use timeout, max_connections, prefix, "
                f"machines, {', '.join(_FORWARDED)} or one of {', '.join(sorted(_OF_TLS))}."
            )
        if name in _OF_TLS and not tls:
            raise ConfigurationError(
                f"storage_options: {name} is for TLS, which this URI doesn't ask for. Write rediss:// for redis://."
            )
        if name in _FILES and not Path(options[name]).exists():
            raise ConfigurationError(f"storage_options: {name}: there is no {options[name]}.")
    settings: dict[str, Any] = {
        "username": address.username,
        "password": address.password,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        **options,
    }
    if tls:
        settings["ssl"] = True
    try:
        plain = {name: value for name, value in settings.items() if name != "sentinel_kwargs"}
        Redis(**plain).connection_pool.make_connection()  # It looks at what it is given; it doesn't connect.
        return _wire(address, settings, most)
    except (TypeError, ValueError, RedisError) as error:
        raise ConfigurationError(f"storage_options: redis-py doesn't take them: {error}") from error


def _wire(address: Address, settings: dict[str, Any], most: int) -> Wire:
    if address.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in address.hosts]  # type: ignore[no-untyped-call]  # redis-py's
        return Cluster(lambda: RedisCluster(startup_nodes=nodes, require_full_coverage=False, **settings))
    if address.kind == "unix":
        client = Redis(unix_socket_path=address.path, db=address.db, max_connections=_ENOUGH, **settings)
    elif address.kind == "sentinel":
        client = _behind_sentinels(address, settings)
    else:
        host, port = address.hosts[0]
        client = Redis(host=host, port=port, db=address.db, max_connections=_ENOUGH, **settings)
    return OneServer(client, most)


def _behind_sentinels(address: Address, settings: dict[str, Any]) -> Redis:
    own = settings.pop("sentinel_kwargs", None) or {}
    same = {name: settings[name] for name in settings if name.startswith(("socket_", "ssl", "retry", "protocol"))}
    sentinels = Sentinel(address.hosts, sentinel_kwargs={**same, **own}, **settings)  # type: ignore[no-untyped-call]  # redis-py's
    client: Redis = sentinels.master_for(  # type: ignore[no-untyped-call]  # likewise
        address.service, db=address.db, max_connections=_ENOUGH
    )
    return client
