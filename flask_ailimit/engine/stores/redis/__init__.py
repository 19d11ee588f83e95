"""The store of many machines; see ``store.py``. Here is how a URI becomes one."""

import logging
import math
import re
from functools import partial
from hashlib import blake2b
from typing import Any

from flask_ailimit.engine.clock import Clock
from flask_ailimit.engine.errors import AILimitError, ConfigurationError
from flask_ailimit.engine.stores import directory
from flask_ailimit.engine.stores.local import LocalStore
from flask_ailimit.engine.stores.options import require_seconds
from flask_ailimit.engine.stores.share import ShareStore

from .addresses import Address, parse
from .agreement import Agreement
from .connecting import is_by_tls, wires_to
from .links import Link
from .machines import Machines
from .startup import examine
from .store import RedisStore

__all__ = ["RedisStore", "open_uri"]

_log = logging.getLogger("flask_ailimit")

_PREFIX = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_SHORTEST_TIMEOUT = 0.001
_LONGEST_TIMEOUT = 3  # A marker must outlive a call that is sent twice, and so these.
_LONGEST_CONNECT_TIMEOUT = 2
_MOST_CONNECTIONS = 10_000
_MOST_MACHINES = 10_000


def open_uri(
    uri: str,
    name: str,  # noqa: ARG001  one shape for all
    clock: Clock,
    *,
    timeout: float = 0.25,
    connect_timeout: float = 1,
    max_connections: int = 64,
    prefix: str = "ailimit",
    machines: int = 1,
    **options: Any,
) -> RedisStore:
    """Open a store of this kind.

    Args:
        uri: One of ``redis://`` and its kin; user names and passwords in it are percent-encoded.
        name: The app's, which doesn't matter here.
        clock: Of the place on this machine that decides while the server is away. The server has its own.
        timeout: Seconds for each of sending and reading, 0.001 to 3.
        connect_timeout: Seconds for each step by which a connection is made (TCP, TLS, login), 0.001 to 2.
        max_connections: The most of each process to each server, 1 to 10,000. Who finds none free waits in line.
        prefix: What every key begins with: 1 to 32 of ``A-Za-z0-9_.-``.
        machines: How many machines to reckon with until the server said how many there are.
        **options: For redis-py, see :func:`flask_ailimit.engine.stores.redis.connecting.wires_to`.

    Raises:
        ConfigurationError: The URI or an option is wrong, or the server can't be used.
    """
    require_seconds("timeout", timeout, _SHORTEST_TIMEOUT, _LONGEST_TIMEOUT, "0.25")
    require_seconds("connect_timeout", connect_timeout, _SHORTEST_TIMEOUT, _LONGEST_CONNECT_TIMEOUT, "1")
    _require_count("max_connections", max_connections, _MOST_CONNECTIONS)
    _require_count("machines", machines, _MOST_MACHINES)
    if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
        raise ConfigurationError(f"prefix: 1 to 32 letters, digits, '_', '.' or '-'. Got {str(prefix)[:40]!r}.")
    address = parse(uri)
    by_tls = is_by_tls(address, options)
    wires = wires_to(address, options, timeout=timeout, connect_timeout=connect_timeout)
    link = Link(wires(max_connections), str(address))

    def another() -> RedisStore:
        # It always asks: what its breaker would wait with is a greenlet, and may never have its turn.
        return RedisStore(Link(wires(1), link.name, math.inf), prefix=prefix)

    key = f"{prefix}:{{}}".encode()
    agreement = Agreement(link, key + b":fingerprint")
    store = partial(RedisStore, link, prefix=prefix, another=another, agreement=agreement, uri=address.uri)
    try:
        here = LocalStore(name=nearby_of(address, prefix), clock=clock)
        own = _name_of(here)
    except AILimitError as error:
        _log.warning("Nothing can be decided on this machine while %s is away: %s", link.name, error)
        agreement.waits = not examine(link, address, prefix, lambda: None, by_tls=by_tls)
        return store()
    fleet = Machines(link, key + b":machines", own, machines, here.path / directory.MACHINES, agreement.look_again)
    agreement.waits = not examine(link, address, prefix, fleet.try_out, by_tls=by_tls)
    return store(machines=fleet, nearby=ShareStore(here, fleet.share))


def nearby_of(address: Address, prefix: str) -> str:
    """The name of the place on this machine where those decide together, while the server is away, that share it.

    Whatever they are called: each has its machine's share, and not one of its own.
    """
    parts = (address.kind, *sorted(f"{host}:{port}" for host, port in address.hosts), address.path, address.service)
    digest = blake2b(repr((parts, address.db)).encode(), digest_size=8, person=b"nearby").hexdigest()
    return f"{prefix}-{digest}-nearby"


def _name_of(here: LocalStore) -> bytes:
    """What the processes of this machine have in common, and no other machine has."""
    return blake2b(here.secret(), digest_size=8, person=b"machine").hexdigest().encode()


def _require_count(name: str, value: object, most: int) -> None:
    if type(value) is not int or not 1 <= value <= most:
        raise ConfigurationError(f"{name}: a whole number from 1 to {most} is needed. Got {str(value)[:40]!r}.")
