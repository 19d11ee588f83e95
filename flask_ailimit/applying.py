"""From limits that were planned to this request's charges: who pays, and how much."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from flask_limiter import RequestLimit
from flask_limiter._limits import RuntimeLimit
from werkzeug.exceptions import HTTPException

from .current import current_request
from .engine import Engine, Reservation
from .engine.charge import require_cost
from .errors import AmbiguousKey
from .keys import remote_address
from .methods import counted_method
from .places import places_of
from .planning import Applied, Planned
from .tab import Tab

if TYPE_CHECKING:
    from .extension import AILimiter


def apply(limiter: "AILimiter", tab: Tab, engine: Engine, endpoint: str, limits: Iterable[Planned]) -> list[Applied]:
    """What the current request is charged by limits, at no cost yet where that is still to be asked for.

    A key function is asked once, however many of them have it.
    """
    applied = []
    subjects: dict[int, bytes] = {}
    for each in limits:
        limit = each.limit
        if limit.exempt_when is not None and limit.is_exempt:
            continue
        subject = subjects.get(id(limit.key_func))
        if subject is None:
            subject = subjects[id(limit.key_func)] = subject_of(limiter, tab, engine, limit.key_func)
        scope = limit.scope_for(endpoint, counted_method(current_request())) if each.scope is None else each.scope
        applied.append(Applied(each, each.charge(subject, scope, each.cost or 0)))
    return applied


def not_held(reservations: Iterable[Reservation], applied: Iterable[Applied]) -> list[Applied]:
    """What a later phase is still to be charged, without what the request holds already and is charged once."""
    taken = [verdict.charge for each in reservations for verdict in each.decision.verdicts]
    held = {(charge.subject, charge.bucket) for charge in taken if not charge.dry}
    return [each for each in applied if not each.planned.once or each.counted_in not in held]


def at_cost(limiter: "AILimiter", applied: Iterable[Applied], *, may_collide: bool = False) -> list[Applied]:
    """The same at what they cost, which may be asked of the request's body."""
    known = [
        each
        if each.planned.cost is not None
        else Applied(each.planned, each.charge.costing(_asked_cost(limiter, each.limit)))
        for each in applied
    ]
    return each_count_once(known) if may_collide else known


def each_count_once(applied: Iterable[Applied]) -> list[Applied]:
    """Of several limits with one count the costliest: an app factory that runs again decorates its views again."""
    counts: dict[object, Applied] = {}
    for each in applied:
        count = (each.counted_in, each.limit.deduct_when)
        if count not in counts or each.charge.cost > counts[count].charge.cost:
            counts[count] = each
    return list(counts.values())


def identity_of(limiter: "AILimiter", key_func: Callable[[], str]) -> list[str]:
    """Who pays: a key, or without one an address. An address is two parts, so that no key can be made up to be one.

    Flask-Limiter skips a limit whose key is empty; here nobody passes a limit by hiding.

    Raises:
        LimiterUnavailable: The key function failed. To count its client by address would let one address, that of a
            proxy, pay for everybody.
    """
    key = None
    try:
        key = key_func()
    except AmbiguousKey:
        raise AmbiguousKey(limiter.tab.request_id, limiter.state.settings.error_format) from None
    except HTTPException:
        raise  # It turns the client away.
    except Exception as error:  # noqa: BLE001  any: it is the app's function
        # Not the error's text, which may hold the key.
        name, where = type(error).__name__, places_of(error)
        limiter.logger.error("key_func: %r raised %s at %s", key_func, name, where)  # noqa: TRY400  for that reason
        raise limiter.unavailable() from None
    return prefixed(limiter, [str(key)] if key else ["", remote_address()])


def prefixed(limiter: "AILimiter", identity: list[str]) -> list[str]:
    """An identity of an app that has a ``key_prefix``."""
    return [limiter._key_prefix, *identity] if limiter._key_prefix else identity


def told_of(limiter: "AILimiter", tab: Tab, applied: Applied, *, breached: bool) -> RequestLimit:
    """A limit in the words of Flask-Limiter, which names a count by who pays and the scope."""
    limit, identifiers = applied.limit, [*tab.payers[applied.limit.key_func], applied.charge.scope]
    return RequestLimit(limiter, limit.limit, identifiers, breached, limit.shared)


def subject_of(limiter: "AILimiter", tab: Tab, engine: Engine, key_func: Callable[[], str]) -> bytes:
    """Who pays by a key function, as a store knows them; the request remembers the name."""
    identity = tab.payers[key_func] = identity_of(limiter, key_func)
    return engine.subject(*identity)


def _asked_cost(limiter: "AILimiter", limit: RuntimeLimit) -> int:
    try:
        return require_cost(limit.deduction_amount)
    except HTTPException:
        raise  # The body is too large, or the app's estimate refused it.
    except Exception as error:  # noqa: BLE001  any: it may be the app's function
        limiter.logger.warning("The cost of %s counts as 1: asking for it raised %s", limit.limit, type(error).__name__)
        return 1
