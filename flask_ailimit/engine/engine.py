"""The engine: charges in, a reservation out. Knows no web framework."""

import logging
import secrets
from collections.abc import Sequence
from hashlib import blake2b
from random import Random

from .charge import DENY, LOCAL, SUBJECT_BYTES, Charge
from .decision import Decision
from .errors import ConfigurationError, StoreError
from .forking import forget_in_children
from .leases import Leases
from .quota import CONCURRENCY
from .reservation import Reservation
from .stores.base import Store

_log = logging.getLogger("flask_ailimit")

_LEAST_SECRET_BYTES = 16
_MOST_SECRET_BYTES = 64  # What blake2b takes as a key.
_LEASE_BITS = 53


class Engine:
    """Decides over one store.

    Args:
        store: Where counts are kept; see :func:`flask_ailimit.engine.open_store`.
        secret: 16 to 64 bytes that key the hash of identities. Everyone who shares a store must give the same.
            None: the store's own secret, or a random one if the store is this process's alone.

    Raises:
        ConfigurationError: The secret is too short or too long.
    """

    def __init__(self, store: Store, *, secret: bytes | None = None) -> None:
        secret = secret or store.secret() or secrets.token_bytes(32)
        if not _LEAST_SECRET_BYTES <= len(secret) <= _MOST_SECRET_BYTES:
            raise ConfigurationError(
                f"secret: {_LEAST_SECRET_BYTES} to {_MOST_SECRET_BYTES} bytes are needed. Got {len(secret)}. "
                'Make one with: python -c "import secrets; print(secrets.token_hex(32))"'
            )
        self.store = store
        self.leases = Leases(store)
        self._is_away = False
        self._nearby_leases = Leases(store.nearby) if store.nearby else None
        self._hash = blake2b(digest_size=SUBJECT_BYTES, key=secret)
        self.forget()
        forget_in_children(self)

    def subject(self, *identity: str) -> bytes:
        """Hash who is limited. Parts are kept apart: ``("a:b", "c")`` is not ``("a", "b:c")``."""
        digest = self._hash.copy()
        for part in identity:
            encoded = part.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
        return digest.digest()

    def reserve(self, charges: Sequence[Charge]) -> Reservation:
        """Take every charge, or none if one is refused, in one atomic step.

        While the store is away each charge's ``on_store_error`` holds. A charge that then passes uncounted has no
        verdict in the decision.

        Raises:
            StoreError: The store can't answer, and a charge is not to pass without an answer.
        """
        lease = self._numbers.getrandbits(_LEASE_BITS)
        try:
            reservation = self._reserve(self.store, self.leases, charges, lease)
        except StoreError as error:
            return self._reserve_nearby(_decided_nearby(charges, self.store, error), lease, error)
        self._is_away = False
        return reservation

    def peek(self, charges: Sequence[Charge]) -> Decision:
        """Answer as :meth:`reserve` would, and take nothing."""
        try:
            return self.store.peek(charges)
        except StoreError as error:
            charges = _decided_nearby(charges, self.store, error)
        return self.store.nearby.peek(charges) if charges and self.store.nearby else Decision((), 0)

    def _reserve(self, store: Store, leases: Leases, charges: Sequence[Charge], lease: int) -> Reservation:
        decision = store.reserve(charges, lease)
        if decision.allowed:
            held = [charge for charge in charges if charge.quota.unit == CONCURRENCY and charge.cost and not charge.dry]
            if held:
                leases.add(lease, held)
        return Reservation(decision, lease, store, leases)

    def _reserve_nearby(self, charges: Sequence[Charge], lease: int, error: StoreError) -> Reservation:
        if not self._is_away:
            _log.error("The store failed, each limit follows its on_store_error: %s", error)
            self._is_away = True
        if charges and self.store.nearby and self._nearby_leases:
            return self._reserve(self.store.nearby, self._nearby_leases, charges, lease)
        return Reservation(Decision((), 0), lease, self.store, self.leases)

    def reset(self, subject: bytes | None = None, bucket: bytes | None = None) -> None:
        """Forget one count of a subject, all its counts, or (without a subject) everyone's."""
        self.store.reset(subject, bucket)

    def forget(self) -> None:
        """Start anew in a child process, which would number its reservations as its parent does."""
        # Numbers must differ between processes and are no secrets: asking the system for each takes ten times as long.
        # A generator of its own, because an application that seeds Python's makes all its workers draw alike.
        self._numbers = Random()  # noqa: S311  see above

    def close(self) -> None:
        """Stop renewing leases and close the store."""
        self.leases.close()
        if self._nearby_leases:
            self._nearby_leases.close()
        self.store.close()


def _decided_nearby(charges: Sequence[Charge], store: Store, error: StoreError) -> list[Charge]:
    """Those of the charges that are decided nearby while the store is away; raise if one may not pass without it."""
    if any(charge.on_store_error == DENY for charge in charges):
        raise error
    local = [charge for charge in charges if charge.on_store_error == LOCAL]
    if local and store.nearby is None:
        raise error
    return local
