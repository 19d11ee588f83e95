"""How a request to the scripts and its answer look: packed numbers, little-endian, as Lua's ``struct`` reads them.

A request is a head (time or 0 for the server's own, the reservation's number, how many subjects, how many items) and
the items, each a charge and what the script in question wants besides. ``lua/request.lua`` reads it.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from struct import Struct

from flask_ailimit.engine.charge import Charge, Settlement, bucket_name
from flask_ailimit.engine.decision import Decision, Verdict
from flask_ailimit.engine.quota import Quota

from .scripts import NUMBERS

_HEAD = Struct("<qqHH")
_ASKED = Struct("<HBq")
_COUNTED = Struct("<8sBqqqqqq")
_SETTLED = Struct("<qqq")
_LEASE = Struct("<q")


def pack_charges(charges: Sequence[Charge], now_us: int, lease: int, *, dry: bool) -> bytes:
    """What reserve asks; with ``dry``, what peek asks."""
    places = _places(charges)
    items = [_charge(charge, places, dry=dry or charge.dry) for charge in charges]
    return _HEAD.pack(now_us, lease, len(places) or 1, len(items)) + b"".join(items)


def pack_settlements(settlements: Sequence[Settlement], now_us: int) -> bytes:
    """What settle asks."""
    places = _places([each.charge for each in settlements])
    items = [
        _charge(each.charge, places) + _SETTLED.pack(each.taken_at_us, each.actual, each.lease) for each in settlements
    ]
    return _HEAD.pack(now_us, 0, len(places), len(items)) + b"".join(items)


def pack_renewals(leases: Sequence[tuple[Charge, int]], now_us: int) -> bytes:
    """What renew asks."""
    places = _places([charge for charge, _ in leases])
    items = [_charge(charge, places) + _LEASE.pack(lease) for charge, lease in leases]
    return _HEAD.pack(now_us, 0, len(places), len(items)) + b"".join(items)


def pack_bucket(bucket: bytes, now_us: int) -> bytes:
    """What forget asks."""
    return _HEAD.pack(now_us, 0, 1, 0) + bucket


def unpack_decision(answer: bytes, charges: Iterable[Charge]) -> Decision:
    """What reserve and peek answer: the time, then for each charge allowed, remaining, reset and retry (-1: never)."""
    charges = tuple(charges)
    now_us, *numbers = _answer(len(charges)).unpack(answer)
    verdicts = [
        Verdict(charge, allowed == 1, remaining, reset_us, None if retry_us < 0 else retry_us)
        for charge, allowed, remaining, reset_us, retry_us in zip(
            charges, numbers[::4], numbers[1::4], numbers[2::4], numbers[3::4], strict=True
        )
    ]
    return Decision(tuple(verdicts), now_us)


def subjects_of(charges: Iterable[Charge]) -> list[bytes]:
    """Each subject once, in the order asked."""
    return list(dict.fromkeys(charge.subject for charge in charges))


def _places(charges: Iterable[Charge]) -> dict[bytes, int]:
    """The place of each subject's key, counted from 1 as Lua does."""
    return {subject: place for place, subject in enumerate(subjects_of(charges), start=1)}


def _charge(charge: Charge, places: Mapping[bytes, int], *, dry: bool = False) -> bytes:
    return _ASKED.pack(places[charge.subject], dry, charge.cost) + _counted(charge.quota, charge.scope)


@lru_cache(maxsize=4096)
def _counted(quota: Quota, scope: str) -> bytes:
    return _COUNTED.pack(
        bucket_name(quota, scope),
        NUMBERS[quota.algorithm],
        quota.limit,
        quota.burst,
        quota.period,
        quota.tick_us,
        quota.cost_scale,
        quota.leak,
    )


@lru_cache(maxsize=64)
def _answer(count: int) -> Struct:
    return Struct("<q" + "Bqqq" * count)
