"""The stores by URI scheme. To add one: a file beside this one, and a line in the table."""

import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

from flask_ailimit.engine.clock import Clock, system_clock
from flask_ailimit.engine.errors import ConfigurationError

from .base import StateStore, Store, Transaction

_REDIS = "flask_ailimit.engine.stores.redis"

STORES = {
    "local": "flask_ailimit.engine.stores.local",
    "memory": "flask_ailimit.engine.stores.memory",
    "redis": _REDIS,
    "redis+cluster": _REDIS,
    "redis+sentinel": _REDIS,
    "redis+unix": _REDIS,
    "rediss": _REDIS,
    "rediss+cluster": _REDIS,
    "rediss+sentinel": _REDIS,
    "valkey": _REDIS,
    "valkey+cluster": _REDIS,
    "valkey+sentinel": _REDIS,
    "valkey+unix": _REDIS,
    "valkeys": _REDIS,
    "valkeys+cluster": _REDIS,
    "valkeys+sentinel": _REDIS,
}
"""URI scheme to the module whose ``open_uri(uri, name, clock, **options)`` opens it. Imported when first used."""


def open_store(uri: str, *, name: str, clock: Clock = system_clock, options: Mapping[str, Any] | None = None) -> Store:
    """Open the store that a URI names, such as ``local://`` or ``memory://``.

    Args:
        uri: ``scheme://rest``; what the rest means is the store's own affair.
        name: The app's name, for a store that needs a place of its own.
        clock: The time, for a store that has none of its own.
        options: Further keyword arguments of the store; None for none.

    Raises:
        ConfigurationError: No such scheme, or the store refuses what it was given.
    """
    match = re.fullmatch(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", uri) if isinstance(uri, str) else None
    if not match or match[1] not in STORES:
        known = ", ".join(f"{scheme}://" for scheme in sorted(STORES))
        scheme = match[1] + "://" if match else ""
        hint = f" Write it in small letters, {scheme.lower()}." if scheme[:-3].lower() in STORES else ""
        raise ConfigurationError(f"storage_uri: no store is called {scheme!r}.{hint} Use one of: {known}.")
    module = import_module(STORES[match[1]])
    given = options or {}
    try:
        return cast("Store", module.open_uri(uri, name, clock, **given))
    except TypeError as error:
        raise ConfigurationError(f"storage_options: {match[1]}:// doesn't take these: {sorted(given)}.") from error


__all__ = ["STORES", "StateStore", "Store", "Transaction", "open_store"]
