"""The secret for the hash of identities. If the store makes none for all machines, it comes from Flask's key."""

import hmac
from hashlib import blake2b, sha256

from flask import Flask

from .config import Settings
from .engine import ConfigurationError, Store
from .engine.stores.base import Agreeing

_CONTEXT = b"flask_ailimit: the hash of identities, 1"
_LEAST_BYTES = 16

GIVEN = "Give all machines the same AILIMIT_SECRET, or this app a prefix of its own in storage_options."
FROM_FLASK = (
    "Its secret is made of the app's SECRET_KEY. If each worker or machine makes a SECRET_KEY of its own, give all the "
    "same, or set AILIMIT_SECRET."
)


def secret_of(app: Flask, settings: Settings, store: Store) -> bytes | None:
    """The secret for a store; None if the store makes its own.

    Raises:
        ConfigurationError: It must be made of a ``SECRET_KEY`` that is too short.
    """
    key = app.secret_key
    if settings.secret is not None or not key or not isinstance(store, Agreeing):
        return settings.secret_bytes
    given = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
    if len(given) < _LEAST_BYTES:
        raise ConfigurationError(
            f"secret: a SECRET_KEY of less than {_LEAST_BYTES} bytes is too short to make a secret of it. Set a longer "
            "one, or AILIMIT_SECRET. To make one: python -c 'import secrets; print(secrets.token_hex(32))'"
        )
    # For this use only: no signature by the key can be made from this, and this can't be made from such a signature.
    return hmac.digest(given, _CONTEXT, sha256)


def require_agreement(store: Store, settings: Settings, secret: bytes | None) -> None:
    """Check that the secret is the same as that of all other processes with this store.

    Raises:
        ConfigurationError: It is not.
    """
    if secret and isinstance(store, Agreeing):
        fingerprint = blake2b(key=secret, digest_size=16, person=b"fingerprint").hexdigest()
        store.agree(fingerprint.encode(), FROM_FLASK if settings.secret is None else GIVEN)
