"""From limits that were planned to this request's charges: who pays, and how much."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import flask
from flask_limiter._limits import RuntimeLimit
from werkzeug.exceptions import HTTPException

from .engine import Charge, Engine
from .engine.algorithms.base import new
from .engine.charge import require_cost
from .keys import remote_address
from .planning import Planned

if TYPE_CHECKING:
    from .extension import AILimiter


class Applied(NamedTuple):
    """A limit that applies to this request.

    Attributes:
        limit: The limit.
        identity: Who is charged.
        charge: How much of what.
    """

    limit: RuntimeLimit
    identity: list[str]
    charge: Charge

    @property
    def identifiers(self) -> list[str]:
        """What Flask-Limiter names a count by."""
        return [*self.identity, self.charge.scope]


def apply(limiter: "AILimiter", engine: Engine, endpoint: str, limits: Iterable[Planned]) -> list[Applied]:
    """What the current request is charged. A key function is asked once, however many limits have it."""
    applied = []
    payers: dict[int, tuple[list[str], bytes]] = {}
    for each in limits:
        limit = each.limit
        if limit.exempt_when is not None and limit.is_exempt:
            continue
        payer = payers.get(id(limit.key_func))
        if payer is None:
            identity = identity_of(limiter, limit)
            payer = payers[id(limit.key_func)] = (identity, engine.subject(*identity))
        identity, subject = payer
        if each.scope is None:
            charge = each.charge(subject, limit.scope_for(endpoint, flask.request.method))
        else:
            charge = each.charge_again(subject)
        if each.cost is None:
            charge = charge.costing(_asked_cost(limiter, limit))
        applied.append(new(Applied, (limit, identity, charge)))
    return applied


def each_count_once(applied: Iterable[Applied]) -> list[Applied]:
    """Of several limits with one count the costliest: an app factory that runs again decorates its views again."""
    counts: dict[object, Applied] = {}
    for each in applied:
        count = (each.charge.subject, each.charge.bucket, each.limit.deduct_when)
        if count not in counts or each.charge.cost > counts[count].charge.cost:
            counts[count] = each
    return list(counts.values())


def identity_of(limiter: "AILimiter", limit: RuntimeLimit) -> list[str]:
    """Who pays: a key, or without one an address. An address is two parts, so that no key can be made up to be one.

    Flask-Limiter skips a limit whose key is empty; here nobody passes a limit by hiding, or by making its key function
    fail.
    """
    key = None
    try:
        key = limit.key_func()
    except HTTPException:
        raise  # It turns the client away.
    except Exception as error:  # noqa: BLE001  any: it is the app's function
        # Not the error's text, which may hold the key.
        limiter.logger.error("key_func: %r raised %s; the address counts", limit.key_func, type(error).__name__)  # noqa: TRY400
    return prefixed(limiter, [str(key)] if key else ["", remote_address()])


def prefixed(limiter: "AILimiter", identity: list[str]) -> list[str]:
    """An identity of an app that has a ``key_prefix``."""
    return [limiter._key_prefix, *identity] if limiter._key_prefix else identity


def _asked_cost(limiter: "AILimiter", limit: RuntimeLimit) -> int:
    try:
        return require_cost(limit.deduction_amount)
    except HTTPException:
        raise  # A body that is too large, or that the app's estimate refused.
    except Exception as error:  # noqa: BLE001  any: it may be the app's function
        limiter.logger.warning("The cost of %s counts as 1: asking for it raised %s", limit.limit, type(error).__name__)
        return 1
