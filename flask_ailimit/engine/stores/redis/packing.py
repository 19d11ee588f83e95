"""How a request to the scripts and its answer look: packed numbers, little-endian, as Lua's ``struct`` reads them.

A request is a head (time or 0 for the server's own, the reservation's number, how many subjects, how many items) and
the items, each a charge (with the boundaries of its windows, the grants of credit and the names of other counts in
which that may have been used, if it has such) and what the script in question wants besides. ``lua/request.lua`` reads
it.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from flask_ailimit.engine.algorithms import Spending
from flask_ailimit.engine.charge import Charge, Settlement
from flask_ailimit.engine.decision import Decision, Settled, Verdict
from flask_ailimit.engine.quota import BUDGET, Quota
from flask_ailimit.engine.stores.renewing import Held

from .scripts import NUMBERS

_COUNTED = Struct("<8sBqqqqqqq")
_BOUNDARIES = Struct("<qqqqHH")
_GRANT = Struct("<qqqq")

# The formats of a head, of the parts of an item, and of an answer.
_HEAD = "qqHH"
_CHARGE = f"HBqq{_COUNTED.size}s"
_CHARGE_WITH_WINDOWS = "HBqq{}s"
_SETTLED = "qqqq"
_VERDICT = "Bqqq"
_SPENDING = "qqqqq"
_UNKNOWN = "H"
_PASSED = "Hqq"

_HEAD_ONLY = Struct("<" + _HEAD)

_DRY = 1
_SHADOW = 2
_TELLS_WINDOWS = 4

_MOST_COUNTED = 4096

Places = dict[bytes, int]
"""The place of each subject among the keys of a request."""

_counted: dict[tuple[Quota, str], bytes] = {}
"""What the scripts must know of a count, by quota and scope: a request has many that the one before had, too."""


class Times(NamedTuple):
    """When a request is made.

    Attributes:
        now_us: What the script takes for the time; 0 for the server's own.
        about_us: About what time it is there: the windows around it are told.
    """

    now_us: int
    about_us: int


def pack_charges(places: Places, charges: Sequence[Charge], times: Times, lease: int, *, dry: bool) -> bytes:
    """What reserve asks; with ``dry``, what peek asks."""
    return _packed(times, lease, places, charges, dry=dry)


def pack_settlements(
    places: Places, settlements: Sequence[Settlement], times: Times, *, is_heard: bool = True
) -> bytes:
    """What settle asks; with ``is_heard`` False, to be told of no count that passes its soft percent."""
    rests = []
    for charge, taken_at_us, actual, lease in settlements:
        soft_left = charge.quota.soft_left if is_heard and not charge.shadow else -1
        rests.append((soft_left, taken_at_us, actual, lease))
    return _packed(times, 0, places, [each.charge for each in settlements], rests, _SETTLED)


def pack_renewals(places: Places, held: Sequence[Held], now_us: int) -> bytes:
    """What renew asks: of each count, how many leases, and which."""
    parts = [_HEAD_ONLY.pack(now_us, 0, len(places) or 1, len(held))]
    for charge, leases in held:
        item = _item(places, charge, charge.dry, now_us)
        charge_layout = _CHARGE_WITH_WINDOWS.format(len(item[-1]))
        parts.append(_layout("", f"{charge_layout}I{len(leases)}q", 1).pack(*item, len(leases), *leases))
    return b"".join(parts)


def pack_bucket(bucket: bytes, now_us: int) -> bytes:
    """What forget asks."""
    return _packed(Times(now_us, now_us), 0, {}, ()) + bucket


def unpack_decision(answer: bytes, charges: Sequence[Charge]) -> Decision:
    """What reserve and peek answer: the time, then for each charge allowed, remaining, reset and retry (-1: never).

    Behind them, of each budget, the numbers of its :class:`~flask_ailimit.engine.algorithms.Spending`.
    """
    layout = _layout("q", _VERDICT, len(charges))
    now_us, *numbers = layout.unpack_from(answer)
    spendings = _spendings(answer[layout.size :]) if len(answer) > layout.size else iter(())
    verdicts = [
        Verdict(
            charge,
            allowed == 1,
            remaining,
            reset_us,
            None if retry_us < 0 else retry_us,
            None,
            next(spendings) if charge.quota.algorithm == BUDGET else None,
        )
        for charge, allowed, remaining, reset_us, retry_us in zip(
            charges, numbers[::4], numbers[1::4], numbers[2::4], numbers[3::4], strict=True
        )
    ]
    return Decision(tuple(verdicts), now_us)


def unpack_settled(answer: int | bytes, settlements: Sequence[Settlement]) -> Settled:
    """What settle answers: how many counts were unknown, a number; those behind it of which there is more to say.

    Of each: the place of its settlement, remaining and reset (-1: it stands below its soft percent).
    """
    if isinstance(answer, int):
        return Settled(answer)
    many = (len(answer) - _layout(_UNKNOWN, "", 0).size) // _layout("", _PASSED, 1).size
    unknown, *numbers = _layout(_UNKNOWN, _PASSED, many).unpack(answer)
    passed: list[Verdict] = []
    below: list[Charge] = []
    for place, remaining, reset_us in zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True):
        charge = settlements[place].charge
        if reset_us < 0:
            below.append(charge)
        else:
            passed.append(Verdict(charge, True, remaining, reset_us, 0))
    return Settled(unknown, tuple(passed), tuple(below))


def places_of(charges: Sequence[Charge]) -> Places:
    """Each subject once, in the order asked, with its place among the keys. Places begin at 1, as in Lua."""
    return {subject: i for i, subject in enumerate(dict.fromkeys([charge.subject for charge in charges]), start=1)}


def _spendings(answer: bytes) -> Iterator[Spending]:
    many = len(answer) // _layout("", _SPENDING, 1).size
    numbers = iter(_layout("", _SPENDING, many).unpack(answer))
    return map(Spending._make, zip(*[numbers] * len(Spending._fields), strict=True))


def _packed(
    times: Times,
    lease: int,
    places: Places,
    charges: Sequence[Charge],
    rests: Sequence[tuple[int, ...]] = (),
    rest: str = "",
    *,
    dry: bool = False,
) -> bytes:
    """A head and the items: each charge and its rest, numbers of the format ``rest``."""
    fields: list[int | bytes] = [times.now_us, lease, len(places) or 1, len(charges)]
    tell_windows = False
    for i, charge in enumerate(charges):
        item = _item(places, charge, dry or charge.dry, times.about_us)
        tell_windows = tell_windows or item[1] >= _TELLS_WINDOWS
        fields += item
        if rest:
            fields += rests[i]
    if not tell_windows:
        return _layout(_HEAD, _CHARGE + rest, len(charges)).pack(*fields)
    sizes = tuple(len(field) for field in fields if isinstance(field, bytes))
    return _layout_with_windows(sizes, rest).pack(*fields)


def _item(places: Places, charge: Charge, dry: bool, about_us: int) -> tuple[int, int, int, int, bytes]:
    quota = charge.quota
    counted = _counted.get((quota, charge.scope)) or _count(charge)
    flags = (_DRY if dry else 0) | (_SHADOW if charge.shadow else 0)
    if quota.has_windows:
        flags |= _TELLS_WINDOWS
        grants = b"".join([_GRANT.pack(*grant) for grant in quota.credit])
        others = quota.credited_in(charge.scope) if grants else ()
        counted += _BOUNDARIES.pack(*quota.ends_around(about_us), len(quota.credit), len(others))
        counted += grants + b"".join(others)
    return places[charge.subject], flags, charge.cost, charge.floor, counted


def _count(charge: Charge) -> bytes:
    quota = charge.quota
    counted = _COUNTED.pack(
        charge.bucket,
        NUMBERS[quota.algorithm],
        quota.limit,
        quota.burst,
        quota.ceiling,
        quota.period,
        quota.tick_us,
        quota.cost_scale,
        quota.leak,
    )
    if len(_counted) >= _MOST_COUNTED:
        _counted.clear()
    _counted[quota, charge.scope] = counted
    return counted


@lru_cache(maxsize=1024)
def _layout_with_windows(sizes: tuple[int, ...], rest: str) -> Struct:
    """A head and items of which some tell their windows: the sizes are those of what tells of their counts."""
    return Struct("<" + _HEAD + "".join([_CHARGE_WITH_WINDOWS.format(size) + rest for size in sizes]))


@lru_cache(maxsize=1024)
def _layout(head: str, item: str, count: int) -> Struct:
    return Struct("<" + head + item * count)
