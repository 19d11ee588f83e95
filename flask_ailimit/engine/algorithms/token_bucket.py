"""Token bucket: ``burst`` at once, ``limit`` per period for ever after.

Kept as debt that leaks (the leaky bucket as a meter; ITU-T I.371's GCRA says the same by times). One unit of cost
makes ``quota.cost_scale`` of debt and one tick forgives ``quota.leak``, both integers, so nothing is ever rounded.

State: ``(debt, at, t1, low1, t2, low2, ...)``. ``at`` is the tick the debt was counted at. Each pair is a trough: just
before tick t something was charged on top of a debt of ``low``, and the debt has not been lower since.

Troughs make refunds exact. A refund undoes part of a charge made earlier, and what has leaked meanwhile is gone: time
has paid for it. The debt without that part would differ from today's by the part itself, or by the lowest debt since
then if that is less. So a refund never gives more than that, and a bucket whose reservations are settled stands where
it would stand had each been charged its actual cost in the first place. At most four troughs are kept; merging two
makes refunds smaller, never larger.
"""

from itertools import pairwise

from flask_ailimit.engine.quota import MAX_EXACT, Quota

from .base import Algorithm, State, Step, new

_MAX_TROUGHS = 4
_LIFETIME_US = 2**52  # 142 years; today's date and this together stay below 2**53 microseconds until 2112.


def admit(state: State, now_us: int, quota: Quota, cost: int, lease: int) -> Step:  # noqa: ARG001  one shape for all
    """Take ``cost`` if the debt stays within the burst. Source: module docstring."""
    now = now_us // quota.tick_us
    debt, troughs = _leaked(state, now, quota)
    added = cost * quota.cost_scale
    # In this order, and with this bound, no step leaves the integers that Lua counts exactly.
    lack = added - (quota.burst * quota.cost_scale - debt)
    if lack > 0:
        wait = None if cost > quota.burst else _free_at(min(lack, MAX_EXACT), now, quota) - now_us
        return _answer(False, state, debt, now_us, quota, wait)
    if cost:
        state = (debt + added, now, *_with_trough(troughs, now, debt))
    return _answer(True, state, debt + added, now_us, quota, 0)


def settle(  # noqa: D103  see Algorithm
    state: State,
    now_us: int,
    quota: Quota,
    taken_at_us: int,
    cost: int,
    actual: int,
    lease: int,  # noqa: ARG001  one shape for all
) -> State:
    now = now_us // quota.tick_us
    debt, troughs = _leaked(state, now, quota)
    change = (actual - cost) * quota.cost_scale
    if change >= 0:
        owed = min(debt + change, quota.most_debt)
        return _packed(owed, now, _with_trough(troughs, now, debt) if change else troughs)
    taken_at = taken_at_us // quota.tick_us
    if taken_at > now:
        return _packed(debt, now, troughs)
    later = 0
    while later < len(troughs) and troughs[later] <= taken_at:
        later += 2
    # Troughs rise, so the first of the later ones is the lowest.
    refund = min(-change, troughs[later + 1] if later < len(troughs) else debt, debt)
    kept = troughs[:later]
    for i in range(later, len(troughs), 2):
        kept = _with_trough(kept, troughs[i], troughs[i + 1] - refund)
    return _packed(debt - refund, now, kept)


def expires(state: State, quota: Quota) -> int:  # noqa: D103  see Algorithm
    return _free_at(min(state[0], quota.most_debt), state[1], quota)


def _leaked(state: State, now: int, quota: Quota) -> tuple[int, State]:
    """The debt and its troughs ``(t1, low1, ...)`` at tick ``now``."""
    if not state:
        return 0, ()
    debt, at = state[:2]
    if debt > quota.most_debt:  # noqa: PLR1730  min() would take three times as long
        debt = quota.most_debt
    if now < at:
        # The clock went back. Nothing leaks for this step, and older reservations get no refund.
        return debt, (now, 0)
    leaked = (now - at) * quota.leak
    return debt - leaked if debt > leaked else 0, state[2:]


def _with_trough(troughs: State, now: int, debt: int) -> State:
    """These troughs and one more, without those that it is at least as low as; of one tick, only the lowest."""
    end = len(troughs)
    while end and troughs[end - 1] >= debt:
        end -= 2
    if end and troughs[end - 2] == now:
        return troughs[:end]
    troughs = (*troughs[:end], now, debt)
    return troughs if end < 2 * _MAX_TROUGHS else _merged(troughs)


def _merged(troughs: State) -> State:
    """One trough less: the two that are the least apart become one, at the time of the later, as low as the lower."""
    lows = troughs[1::2]
    gaps = [later - earlier for earlier, later in pairwise(lows)]
    i = 2 * gaps.index(min(gaps))
    return (*troughs[:i], troughs[i + 2], troughs[i + 1], *troughs[i + 4 :])


def _packed(debt: int, now: int, troughs: State) -> State:
    return (debt, now, *troughs) if debt else ()


def _answer(fits: bool, state: State, debt: int, now_us: int, quota: Quota, wait: int | None) -> Step:
    left = quota.burst - -(-debt // quota.cost_scale)
    reset_us = _free_at(debt, now_us // quota.tick_us, quota) - now_us if debt else 0
    return new(Step, (fits, state, max(left, 0), reset_us, wait))


def _free_at(debt: int, at: int, quota: Quota) -> int:
    """The microsecond at which what is owed at tick ``at`` has leaked; of more than a lifetime, only that it is."""
    return (at + min(-(-debt // quota.leak), _LIFETIME_US // quota.tick_us)) * quota.tick_us


TOKEN_BUCKET = Algorithm(admit, settle, expires)
