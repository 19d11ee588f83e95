"""From limits that were planned to this request's charges: who pays, and how much."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import flask
from flask_limiter import RequestLimit
from flask_limiter._limits import RuntimeLimit
from werkzeug.exceptions import HTTPException

from .engine import Charge, Engine
from .engine.charge import require_cost
from .keys import remote_address
from .planning import Applied, Phase, Planned, applied_to
from .tab import Tab

if TYPE_CHECKING:
    from .extension import AILimiter


def apply_phase(
    limiter: "AILimiter", tab: Tab, engine: Engine, endpoint: str, phase: Phase
) -> tuple[list[Applied], list[Charge]]:
    """What the current request is charged in a phase, save for its meta limits."""
    if phase.payer is not None:
        return applied_to(phase, _subject_of(limiter, tab, engine, phase.payer))
    applied = apply(limiter, tab, engine, endpoint, phase.limits)
    if phase.may_collide:
        applied = each_count_once(applied)
    return applied, [each.charge for each in applied]


def apply(limiter: "AILimiter", tab: Tab, engine: Engine, endpoint: str, limits: Iterable[Planned]) -> list[Applied]:
    """What the current request is charged by limits. A key function is asked once, however many of them have it."""
    applied = []
    subjects: dict[int, bytes] = {}
    for each in limits:
        limit = each.limit
        if limit.exempt_when is not None and limit.is_exempt:
            continue
        subject = subjects.get(id(limit.key_func))
        if subject is None:
            subject = subjects[id(limit.key_func)] = _subject_of(limiter, tab, engine, limit.key_func)
        scope = limit.scope_for(endpoint, flask.request.method) if each.scope is None else each.scope
        cost = _asked_cost(limiter, limit) if each.cost is None else each.cost
        applied.append(Applied(limit, each.charge(subject, scope, cost)))
    return applied


def each_count_once(applied: Iterable[Applied]) -> list[Applied]:
    """Of several limits with one count the costliest: an app factory that runs again decorates its views again."""
    counts: dict[object, Applied] = {}
    for each in applied:
        count = (each.charge.subject, each.charge.bucket, each.limit.deduct_when)
        if count not in counts or each.charge.cost > counts[count].charge.cost:
            counts[count] = each
    return list(counts.values())


def identity_of(limiter: "AILimiter", key_func: Callable[[], str]) -> list[str]:
    """Who pays: a key, or without one an address. An address is two parts, so that no key can be made up to be one.

    Flask-Limiter skips a limit whose key is empty; here nobody passes a limit by hiding, or by making its key function
    fail.
    """
    key = None
    try:
        key = key_func()
    except HTTPException:
        raise  # It turns the client away.
    except Exception as error:  # noqa: BLE001  any: it is the app's function
        # Not the error's text, which may hold the key.
        limiter.logger.error("key_func: %r raised %s; the address counts", key_func, type(error).__name__)  # noqa: TRY400
    return prefixed(limiter, [str(key)] if key else ["", remote_address()])


def prefixed(limiter: "AILimiter", identity: list[str]) -> list[str]:
    """An identity of an app that has a ``key_prefix``."""
    return [limiter._key_prefix, *identity] if limiter._key_prefix else identity


def told_of(limiter: "AILimiter", tab: Tab, applied: Applied, *, breached: bool) -> RequestLimit:
    """A limit in the words of Flask-Limiter, which names a count by who pays and the scope."""
    limit, identifiers = applied.limit, [*tab.payers[applied.limit.key_func], applied.charge.scope]
    return RequestLimit(limiter, limit.limit, identifiers, breached, limit.shared)


def _subject_of(limiter: "AILimiter", tab: Tab, engine: Engine, key_func: Callable[[], str]) -> bytes:
    identity = tab.payers[key_func] = identity_of(limiter, key_func)
    return engine.subject(*identity)


def _asked_cost(limiter: "AILimiter", limit: RuntimeLimit) -> int:
    try:
        return require_cost(limit.deduction_amount)
    except HTTPException:
        raise  # A body that is too large, or that the app's estimate refused.
    except Exception as error:  # noqa: BLE001  any: it may be the app's function
        limiter.logger.warning("The cost of %s counts as 1: asking for it raised %s", limit.limit, type(error).__name__)
        return 1
