"""The store of many machines; see ``store.py``. Here is how a URI becomes one."""

import logging
import re
from hashlib import blake2b
from typing import Any

from flask_ailimit.engine.clock import Clock
from flask_ailimit.engine.errors import AILimitError, ConfigurationError
from flask_ailimit.engine.stores.local import LocalStore
from flask_ailimit.engine.stores.share import ShareStore

from .addresses import parse
from .connecting import open_wire
from .links import Link
from .machines import Machines
from .startup import examine
from .store import RedisStore

__all__ = ["RedisStore", "open_uri"]

_log = logging.getLogger("flask_ailimit")

_PREFIX = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_SHORTEST_TIMEOUT = 0.001
_LONGEST_TIMEOUT = 3  # A marker must outlive a call that is sent twice.
_MOST_CONNECTIONS = 10_000
_MOST_MACHINES = 10_000


def open_uri(
    uri: str,
    name: str,
    clock: Clock,
    *,
    timeout: float = 0.05,
    max_connections: int = 64,
    prefix: str = "ailimit",
    machines: int = 1,
    **options: Any,
) -> RedisStore:
    """Open a store of this kind.

    Args:
        uri: One of ``redis://`` and its kin; user names and passwords in it are percent-encoded.
        name: The app's, for the place on this machine that decides while the server is away.
        clock: Of that place. The server has its own.
        timeout: Seconds for each of connecting, sending and reading, 0.001 to 3.
        max_connections: The most of each process, 1 to 10,000. Who finds none free waits.
        prefix: What every key begins with: 1 to 32 of ``A-Za-z0-9_.-``.
        machines: How many machines to reckon with until the server said how many there are.
        **options: For redis-py, see :func:`flask_ailimit.engine.stores.redis.connecting.open_wire`.

    Raises:
        ConfigurationError: The URI or an option is wrong, or the server can't be used.
    """
    if type(timeout) not in (int, float) or not _SHORTEST_TIMEOUT <= timeout <= _LONGEST_TIMEOUT:
        raise ConfigurationError(f"timeout: seconds from 0.001 to {_LONGEST_TIMEOUT}, such as 0.05. Got {timeout!r}.")
    _require_count("max_connections", max_connections, _MOST_CONNECTIONS)
    _require_count("machines", machines, _MOST_MACHINES)
    if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
        raise ConfigurationError(f"prefix: 1 to 32 letters, digits, '_', '.' or '-'. Got {str(prefix)[:40]!r}.")
    address = parse(uri)
    link = Link(open_wire(address, options, timeout, max_connections), str(address))
    key = f"{prefix}:{{}}".encode()
    try:
        here = LocalStore(name=f"{name}-nearby", clock=clock)
        own = _name_of(here)
    except AILimitError as error:
        _log.warning("Nothing can be decided on this machine while %s is away: %s", link.name, error)
        examine(link, key + b":probe", prefix, lambda: None)
        return RedisStore(link, prefix=prefix)
    fleet = Machines(link, key + b":machines", own, machines, here.path / "machines")
    examine(link, key + b":probe", prefix, fleet.try_out)
    return RedisStore(link, prefix=prefix, machines=fleet, nearby=ShareStore(here, fleet.share))


def _name_of(here: LocalStore) -> bytes:
    """What the processes of this machine have in common, and no other machine has."""
    return blake2b(here.secret(), digest_size=8, person=b"machine").hexdigest().encode()


def _require_count(name: str, value: object, most: int) -> None:
    if type(value) is not int or not 1 <= value <= most:
        raise ConfigurationError(f"{name}: a whole number from 1 to {most} is needed. Got {str(value)[:40]!r}.")
