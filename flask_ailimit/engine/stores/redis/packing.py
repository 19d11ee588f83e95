"""How a request to the scripts and its answer look: packed numbers, little-endian, as Lua's ``struct`` reads them.

A request is a head (time or 0 for the server's own, the reservation's number, how many subjects, how many items) and
the items, each a charge and what the script in question wants besides. ``lua/request.lua`` reads it.
"""

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct

from flask_ailimit.engine.charge import Charge, Settlement
from flask_ailimit.engine.decision import Decision, Verdict

from .scripts import NUMBERS

_COUNTED = Struct("<8sBqqqqqq")

# The formats of a head, of the parts of an item, and of an answer.
_HEAD = "qqHH"
_CHARGE = f"HBq{_COUNTED.size}s"
_SETTLED = "qqq"
_LEASE = "q"
_VERDICT = "Bqqq"

_MOST_COUNTED = 4096

_counted: dict[bytes, bytes] = {}
"""What the scripts must know of a count, by its bucket: a request has many that the one before had, too."""


def pack_charges(charges: Sequence[Charge], now_us: int, lease: int, *, dry: bool) -> bytes:
    """What reserve asks; with ``dry``, what peek asks."""
    return _packed((now_us, lease), charges, dry=dry)


def pack_settlements(settlements: Sequence[Settlement], now_us: int) -> bytes:
    """What settle asks."""
    rests = [(each.taken_at_us, each.actual, each.lease) for each in settlements]
    return _packed((now_us, 0), [each.charge for each in settlements], rests, _SETTLED)


def pack_renewals(leases: Sequence[tuple[Charge, int]], now_us: int) -> bytes:
    """What renew asks."""
    return _packed((now_us, 0), [charge for charge, _ in leases], [(lease,) for _, lease in leases], _LEASE)


def pack_bucket(bucket: bytes, now_us: int) -> bytes:
    """What forget asks."""
    return _packed((now_us, 0), ()) + bucket


def unpack_decision(answer: bytes, charges: Sequence[Charge]) -> Decision:
    """What reserve and peek answer: the time, then for each charge allowed, remaining, reset and retry (-1: never)."""
    now_us, *numbers = _layout("q", _VERDICT, len(charges)).unpack(answer)
    verdicts = [
        Verdict(charge, allowed == 1, remaining, reset_us, None if retry_us < 0 else retry_us)
        for charge, allowed, remaining, reset_us, retry_us in zip(
            charges, numbers[::4], numbers[1::4], numbers[2::4], numbers[3::4], strict=True
        )
    ]
    return Decision(tuple(verdicts), now_us)


def subjects_of(charges: Sequence[Charge]) -> list[bytes]:
    """Each subject once, in the order asked."""
    return list(dict.fromkeys([charge.subject for charge in charges]))


def _packed(
    head: tuple[int, int],
    charges: Sequence[Charge],
    rests: Sequence[tuple[int, ...]] = (),
    rest: str = "",
    *,
    dry: bool = False,
) -> bytes:
    """A head and the items: each charge and its rest, numbers of the format ``rest``."""
    places = {subject: place for place, subject in enumerate(subjects_of(charges), start=1)}  # From 1, as Lua counts.
    fields: list[int | bytes] = [*head, len(places) or 1, len(charges)]
    for i, charge in enumerate(charges):
        counted = _counted.get(charge.bucket) or _count(charge)
        fields += (places[charge.subject], dry or charge.dry, charge.cost, counted)
        if rest:
            fields += rests[i]
    return _layout(_HEAD, _CHARGE + rest, len(charges)).pack(*fields)


def _count(charge: Charge) -> bytes:
    quota = charge.quota
    counted = _COUNTED.pack(
        charge.bucket,
        NUMBERS[quota.algorithm],
        quota.limit,
        quota.burst,
        quota.period,
        quota.tick_us,
        quota.cost_scale,
        quota.leak,
    )
    if len(_counted) >= _MOST_COUNTED:
        _counted.clear()
    _counted[charge.bucket] = counted
    return counted


@lru_cache(maxsize=1024)
def _layout(head: str, item: str, count: int) -> Struct:
    return Struct("<" + head + item * count)
