"""The bytes of a record: what one subject's counts look like in a file.

A version byte, then for each bucket its name (8 bytes), the second it expires (u32, so 2106 at the latest), how many
numbers its state has (u16), and the numbers (i64 each), all little-endian. Three limits take about 130 bytes.
"""

import struct
from functools import lru_cache

from flask_ailimit.engine.algorithms.base import new
from flask_ailimit.engine.clock import MICROSECONDS
from flask_ailimit.engine.decide import Bucket, Record

_VERSION = b"\x01"
_HEAD = struct.Struct("<8sIH")
_COUNT = struct.Struct("<H")
_COUNT_AT = _HEAD.size - _COUNT.size
_NUMBER_BYTES = 8
_LATEST_SECOND = 2**32 - 1


def encode(record: Record) -> bytes:
    """The record as bytes. Expiry is rounded up to a second."""
    parts = [_VERSION]
    for name, (state, expires_us) in record.items():
        second = min(-(-expires_us // MICROSECONDS), _LATEST_SECOND)
        parts.append(_counted(len(state)).pack(name, second, len(state), *state))
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
    at = 1
    try:
        while at < len(raw):
            counted = _counted(_COUNT.unpack_from(raw, at + _COUNT_AT)[0])
            name, expires, _, *state = counted.unpack_from(raw, at)
            record[name] = new(Bucket, (tuple(state), expires * MICROSECONDS))
            at += counted.size
    except struct.error as error:
        raise ValueError("record: cut short") from error
    return record


@lru_cache(maxsize=64)
def _counted(count: int) -> struct.Struct:
    """One bucket whose state has ``count`` numbers."""
    return struct.Struct(f"<8sIH{count}q")
