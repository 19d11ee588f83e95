"""The bytes of a record: what one subject's counts look like in a file.

A version byte, then for each bucket its name (8 bytes), the second it expires (u32, so 2106 at the latest), how many
numbers its state has (u16), and the numbers (i64 each), all little-endian. Three limits take about 130 bytes.
"""

import struct

from flask_ailimit.engine.clock import MICROSECONDS
from flask_ailimit.engine.decide import Bucket, Record

_VERSION = b"\x01"
_HEAD = struct.Struct("<8sIH")
_NUMBER_BYTES = 8
_LATEST_SECOND = 2**32 - 1


def encode(record: Record) -> bytes:
    """The record as bytes. Expiry is rounded up to a second."""
    parts = [_VERSION]
    for name, (state, expires_us) in record.items():
        second = min(-(-expires_us // MICROSECONDS), _LATEST_SECOND)
        parts.append(_HEAD.pack(name, second, len(state)))
        parts.append(struct.pack(f"<{len(state)}q", *state))
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
            name, expires, count = _HEAD.unpack_from(raw, at)
            at += _HEAD.size
            record[name] = Bucket(struct.unpack_from(f"<{count}q", raw, at), expires * MICROSECONDS)
            at += count * _NUMBER_BYTES
    except struct.error as error:
        raise ValueError("record: cut short") from error
    return record
