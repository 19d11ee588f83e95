"""``redis://`` and its kin: many machines, one count. Redis or Valkey from 6.2 decides, in Lua, by its own clock.

A subject's counts are one key with a hash tag of its own, which ends with the last of them. One script answers all
charges of a decision; on a cluster, all charges of one slot, see ``sequence.py``. A marker beside the key, which lives
for ten seconds, makes a script that runs a second time change nothing.

What is under a subject's key and can't be read is that subject's trouble: the scripts take it for no counts, write
their own in its place, and say so.
"""

import logging
from base64 import urlsafe_b64encode
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache, partial
from typing import Any, TypeVar

from flask_ailimit.engine.charge import Charge, Settlement
from flask_ailimit.engine.clock import Clock, system_clock
from flask_ailimit.engine.decision import Decision, Settled, Verdict
from flask_ailimit.engine.errors import AILimitError, ConfigurationError, StoreError, UnansweredError
from flask_ailimit.engine.stores.base import Store
from flask_ailimit.engine.stores.renewing import by_count, in_pieces

from . import lasting, packing, trail
from .afterwards import Afterwards
from .agreement import Agreement
from .links import Link
from .machines import Machines
from .scripts import load
from .sequence import decide_in_sequence

_log = logging.getLogger("flask_ailimit")

_RENEWED_AT_ONCE = 200
_ASKS_ONLY = -1
_MOST_TURNS = 3

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


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
        another: Opens this store once more, over connections of its own. None: it can't be.
        agreement: That of all machines about their secret.
        uri: What to say if somebody asks where the counts are; without a password.
    """

    def __init__(
        self,
        link: Link,
        *,
        prefix: str,
        machines: Machines | None = None,
        nearby: Store | None = None,
        clock: Clock = _servers_own,
        another: "Callable[[], RedisStore] | None" = None,
        agreement: Agreement | None = None,
        uri: str = "",
    ) -> None:
        self.nearby = nearby
        self._link = link
        self._machines = machines
        self._afterwards = Afterwards()
        self._prefix = prefix.encode()
        self._clock = clock
        self._another = another
        self._agreement = agreement
        self._uri = uri or link.name

        self._ahead_us = 0  # Of this machine's clock, as far as it matters.

    shares_changes = True

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

    def settle(self, settlements: Sequence[Settlement]) -> Settled:
        """See :class:`~flask_ailimit.engine.stores.base.Store`.

        What is brought in the background is told to nobody: the next settlement tells that its count has passed.
        What is right only now is not brought at all.
        """
        unknown = 0
        passed: list[Verdict] = []
        below: list[Charge] = []
        for places in self._by_slot(settlements, lambda settlement: settlement.charge):
            some = [settlements[place] for place in places]
            try:
                settled = self._settle(some)
                unknown += settled.unknown
                passed += settled.passed
                below += settled.below
            except StoreError as error:
                below += [each.charge for each in some if each.actual == each.charge.cost]
                self._settle_later(some, error)
            except BaseException as error:  # As above.
                self._settle_later(some, error)
                raise
        return Settled(unknown, tuple(passed), tuple(below))

    def renew(self, leases: Sequence[tuple[Charge, int]]) -> None:
        """See :class:`~flask_ailimit.engine.stores.base.Store`."""
        failed: StoreError | None = None
        held = by_count(leases)
        for places in self._by_slot(held, lambda each: each[0]):
            for piece in in_pieces([held[place] for place in places], _RENEWED_AT_ONCE):
                places_among_keys = packing.places_of([charge for charge, _ in piece])
                request = packing.pack_renewals(places_among_keys, piece, self._clock())
                try:
                    self._ask("renew", self._keys(places_among_keys), request, int, even_when_full=True)
                except StoreError as error:
                    failed = error
        if failed:
            raise failed

    @property
    def where(self) -> str:
        """Where the counts are: the URI without user and password, and what the keys begin with."""
        return f"{self._uri} (keys begin with {self._prefix.decode()}:)"

    def reset(self, subject: bytes | None = None, bucket: bytes | None = None) -> int | None:
        """See :class:`~flask_ailimit.engine.stores.base.Store`."""
        if subject is None:
            self._link.clear(self._prefix + b":{[^}]*")  # Not who shares the store: those have an empty tag.
            return None
        if bucket is None:
            return self._link.run(load("delete"), [self._key(subject)], b"%d" % self._clock(), read=int)
        return self._ask("forget", [self._key(subject)], packing.pack_bucket(bucket, self._clock()), int)

    def changes_from(self, number: int) -> list[tuple[int, str]]:
        """See :class:`~flask_ailimit.engine.stores.base.KeepsChanges`."""
        return trail.read(self._link, self._prefix, number)

    def add_change(self, text: str, last: int, without: Collection[int] = ()) -> bool:
        """See :class:`~flask_ailimit.engine.stores.base.KeepsChanges`."""
        return trail.add(self._link, self._prefix, text, last, without)

    def may_lose_changes(self) -> str | None:
        """See :class:`~flask_ailimit.engine.stores.base.KeepsChanges`."""
        return trail.may_be_lost(self._link)

    def may_lose_counts(self) -> str | None:
        """See :class:`~flask_ailimit.engine.stores.base.Lasting`."""
        return lasting.may_lose_counts(self._link)

    def apart(self) -> "RedisStore":
        """This store for a thread that must not share connections: gevent's belong to the thread that made them."""
        return self._another() if self._another else self

    def watch(self, listener: Callable[[bool], None]) -> None:
        """See :class:`~flask_ailimit.engine.stores.base.Store`."""
        self._link.watch(listener)

    def agree(self, fingerprint: bytes, advice: str) -> None:
        """See :class:`~flask_ailimit.engine.stores.base.Agreeing`."""
        if self._agreement:
            self._agreement.require(fingerprint, advice)

    def secret(self) -> bytes:
        """None can be kept where the hashes are.

        Raises:
            ConfigurationError: Always: all machines must be given the same.
        """
        raise ConfigurationError(
            "secret: every machine that shares a Redis must hash identities with the same key, and it doesn't belong "
            "into Redis. Make one with: python -c 'import secrets; print(secrets.token_hex(32))', and give "
            "it as secret=, or as AILIMIT_SECRET in the app's config, on each machine. An app whose SECRET_KEY is the "
            "same on all of them needs none."
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
        places = packing.places_of(charges)
        keys = self._keys(places)
        number = _ASKS_ONLY if dry else lease
        try:
            decision = self._ask_about_now(
                "reserve",
                keys,
                lambda times: packing.pack_charges(places, charges, times, number, dry=dry),
                lambda answer: packing.unpack_decision(answer, charges),
                markers=[] if dry else [_decided(keys[0], lease)],
            )
        except BaseException as error:
            # A time-out of the app may be raised in the middle of it. Nobody knows then what came of it, either.
            if not dry and (isinstance(error, UnansweredError) or not isinstance(error, AILimitError)):
                self._afterwards.add(partial(self._undo, charges, lease), error, again=True)
            raise
        if self._machines:
            self._machines.stay()
        return decision

    def _settle(self, settlements: Sequence[Settlement], *, is_heard: bool = True) -> Settled:
        places = packing.places_of([settlement.charge for settlement in settlements])
        keys = self._keys(places)
        once = next((settlement for settlement in settlements if not settlement.is_repeatable), None)
        markers = [_settled(self._key(once.charge.subject), once.lease)] if once else []
        return self._ask_about_now(
            "settle",
            keys,
            lambda times: packing.pack_settlements(places, settlements, times, is_heard=is_heard),
            lambda answer: packing.unpack_settled(answer, settlements),
            markers=markers,
            even_when_full=True,
        )

    def _settle_later(self, settlements: Sequence[Settlement], error: BaseException) -> None:
        lasting = [settlement for settlement in settlements if not settlement.is_of_the_moment]
        if lasting:
            self._afterwards.add(partial(self._settle, lasting, is_heard=False), error)

    def _undo(self, charges: Sequence[Charge], lease: int) -> None:
        first = self._keys(packing.places_of(charges))[0]
        taken = [charge for charge in charges if not charge.dry]
        if not taken:
            return
        # Without its markers it would be wrong.
        places = packing.places_of(taken)
        keys = [*self._keys(places), _settled(first, lease), _decided(first, lease)]
        settlements = [Settlement(charge, 0, 0, lease) for charge in taken]
        self._ask_about_now(
            "settle", keys, lambda times: packing.pack_settlements(places, settlements, times), int, even_when_full=True
        )

    def _ask_about_now(
        self,
        script: str,
        keys: Sequence[bytes],
        pack: Callable[[packing.Times], bytes],
        read: Callable[[Any], _Answer],
        *,
        markers: Sequence[bytes] = (),
        even_when_full: bool = False,
    ) -> _Answer:
        """What a script answers that must know where windows end around its time, which only the server knows.

        It is told those around this machine's time. If it is so far from there that they don't tell it enough, it
        changes nothing and answers what time it is, and is asked again. From then on the difference is known.
        """
        now_us = self._clock()
        times = packing.Times(now_us, now_us or system_clock() + self._ahead_us)

        def heard(answer: Any) -> _Answer | packing.Times:
            is_elsewhere = isinstance(answer, int) and answer < 0
            return packing.Times(now_us, -answer) if is_elsewhere else read(answer)

        for _ in range(_MOST_TURNS):
            answer = self._ask(script, keys, pack(times), heard, markers=markers, even_when_full=even_when_full)
            if not isinstance(answer, packing.Times):
                return answer
            times, self._ahead_us = answer, answer.about_us - system_clock()
        raise StoreError(f"{self._link.name}: its clock jumps, so nobody knows in which window it is")

    def _ask(
        self,
        script: str,
        keys: Sequence[bytes],
        request: bytes,
        read: Callable[[Any], _Answer],
        *,
        markers: Sequence[bytes] = (),
        even_when_full: bool = False,
    ) -> _Answer:
        """What a script answers, as ``read`` understands it; a line in the log for what it had to replace."""

        def heard(answer: Any) -> _Answer:
            if not isinstance(answer, list):
                return read(answer)
            for key in answer[1:]:
                _log.error("%s: no counts could be read under %s. They start afresh.", self._link.name, key.decode())
            return read(answer[0])

        return self._link.run(load(script), keys, request, markers=markers, even_when_full=even_when_full, read=heard)

    def _by_slot(self, items: Sequence[_Item], charge_of: Callable[[_Item], Charge]) -> list[list[int]]:
        """The places of the items whose charges one script can answer."""
        if not self._link.wire.slotted:
            return [list(range(len(items)))] if items else []
        groups: dict[int, list[int]] = {}
        for place, item in enumerate(items):
            slot = self._link.wire.slot_of(self._key(charge_of(item).subject))
            groups.setdefault(slot, []).append(place)
        return list(groups.values())

    def _keys(self, places: packing.Places) -> list[bytes]:
        """The keys of the subjects. Without any there is a key too, by which a cluster knows whom to ask."""
        return [self._key(subject) for subject in places] or [self._key(b"")]

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
