"""Work that outlives its answer: another process ends what this one reserved.

A queue may deliver a token twice. So whoever ends it first makes a claim: it takes the only unit a day of a count that
is the token's own. Who is refused that does nothing. A day after the reservation a claim can no longer be relied upon,
and nothing is ended any more: what was reserved stays charged until time heals it.
"""

import logging
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from .charge import Charge, Settlement
from .clock import MICROSECONDS
from .decision import Verdict
from .errors import HandOverError, StoreError
from .hand_over_token import Note
from .leases import Leases
from .quota import Quota
from .reservation import LEASE_BITS, ActualOf, Endable, Taken, ending, hold, slots_of
from .stores.base import Store

_log = logging.getLogger("flask_ailimit")

_DAY = 86400
DAY_US = _DAY * MICROSECONDS
"""How long work that was handed over can be ended, from its latest reservation on."""

_CLAIM = Quota(1, _DAY, "hand_overs")


@dataclass(slots=True, eq=False)
class TakenOver:
    """What was reserved in one store.

    Attributes:
        store: Where it is counted.
        claims: Where the claim is made: the same store, or the whole of which that is a share.
        leases: Those of this process in that store.
        subject: The token's own, in that store.
        until_us: When the token is too old, by that store's clock.
        taken: What each reservation took.
        passed: See :class:`.reservation.Endable`.
    """

    store: Store
    claims: Store
    leases: Leases
    subject: bytes
    until_us: int
    taken: Sequence[Taken]
    passed: Sequence[Verdict] = ()
    _open: list[bool] = field(default_factory=list)

    def begin(self) -> None:
        """Hold its slots from now on, unless another process has ended it.

        Raises:
            HandOverError: It is too old.
            StoreError: The store can't answer.
        """
        seen = self.claims.peek([self._claim])
        if seen.at_us >= self.until_us:
            raise HandOverError("This token is more than a day old. What was reserved under it stays charged.")
        if seen.allowed:
            self._open.append(True)  # Whoever takes the one thing out of it ends it.
            for taken, slots in self._slots():
                hold(self.store, taken.lease, slots)
                self.leases.add(taken.lease, list(slots))

    def end(self, actual_of: ActualOf) -> bool:
        """End it, if nobody else has; answer whether this call did."""
        try:
            self._open.pop()
        except IndexError:
            return False
        try:
            ended = self._end(actual_of)
        except BaseException:
            self._open.append(True)
            raise
        self.let_go()
        return ended

    def let_go(self) -> None:
        """Renew its leases no more: another one may take it over, or they end."""
        for taken in self.taken:
            self.leases.remove(taken.lease)

    def renew(self) -> None:
        """Renew its leases now."""
        leases = [(slot, taken.lease) for taken, slots in self._slots() for slot in slots]
        if leases and self._open:
            self.store.renew(leases)

    def _end(self, actual_of: ActualOf) -> bool:
        number = secrets.randbits(LEASE_BITS)
        claimed = self.claims.reserve([self._claim], number)
        is_ours = claimed.allowed and claimed.at_us < self.until_us
        if is_ours:
            settlements = [each for taken in self.taken for each in ending(taken, actual_of)]
        else:
            _log.warning("Work that was handed over has been ended before, or is more than a day old.")
            settlements = [Settlement(s.costing(0), 0, 0, taken.lease) for taken, slots in self._slots() for s in slots]
        try:
            if settlements:
                self.passed = self.store.settle(settlements).passed
        except StoreError:
            if is_ours:
                with suppress(StoreError):
                    self.claims.settle([Settlement(self._claim, claimed.at_us, 0, number)])
            raise
        return is_ours

    @property
    def _claim(self) -> Charge:
        return Charge(self.subject, _CLAIM)

    def _slots(self) -> Iterable[tuple[Taken, list[Charge]]]:
        for taken in self.taken:
            slots = slots_of(charge for charge, _ in taken.charges)
            if slots:
                yield taken, slots


class HandedOver(Endable):
    """Work that another process reserved for. Its leases are renewed from when it was taken over until it is ended.

    It is ended exactly once over all processes that have its token: the endings of all but the first answer False. A
    process that dies between its claim and the settlement leaves what was reserved charged, and slots held until their
    leases end. A ``StoreError`` leaves it open: try again.

    Attributes:
        note: What the giver said.
    """

    __slots__ = ("__weakref__", "_parts", "note", "passed")

    def __init__(self, note: Note, parts: Sequence[TakenOver]) -> None:
        self.note = note
        self.passed: Sequence[Verdict] = ()
        self._parts = parts

    def end(self, actual_of: ActualOf) -> bool:
        """End it, asking for each charge what it really cost. Answers whether this call ended it.

        Raises:
            StoreError: The store can't answer; it stays open.
        """
        ended = [part.end(actual_of) for part in self._parts]
        self.passed = tuple(verdict for part in self._parts for verdict in part.passed)
        return any(ended)

    def renew(self) -> None:
        """Renew the leases now. A thread does it anyway: this is for work that lets no thread run for long.

        Raises:
            StoreError: The store can't answer.
        """
        for part in self._parts:
            part.renew()
