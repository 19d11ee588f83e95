"""Token bucket: ``burst`` at once, ``limit`` per period for ever after.

Kept as debt that leaks (the leaky bucket as a meter; ITU-T I.371's GCRA says the same by times). One unit of cost
makes ``quota.cost_scale`` of debt and one tick forgives ``quota.leak``, both integers, so nothing is ever rounded.

State: ``(debt, at, limit, burst, aside, t1, low1, t2, low2, ...)``. ``at`` is the microsecond, at the beginning of a
tick, that the debt was counted at. The scale of the debt is that of ``limit`` and ``burst``. Each pair is a trough:
just before the tick at microsecond t something was charged on top of a debt of ``low``, and the debt has not been lower
since.

Troughs make refunds exact. A refund undoes part of a charge made earlier, and what has leaked meanwhile is gone: time
has paid for it. The debt without that part would differ from today's by the part itself, or by the lowest debt since
then if that is less. So a refund never gives more than that, and a bucket whose reservations are settled stands where
it would stand had each been charged its actual cost in the first place. At most four troughs are kept; merging two
makes refunds smaller, never larger.

When limit or burst change, the next decision brings the debt to the present at the slower of the two rates and to the
new scale: only then something is rounded, by much less than a unit. What was granted beyond the new burst is no debt,
or a lowered limit would lock its customer out. It is set aside, in 1/1024 of a unit, and is debt again when the burst
is raised, unless the debt was paid meanwhile. A settlement leaves the count under the limit that was last decided by.
"""

from itertools import pairwise
from math import ceil, floor

from flask_ailimit.engine.quota import MAX_EXACT, Quota, Rate, rate_of

from .base import Algorithm, State, Step, new

_MAX_TROUGHS = 4
_LIFETIME_US = 2**52  # 142 years; today's date and this together stay below 2**53 microseconds until 2112.
_FIRST_TROUGH = 5
_PARTS = 1024
_NOTHING = 4  # So little debt may be what the rounding of a fraction left.


def admit(state: State, now_us: int, quota: Quota, cost: int, lease: int) -> Step:  # noqa: ARG001  one shape for all
    """Take ``cost`` if the debt stays within the burst. Source: module docstring."""
    count = state
    if state and (state[2] != quota.limit or state[3] != quota.burst):
        count = _under(state, now_us, quota)
    now = now_us - now_us % quota.tick_us
    debt, troughs = _leaked(count, now, quota)
    added = cost * quota.cost_scale
    # In this order, and with this bound, no step leaves the integers that Lua counts exactly.
    lack = added - (quota.burst * quota.cost_scale - debt)
    if lack > 0:
        wait = None if cost > quota.burst else _free_at(min(lack, MAX_EXACT), now, quota) - now_us
        return _answer(False, count or state, debt, now, now_us, quota, wait)
    if cost:
        aside = count[4] if debt else 0
        count = (debt + added, now, quota.limit, quota.burst, aside, *_with_trough(troughs, now, debt))
    return _answer(True, count or state, debt + added, now, now_us, quota, 0)


def settle(
    state: State,
    now_us: int,
    quota: Quota,
    taken_at_us: int,
    cost: int,
    actual: int,
    lease: int,  # noqa: ARG001  one shape for all
    *,
    is_told: bool = False,
) -> State:
    """Correct the count under the limit that it stands under, which may be newer than the charge's.

    With ``is_told`` at least ``actual`` units are used now: see ``provider_bucket.py``.
    """
    is_own = not state or (state[2] == quota.limit and state[3] == quota.burst)
    rate = quota if is_own else rate_of(state[2], state[3], quota.period)
    now = now_us - now_us % rate.tick_us
    debt, troughs = _leaked(state, now, rate)
    head = state[2:_FIRST_TROUGH] if debt else (*(state[2:4] or (quota.limit, quota.burst)), 0)
    change = (actual - cost) * rate.cost_scale
    if is_told:
        change = max(0, min(actual * rate.cost_scale, rate.most_debt) - debt)
    if change >= 0:
        # The next decision bounds what is owed under another limit.
        owed = min(debt + change, rate.most_debt)
        return _packed(owed, now, head, _with_trough(troughs, now, debt) if change else troughs)
    if taken_at_us - taken_at_us % rate.tick_us > now:
        return _packed(debt, now, head, troughs)
    undone = -change
    if head[2] and not is_own:
        back = min((cost - actual) * _PARTS, head[2])
        head = (*head[:2], head[2] - back)
        undone = floor((cost - actual - back / _PARTS) * rate.cost_scale)
    later = 0
    while later < len(troughs) and troughs[later] <= taken_at_us:
        later += 2
    # Troughs rise, so the first of the later ones is the lowest.
    refund = min(undone, troughs[later + 1] if later < len(troughs) else debt, debt)
    kept = troughs[:later]
    for i in range(later, len(troughs), 2):
        kept = _with_trough(kept, troughs[i], troughs[i + 1] - refund)
    return _packed(debt - refund, now, head, kept)


def expires(state: State, quota: Quota) -> int:  # noqa: D103  see Algorithm
    debt, at, limit, burst = state[:4]
    rate = quota if limit == quota.limit and burst == quota.burst else rate_of(limit, burst, quota.period)
    return _free_at(min(debt, rate.most_debt), at, rate)


def _under(state: State, now_us: int, quota: Quota) -> State:
    """The count under another limit or burst than before, now. Empty if nothing is left of it."""
    debt, at, limit, burst, aside = state[:_FIRST_TROUGH]
    troughs = state[_FIRST_TROUGH:]
    before, scale = rate_of(limit, burst, quota.period), quota.cost_scale
    now = now_us - now_us % quota.tick_us
    speed = quota.leak / quota.tick_us / scale
    units = debt / before.cost_scale
    if now_us < at:
        troughs = (now, 0)  # The clock went back, see below.
    elif now < at:
        units += (at - now) * speed  # From the beginning of this tick on it leaks to what it is.
    else:
        units -= (now - at) * min(speed, before.leak / before.tick_us / before.cost_scale)
        if units * scale < _NOTHING:
            return ()
    owed = max(0.0, units - burst)
    granted = units - owed + aside / _PARTS
    aside = min(max(0, ceil((granted - quota.burst) * _PARTS)), MAX_EXACT)
    debt = min(floor((granted - aside / _PARTS + owed) * scale + 0.5), quota.most_debt)
    if debt <= 0:
        return ()
    kept: State = ()
    for i in range(0, len(troughs), 2):
        low = min(floor(troughs[i + 1] / before.cost_scale * scale), MAX_EXACT)
        kept = _with_trough(kept, troughs[i], low)
    return (debt, now, quota.limit, quota.burst, aside, *kept)


def _leaked(state: State, now: int, rate: Quota | Rate) -> tuple[int, State]:
    """The debt and its troughs ``(t1, low1, ...)`` in the tick that begins at microsecond ``now``."""
    if not state:
        return 0, ()
    debt, at = state[:2]
    if debt > rate.most_debt:  # noqa: PLR1730  min() would take three times as long
        debt = rate.most_debt
    if now < at:
        # The clock went back. Nothing leaks for this step, and older reservations get no refund.
        return debt, (now, 0)
    leaked = (now - at) // rate.tick_us * rate.leak
    return debt - leaked if debt > leaked else 0, state[_FIRST_TROUGH:]


def _with_trough(troughs: State, now: int, debt: int) -> State:
    """These troughs and one more, without those that it is at least as low as; of one tick, only the lowest."""
    end = len(troughs)
    while end and troughs[end - 1] >= debt:
        end -= 2
    if end and troughs[end - 2] >= now:  # Later than this tick's beginning: from when ticks were finer.
        return troughs[:end]
    troughs = (*troughs[:end], now, debt)
    return troughs if end < 2 * _MAX_TROUGHS else _merged(troughs)


def _merged(troughs: State) -> State:
    """One trough less: the two that are the least apart become one, at the time of the later, as low as the lower."""
    lows = troughs[1::2]
    gaps = [later - earlier for earlier, later in pairwise(lows)]
    i = 2 * gaps.index(min(gaps))
    return (*troughs[:i], troughs[i + 2], troughs[i + 1], *troughs[i + 4 :])


def _packed(debt: int, now: int, head: State, troughs: State) -> State:
    return (debt, now, *head, *troughs) if debt else ()


def _answer(fits: bool, state: State, debt: int, now: int, now_us: int, quota: Quota, wait: int | None) -> Step:
    left = quota.burst - -(-debt // quota.cost_scale)
    reset_us = _free_at(debt, now, quota) - now_us if debt else 0
    return new(Step, (fits, state, max(left, 0), reset_us, wait))


def _free_at(debt: int, at: int, rate: Quota | Rate) -> int:
    """When what is owed at microsecond ``at`` has leaked, in microseconds; of more than a lifetime, only that it is."""
    return at + min(-(-debt // rate.leak), _LIFETIME_US // rate.tick_us) * rate.tick_us


TOKEN_BUCKET = Algorithm(admit, settle, expires)
