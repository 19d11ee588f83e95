"""``redis://`` and its kin: many machines, one count. Redis or Valkey from 6.2 decides, in Lua, by its own clock.

A subject's counts are one key with a hash tag of its own, which ends with the last of them. One script answers all
charges of a decision; on a cluster, all charges of one slot, see ``sequence.py``. A marker beside the key, which lives
for ten seconds, makes a script that runs a second time change nothing.
"""

from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import TypeVar

from flask_ailimit.engine.charge import Charge, Settlement
from flask_ailimit.engine.clock import Clock
from flask_ailimit.engine.decision import Decision
from flask_ailimit.engine.errors import ConfigurationError, StoreError
from flask_ailimit.engine.stores.base import Store

from . import packing
from .afterwards import Afterwards
from .links import Link, UnansweredError
from .machines import Machines
from .scripts import load
from .sequence import decide_in_sequence

_RENEWED_AT_ONCE = 500
_ASKS_ONLY = -1

_Item = TypeVar("_Item")


def _servers_own() -> int:
    return 0


class RedisStore:
    """Keeps the counts in a Redis or Valkey server, behind sentinels, or in a cluster.

    Args:
        link: The way there.
        prefix: What every key begins with. Stores with different prefixes don't see each other.
        machines: Those that share the store; while this one decides, it is one of them.
        nearby: Decides while the server is away.
        clock: For tests, in place of the server's own.
    """

    def __init__(
        self,
        link: Link,
        *,
        prefix: str,
        machines: Machines | None = None,
        nearby: Store | None = None,
        clock: Clock = _servers_own,
    ) -> None:
        self.nearby = nearby
        self._link = link
        self._machines = machines
        self._afterwards = Afterwards()
        self._prefix = prefix.encode()
        self._clock = clock

    def __repr__(self) -> str:
        return f"RedisStore({self._link.name!r})"

    def reserve(self, charges: Sequence[Charge], lease: int) -> Decision:
        """See :class:`~flask_ailimit.engine.stores.base.Store`."""
        if charges and not self._link.wire.slotted:
            return self.decide(charges, lease)
        groups = self._by_slot(charges, lambda charge: charge)
        if len(groups) == 1:
            return self.decide(charges, lease)
        return decide_in_sequence(self, charges, groups, lease) if groups else self.peek(charges)

    def peek(self, charges: Sequence[Charge]) -> Decision:
        """See :class:`~flask_ailimit.engine.stores.base.Store`."""
        groups = self._by_slot(charges, lambda charge: charge)
        if len(groups) > 1:
            return decide_in_sequence(self, charges, groups, 0, dry=True)
        return self.decide(charges, 0, dry=True)

    def settle(self, settlements: Sequence[Settlement]) -> int:
        """See :class:`~flask_ailimit.engine.stores.base.Store`."""
        unknown = 0
        for places in self._by_slot(settlements, lambda settlement: settlement.charge):
            some = [settlements[place] for place in places]
            try:
                unknown += self._settle(some)
            except StoreError as error:
                self._afterwards.add(partial(self._settle, some), error)
        return unknown

    def renew(self, leases: Sequence[tuple[Charge, int]]) -> None:
        """See :class:`~flask_ailimit.engine.stores.base.Store`."""
        failed: StoreError | None = None
        for places in self._by_slot(leases, lambda lease: lease[0]):
            for first in range(0, len(places), _RENEWED_AT_ONCE):
                some = [leases[place] for place in places[first : first + _RENEWED_AT_ONCE]]
                keys = self._keys([charge for charge, _ in some])
                request = packing.pack_renewals(some, self._clock())
                try:
                    self._link.run(load("renew"), keys, request, even_when_full=True)
                except StoreError as error:
                    failed = error
        if failed:
            raise failed

    def reset(self, subject: bytes | None = None, bucket: bytes | None = None) -> None:
        """See :class:`~flask_ailimit.engine.stores.base.Store`."""
        if subject is None:
            self._link.clear(self._prefix + b":{[^}]*")  # Not who shares the store: those have an empty tag.
        elif bucket is None:
            self._link.run(load("delete"), [self._key(subject)])
        else:
            self._link.run(load("forget"), [self._key(subject)], packing.pack_bucket(bucket, self._clock()))

    def watch(self, listener: Callable[[bool], None]) -> None:
        """See :class:`~flask_ailimit.engine.stores.base.Store`."""
        self._link.watch(listener)

    def secret(self) -> bytes:
        """None can be kept where the hashes are.

        Raises:
            ConfigurationError: Always: all machines must be given the same.
        """
        raise ConfigurationError(
            "secret: every machine that shares a Redis must hash identities with the same key, and it doesn't belong "
            "into Redis. Make one with: python -c 'import secrets; print(secrets.token_hex(32))', and give "
            "it as secret=, or as AILIMIT_SECRET in the app's config, on each machine."
        )

    def close(self) -> None:
        """See :class:`~flask_ailimit.engine.stores.base.Store`."""
        if self._machines:
            self._machines.leave()
        self._afterwards.stop()
        self._link.close()
        if self.nearby:
            self.nearby.close()

    def decide(self, charges: Sequence[Charge], lease: int, *, dry: bool = False) -> Decision:
        """Decide charges of one slot in one step; with ``dry``, answer what would be."""
        keys = self._keys(charges)
        request = packing.pack_charges(charges, self._clock(), _ASKS_ONLY if dry else lease, dry=dry)
        try:
            markers = [] if dry else [_decided(keys[0], lease)]
            decision = self._link.run(
                load("reserve"),
                keys,
                request,
                markers=markers,
                read=lambda answer: packing.unpack_decision(answer, charges),
            )
        except UnansweredError as error:
            if not dry:
                self._afterwards.add(partial(self._undo, charges, lease), error, again=True)
            raise
        if self._machines:
            self._machines.stay()
        return decision

    def _settle(self, settlements: Sequence[Settlement]) -> int:
        keys = self._keys([settlement.charge for settlement in settlements])
        markers = [_settled(keys[0], settlements[0].lease)]
        request = packing.pack_settlements(settlements, self._clock())
        return self._link.run(load("settle"), keys, request, markers=markers, even_when_full=True, read=int)

    def _undo(self, charges: Sequence[Charge], lease: int) -> None:
        first = self._keys(charges)[0]
        taken = [charge for charge in charges if not charge.dry]
        if not taken:
            return
        # Without its markers it would be wrong.
        keys = [*self._keys(taken), _settled(first, lease), _decided(first, lease)]
        settlements = [Settlement(charge, 0, 0, lease) for charge in taken]
        self._link.run(load("settle"), keys, packing.pack_settlements(settlements, self._clock()), even_when_full=True)

    def _by_slot(self, items: Sequence[_Item], charge_of: Callable[[_Item], Charge]) -> list[list[int]]:
        """The places of the items whose charges one script can answer."""
        if not self._link.wire.slotted:
            return [list(range(len(items)))] if items else []
        groups: dict[int, list[int]] = {}
        for place, item in enumerate(items):
            slot = self._link.wire.slot_of(self._key(charge_of(item).subject))
            groups.setdefault(slot, []).append(place)
        return list(groups.values())

    def _keys(self, charges: Sequence[Charge]) -> list[bytes]:
        """The keys of the charges' subjects. Even no charges need a key, by which a cluster knows whom to ask."""
        return [self._key(subject) for subject in packing.subjects_of(charges)] or [self._key(b"")]

    def _key(self, subject: bytes) -> bytes:
        return _key(self._prefix, subject)


@lru_cache(maxsize=4096)
def _key(prefix: bytes, subject: bytes) -> bytes:
    return b"%b:{%b}" % (prefix, urlsafe_b64encode(subject).rstrip(b"="))


def _decided(key: bytes, lease: int) -> bytes:
    """The marker of a decision."""
    return b"%b:r%x" % (key, lease)


def _settled(key: bytes, lease: int) -> bytes:
    """The marker of a settlement."""
    return b"%b:s%x" % (key, lease)
