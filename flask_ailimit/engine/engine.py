"""The engine: charges in, a reservation out. Knows no web framework."""

import logging
import secrets
from collections.abc import Callable, Sequence
from hashlib import blake2b
from random import Random

from .announced import Announced
from .charge import DENY, LOCAL, SUBJECT_BYTES, Charge
from .decision import Decision
from .errors import ConfigurationError, StoreError
from .few_lines import few_lines
from .forking import forget_in_children
from .hand_over_token import Note, Part, key_of, read_token, require_note, write_token
from .handing_over import DAY_US, HandedOver, TakenOver
from .leases import Leases
from .quota import BUDGET, CONCURRENCY
from .reservation import LEASE_BITS, Reservation, Taken
from .stores.base import Store
from .stores.share import ShareStore

_log = logging.getLogger("flask_ailimit")
_log.addFilter(few_lines)  # The logger is the same in all files.

_LEAST_SECRET_BYTES = 16
_MOST_SECRET_BYTES = 64  # What blake2b takes as a key.


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
        self._announced = Announced()
        self._announced_nearby = Announced()  # Of a share, by its own clock.
        self._is_away = False
        self._nearby_leases = Leases(store.nearby) if store.nearby else None
        self._hash = blake2b(digest_size=SUBJECT_BYTES, key=secret)
        self._token_key = key_of(secret)
        self._own_place = secrets.token_hex(8)
        self._at_close: list[Callable[[], None]] = []
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
        lease = self._numbers.getrandbits(LEASE_BITS)
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
        announced = self._announced if store is self.store else self._announced_nearby
        reservation = Reservation(lease, store, leases, announced)
        reservation.asked(charges)
        try:
            reservation.decided(store.reserve(charges, lease))
        except StoreError:
            reservation.released()  # Nothing was taken, or the store knows itself what was not heard.
            raise
        return reservation

    def _reserve_nearby(self, charges: Sequence[Charge], lease: int, error: StoreError) -> Reservation:
        if not self._is_away:
            _log.error("The store failed, each limit follows its on_store_error: %s", error)
            self._is_away = True
        if charges and self.store.nearby and self._nearby_leases:
            return self._reserve(self.store.nearby, self._nearby_leases, charges, lease)
        uncounted = Reservation(lease, self.store, self.leases, self._announced)
        uncounted.decided(Decision((), 0))
        return uncounted

    def hand_over(self, reservations: Sequence[Reservation], note: Note) -> str:
        """Let another process end these reservations: one with the same store and secret, by :meth:`take_over`.

        Their leases are renewed no more until then. Those that have ended are left out.

        Args:
            reservations: Of this engine. Without any, taking over and ending still work, exactly once.
            note: What the other process is to know: texts and whole numbers by name, at most 4,096 bytes as JSON.

        Returns:
            A token of printable ASCII. It holds no identity, and everybody who gets it can read it.

        Raises:
            ValueError: The note is something else.
            StoreError: Nothing was reserved, and the store can't tell the time.
        """
        note = require_note(note)
        handed: dict[str, list[Taken]] = {}
        for reservation in reservations:
            taken = reservation.taken
            if taken.charges and reservation.close():
                handed.setdefault(self._place_of(reservation.store), []).append(taken)
        parts = {
            place: Part(max(at for taken in some for _, at in taken.charges) + DAY_US, some)
            for place, some in handed.items()
        }
        return write_token(self._token_key, note, parts or {"": Part(self.store.peek(()).at_us + DAY_US, ())})

    def take_over(self, token: str) -> HandedOver:
        """Continue what another process handed over: hold its slots, also those whose leases ended meanwhile.

        It works for a day from the reservation on. What was reserved on another machine while the store was away is
        out of reach, and stays charged there.

        Raises:
            HandOverError: The token was changed, is another app's, or is more than a day old.
            StoreError: The store can't answer.
        """
        name, note, parts = read_token(self._token_key, token)
        taken: list[TakenOver] = []
        try:
            for place, part in parts.items():
                store, leases = (self.store, self.leases) if not place else (self.store.nearby, self._nearby_leases)
                if store is None or leases is None or place != self._place_of(store):
                    continue
                claims = store.whole if isinstance(store, ShareStore) else store
                subject = self.subject("handed over", name, place)
                taken.append(TakenOver(store, claims, leases, subject, part.until_us, part.taken))
                taken[-1].begin()
        except BaseException:
            for each in taken:
                each.let_go()  # Nobody has it who could end it.
            raise
        return HandedOver(note, taken)

    def _place_of(self, store: Store) -> str:
        """What tells the store of this machine, where all that can open it must end what was taken there."""
        if store is not self.store.nearby:
            return ""
        secret = store.secret()
        return blake2b(secret, digest_size=8, person=b"place").hexdigest() if secret else self._own_place

    def reset(self, subject: bytes | None = None, bucket: bytes | None = None) -> int | None:
        """Forget one count of a subject, all its counts, or (without a subject) everyone's.

        Returns:
            How many counts of the subject were forgotten, without those that had ended already. None if everyone's
            are forgotten, or if the store can't tell.

        Raises:
            StoreError: The store can't answer.
        """
        forgotten = self.store.reset(subject, bucket)
        self._announced.forget()
        return forgotten

    def forgive(self, charges: Sequence[Charge]) -> int:
        """Forget each of these counts that is in debt: more was used of it than its limit. Answers how many.

        Calls in flight are no debt, however many there are. A budget is left as it is: what was spent of it is spent.
        """
        counts = {charge.counted_in: charge.costing(0)._replace(dry=False) for charge in charges}
        asked = [charge for charge in counts.values() if charge.quota.algorithm not in (CONCURRENCY, BUDGET)]
        owing = [verdict.charge for verdict in self.store.peek(asked).verdicts if not verdict.allowed] if asked else []
        for charge in owing:
            self.reset(charge.subject, charge.bucket)
        return len(owing)

    def forget(self) -> None:
        """Start anew in a child process, which would number its reservations as its parent does."""
        # Numbers must differ between processes and are no secrets: asking the system for each takes ten times as long.
        # A generator of its own, because an application that seeds Python's makes all its workers draw alike.
        self._numbers = Random()  # noqa: S311  see above

    def at_close(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when the engine is closed, before its store is: for whatever asks the store by itself."""
        self._at_close.append(callback)

    def close(self) -> None:
        """Stop renewing leases and close the store."""
        for callback in self._at_close:
            callback()
        self.leases.close()
        if self._nearby_leases:
            self._nearby_leases.close()
        self.store.close()


def _decided_nearby(charges: Sequence[Charge], store: Store, error: StoreError) -> list[Charge]:
    """Those of the charges that are decided nearby while the store is away; raise if one may not pass without it."""
    enforced = [charge for charge in charges if not charge.shadow]
    if any(charge.on_store_error == DENY for charge in enforced):
        raise error
    local = [charge for charge in enforced if charge.on_store_error == LOCAL]
    if local and store.nearby is None:
        raise error
    return local
