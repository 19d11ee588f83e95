"""The bytes of a record: what one subject's counts look like in a file.

A version byte, then for each bucket its name (8 bytes), the second it expires (u32, so 2106 at the latest), how many
numbers its state has (u16), and the numbers (i64 each), all little-endian. Three limits take about 150 bytes.

A count whose numbers nobody asks for is copied as it lies: of a long record, a decision looks at the heads only.
"""

import struct
from functools import lru_cache
from typing import NamedTuple

from flask_ailimit.engine.algorithms.base import State, new
from flask_ailimit.engine.clock import MICROSECONDS
from flask_ailimit.engine.decide import Record
from flask_ailimit.engine.quota import LATEST_SECOND

_VERSION = b"\x01"
_HEAD = struct.Struct("<8sIH")
_HEAD_BYTES = _HEAD.size
_NUMBER_BYTES = 8


class Packed(NamedTuple):
    """A count as it lies in a record: a :class:`flask_ailimit.engine.decide.Counted`."""

    raw: bytes
    expires_us: int

    @property
    def state(self) -> State:
        """Its numbers."""
        return _numbers((len(self.raw) - _HEAD_BYTES) // _NUMBER_BYTES).unpack_from(self.raw, _HEAD_BYTES)


def encode(record: Record) -> bytes:
    """The record as bytes. Expiry is rounded up to a second."""
    parts = [_VERSION]
    for name, count in record.items():
        if type(count) is Packed:
            parts.append(count.raw)
        else:
            state, second = count.state, min(-(-count.expires_us // MICROSECONDS), LATEST_SECOND)
            parts.append(_HEAD.pack(name, second, len(state)) + _numbers(len(state)).pack(*state))
    return b"".join(parts)


def is_expired(raw: bytes, now_us: int) -> bool:
    """Whether none of the counts matters any more; so too if the bytes can't be read."""
    if raw[:1] != _VERSION:
        return True
    at = 1
    while at + _HEAD.size <= len(raw):
        _, expires, count = _HEAD.unpack_from(raw, at)
        if expires * MICROSECONDS > now_us:
            return False
        at += _HEAD.size + count * _NUMBER_BYTES
    return True


def decode(raw: bytes) -> Record:
    """Read what :func:`encode` wrote.

    Raises:
        ValueError: The bytes are of another version or cut short.
    """
    if raw[:1] != _VERSION:
        raise ValueError("record: unknown version")
    record: Record = {}
    at, end = 1, len(raw)
    head_at = _HEAD.unpack_from
    try:
        while at < end:
            name, second, count = head_at(raw, at)
            begin, at = at, at + _HEAD_BYTES + count * _NUMBER_BYTES
            record[name] = new(Packed, (raw[begin:at], second * MICROSECONDS))
    except struct.error as error:
        raise ValueError("record: cut short") from error
    if at != end:
        raise ValueError("record: cut short")
    return record


@lru_cache(maxsize=64)
def _numbers(count: int) -> struct.Struct:
    """So many numbers of a state."""
    return struct.Struct(f"<{count}q")
