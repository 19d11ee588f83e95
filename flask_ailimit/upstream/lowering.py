"""How much of a limit is used, by what an answer tells of the upstream's own count. Pure arithmetic.

Somebody else may use the account, so its count may be above ours. Ours is then raised to what makes the next call wait
as long as it should: until enough is left in a bucket, or by its part of what is left of a window.
"""

from math import ceil

from flask_ailimit.engine import Quota
from flask_ailimit.engine.quota import REQUESTS

from .told import Told

_HEADROOM = 10
"""A tenth of a bucket is left to who else uses the account, once so little is left."""

_UNLIKE_A_BUCKET = 20
"""A twentieth of the limit: so far may what is used be from what comes back until the reset, for it to be a bucket."""

_OTHERS_CALLS = 2
"""Calls of others that may come before ours."""

_MOVING = 0.9
"""The part of the period from which on a reset may be that of a window that moves along."""


def used_beyond(quota: Quota, cost: int, counted: int, told: Told, most_left: int) -> int | None:
    """Units of ``quota`` to count as used, so that the next call like this waits as it should; None for no more.

    Args:
        quota: Whose unit the answer has told of.
        cost: What this call has reserved.
        counted: What we had counted when the call was allowed, with what it reserves.
        told: What the answer tells.
        most_left: The most that any answer has told to be left. An upstream that never has more than one left must not
            be taken for one that is nearly empty.
    """
    left = told.remaining[quota.unit]
    limit, reset = told.limits.get(quota.unit), told.full_in.get(quota.unit)
    if limit is not None and reset is not None and _is_window(quota, limit - left, reset):
        if quota.unit == REQUESTS and left and left + 1 >= reset * quota.limit / quota.period:
            return None  # As much is left as our own pace leaves.
        # Calls of others may be on their way there.
        room = left - (_OTHERS_CALLS if quota.unit == REQUESTS else cost)
        wait = reset if room < cost else min(reset, cost * reset / room)
        used, unclear = quota.burst - cost + round(wait * quota.limit / quota.period), 0
    else:
        headroom = min(max(1, quota.limit // _HEADROOM), most_left // 2)
        used = quota.burst + headroom - left
        # It counts what calls in flight have reserved, as we do, but they may come there in another order.
        unclear = 0 if quota.unit == REQUESTS else max(headroom // 2, cost)
    return used if used - counted > unclear else None


def most_used(quota: Quota, cost: int, seconds: float) -> int:
    """Units after which the next call like this waits for at most so many seconds."""
    return quota.burst - cost + int(seconds * quota.limit / quota.period)


def _is_window(quota: Quota, used: int, reset: float) -> bool:
    """Whether all of it comes back at the reset. Of a bucket, what is used comes back until then, little by little."""
    if reset > _MOVING * quota.period:
        return False
    comes_back = ceil(reset * quota.limit / quota.period)
    return abs(comes_back - used) > max(2, quota.limit // _UNLIKE_A_BUCKET)
