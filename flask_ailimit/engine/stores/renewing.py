"""Leases to renew: those of one count together, and some counts at a time, between which others are let in.

A count with ten thousand leases is read and written once, and not once for each of them.
"""

from collections.abc import Iterable, Iterator

from flask_ailimit.engine.charge import Charge

Held = tuple[Charge, set[int]]
"""A count, by a charge to it, and the leases to renew there."""

_MOST_LEASES = 1000


def by_count(leases: Iterable[tuple[Charge, int]]) -> list[Held]:
    """The leases of each count together."""
    held: dict[tuple[bytes, bytes], Held] = {}
    for charge, lease in leases:
        key = charge.counted_in
        if key in held:
            held[key][1].add(lease)
        else:
            held[key] = charge, {lease}
    return list(held.values())


def in_pieces(held: Iterable[Held], most_counts: int) -> Iterator[list[Held]]:
    """So many counts at a time at most, and no more with some thousand leases. A count is never divided."""
    piece: list[Held] = []
    leases = 0
    for each in held:
        if piece and (len(piece) >= most_counts or leases + len(each[1]) > _MOST_LEASES):
            yield piece
            piece, leases = [], 0
        piece.append(each)
        leases += len(each[1])
    if piece:
        yield piece
