"""What may be decided nearby while the store that all machines share is away: this machine's share of each limit.

The shares of all machines together are the limit, so that an outage never multiplies it. A charge that is larger than
the share can't be decided here.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from flask_ailimit.engine.charge import Charge, Settlement
from flask_ailimit.engine.decision import Decision, Settled
from flask_ailimit.engine.errors import ConfigurationError, StoreError
from flask_ailimit.engine.quota import GATE, TURNS, Quota

from .base import Store

_WHOLE = (GATE, TURNS)
"""What each machine has for itself: whether the provider answers, and who waits here for it."""


class Share(NamedTuple):
    """One part of a whole, the parts being as equal as integers can be.

    Attributes:
        rank: Which one, from 0.
        of: How many there are.
    """

    rank: int
    of: int

    def part(self, whole: int) -> int:
        """This part of ``whole``; the parts of all ranks sum up to it."""
        return whole * (self.rank + 1) // self.of - whole * self.rank // self.of


class ShareStore:
    """A store that grants its share of every limit.

    Args:
        store: Where the share is counted.
        share: Answers which share it is now.

    Attributes:
        whole: The same as ``store``: for what has no shares.
    """

    nearby: Store | None = None

    def __init__(self, store: Store, share: Callable[[], Share]) -> None:
        self.whole = store
        self._share = share

    def __repr__(self) -> str:
        return f"ShareStore({self.whole!r})"

    def reserve(self, charges: Sequence[Charge], lease: int) -> Decision:
        """See :class:`~flask_ailimit.engine.stores.base.Store`. Raises where the share is too small to decide."""
        return self._told(charges, self.whole.reserve(self._parts(charges), lease))

    def peek(self, charges: Sequence[Charge]) -> Decision:
        """See :class:`~flask_ailimit.engine.stores.base.Store`."""
        return self._told(charges, self.whole.peek(self._parts(charges)))

    def settle(self, settlements: Sequence[Settlement]) -> Settled:
        """See :class:`~flask_ailimit.engine.stores.base.Store`."""
        share = self._share()
        parts = [s._replace(charge=c) for s in settlements if (c := _known_part_of(s.charge, share))]
        unknown, passed, below = self.whole.settle(parts)
        if passed:
            charges = {s.charge.counted_in: s.charge for s in settlements}
            passed = tuple(v._replace(charge=charges[v.charge.counted_in], share=v.quota) for v in passed)
        return Settled(unknown + len(settlements) - len(parts), passed, below)

    def renew(self, leases: Sequence[tuple[Charge, int]]) -> None:
        """See :class:`~flask_ailimit.engine.stores.base.Store`."""
        share = self._share()
        self.whole.renew([(c, lease) for charge, lease in leases if (c := _known_part_of(charge, share))])

    def reset(self, subject: bytes | None = None, bucket: bytes | None = None) -> int | None:
        """See :class:`~flask_ailimit.engine.stores.base.Store`."""
        return self.whole.reset(subject, bucket)

    def watch(self, listener: Callable[[bool], None]) -> None:
        """See :class:`~flask_ailimit.engine.stores.base.Store`."""

    def secret(self) -> bytes | None:
        """See :class:`~flask_ailimit.engine.stores.base.Store`."""
        return self.whole.secret()

    def close(self) -> None:
        """See :class:`~flask_ailimit.engine.stores.base.Store`."""
        self.whole.close()

    def _parts(self, charges: Sequence[Charge]) -> list[Charge]:
        share = self._share()
        return [_part_of(charge, share) for charge in charges]

    def _told(self, charges: Sequence[Charge], decision: Decision) -> Decision:
        verdicts = [
            v._replace(charge=charge, share=v.charge.quota)
            for charge, v in zip(charges, decision.verdicts, strict=True)
        ]
        return Decision(tuple(verdicts), decision.at_us)


def _part_of(charge: Charge, share: Share) -> Charge:
    if charge.quota.algorithm in _WHOLE or (charge.cost > charge.quota.burst and not charge.quota.credit):
        return charge  # The second never fits, whoever decides.
    quota = _quota_part(charge.quota, share)
    if quota is None or charge.cost > quota.burst:
        raise StoreError(
            f"the share of this machine, one of {share.of}, of {charge.quota.text} is too small for {charge.cost}"
        )
    return charge._replace(quota=quota, floor=share.part(charge.floor))


def _known_part_of(charge: Charge, share: Share) -> Charge | None:
    """The part of a charge that was taken; None if it was taken under another share, of which nothing is left here."""
    quota = _quota_part(charge.quota, share)
    return None if quota is None else charge._replace(quota=quota)


@lru_cache(maxsize=4096)
def _quota_part(quota: Quota, share: Share) -> Quota | None:
    if quota.algorithm in _WHOLE:
        return quota
    limit, burst = share.part(quota.limit), share.part(quota.burst)
    if not burst:
        return None
    try:
        return quota.part(limit, burst)
    except ConfigurationError:
        return None  # Nothing is left of it, or a number that can't be counted exactly.
