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

from .base import Algorithm, State, Step

_MAX_TROUGHS = 4
_LIFETIME_US = 2**52  # 142 years; today's date and this together stay below 2**53 microseconds until 2112.

Troughs = list[tuple[int, int]]


def admit(state: State, now_us: int, quota: Quota, cost: int, lease: int) -> Step:  # noqa: ARG001  one shape for all
    """Take ``cost`` if the debt stays within the burst. Source: module docstring."""
    now = now_us // quota.tick_us
    debt, troughs = _leaked(state, now, quota)
    if cost > quota.burst:
        return Step(False, state, _remaining(debt, quota), _wait(debt, now_us, now, quota), None)
    added = cost * quota.cost_scale
    # In this order, and with this bound, no step leaves the integers that Lua counts exactly.
    lack = min(added - (quota.burst * quota.cost_scale - debt), MAX_EXACT)
    if cost and lack > 0:
        return Step(
            False, state, _remaining(debt, quota), _wait(debt, now_us, now, quota), _wait(lack, now_us, now, quota)
        )
    if cost:
        state = _packed(debt + added, now, _with_trough(troughs, now, debt))
    debt += added
    return Step(True, state, _remaining(debt, quota), _wait(debt, now_us, now, quota), 0)


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
        return _packed(min(debt + change, MAX_EXACT), now, _with_trough(troughs, now, debt) if change else troughs)
    taken_at = taken_at_us // quota.tick_us
    lowest = 0 if taken_at > now else min((low for t, low in troughs if t > taken_at), default=debt)
    refund = min(-change, lowest, debt)
    troughs = [(t, low - refund if t > taken_at else low) for t, low in troughs]
    return _packed(debt - refund, now, _rising(troughs))


def expires(state: State, quota: Quota) -> int:  # noqa: D103  see Algorithm
    debt, at, *_ = state
    return (at + _ticks(debt, quota)) * quota.tick_us


def _leaked(state: State, now: int, quota: Quota) -> tuple[int, Troughs]:
    """The debt and its troughs at tick ``now``."""
    if not state:
        return 0, []
    debt, at = state[0], state[1]
    if now < at:
        # The clock went back. Nothing leaks for this step, and older reservations get no refund.
        return debt, [(now, 0)]
    return max(0, debt - (now - at) * quota.leak), list(zip(state[2::2], state[3::2], strict=True))


def _with_trough(troughs: Troughs, now: int, debt: int) -> Troughs:
    kept = _rising([*troughs, (now, debt)])
    if len(kept) > _MAX_TROUGHS:
        gaps = [later[1] - earlier[1] for earlier, later in pairwise(kept)]
        i = gaps.index(min(gaps))
        kept[i : i + 2] = [(kept[i + 1][0], kept[i][1])]
    return kept


def _rising(troughs: Troughs) -> Troughs:
    """Drop each trough that a later one is at least as low as, and of those of one tick all but the lowest."""
    kept: Troughs = []
    for t, low in troughs:
        while kept and kept[-1][1] >= low:
            kept.pop()
        if not kept or kept[-1][0] != t:
            kept.append((t, low))
    return kept


def _packed(debt: int, now: int, troughs: Troughs) -> State:
    if not debt:
        return ()
    return (debt, now, *(number for trough in troughs for number in trough))


def _remaining(debt: int, quota: Quota) -> int:
    return max(0, quota.burst - -(-debt // quota.cost_scale))


def _wait(debt: int, now_us: int, now: int, quota: Quota) -> int:
    """Microseconds until ``debt`` has leaked."""
    if not debt:
        return 0
    return (now + _ticks(debt, quota)) * quota.tick_us - now_us


def _ticks(debt: int, quota: Quota) -> int:
    """Ticks until ``debt`` has leaked; of more than a lifetime, only that it is."""
    return min(-(-debt // quota.leak), _LIFETIME_US // quota.tick_us)


TOKEN_BUCKET = Algorithm(admit, settle, expires)
