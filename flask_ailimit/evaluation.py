"""The seam: limits that apply become charges, the charges one decision, and the decision a tab or a 429.

Flask-Limiter finds out which limits apply, twice in a request: before it for those of the application (and the defaults
of views without limits of their own), and in the decorator for the rest. Each time is one atomic decision. If the
second refuses, what the first took is given back.
"""

from typing import TYPE_CHECKING, NoReturn

import flask
from flask_limiter import ExemptionScope, RequestLimit

from .applying import apply, apply_phase, identity_of, prefixed, told_of
from .engine import AILimitError, Charge
from .planning import Phase, not_lifted, planned
from .refusing import refuse
from .tab import Tab

if TYPE_CHECKING:
    from .extension import AILimiter


def evaluate(limiter: "AILimiter", tab: Tab, endpoint: str, phase: Phase) -> None:
    """Decide one phase of the current request. Takes the place of Flask-Limiter's own evaluation.

    Raises:
        QuotaExceeded: A limit refused.
        LimiterUnavailable: The store can't answer and the policy is to refuse.
    """
    tab.applied = tab.refused = ()
    if not phase.limits and not phase.metas:
        return
    engine = limiter.engine_of(tab.state)
    applied, charges = apply_phase(limiter, tab, engine, endpoint, phase)
    metas = apply(limiter, tab, engine, endpoint, phase.metas) if phase.metas else []
    if metas:
        charges = [*(each.charge for each in metas), *charges]
    if not charges:
        return
    try:
        reservation = engine.reserve(charges)
    except AILimitError as error:
        _store_failed(limiter, tab, error)
    tab.add(reservation, phase)
    tab.applied = applied
    if phase.deducts:
        deductions = [(each.charge, each.limit.deduct_when) for each in applied if each.limit.deduct_when]
        tab.deductions = [*tab.deductions, *deductions]
    if not reservation.allowed:
        refuse(limiter, tab, endpoint, metas, applied, reservation.decision)


def applicable(limiter: "AILimiter", endpoint: str, subject: str | None = None) -> list[Charge]:
    """Dry charges of cost 0 for every limit of an endpoint, to ask what is left.

    ``subject`` takes the place of each limit's key function, where there is no request to ask it.
    """
    app = flask.current_app
    blueprint = endpoint.rpartition(".")[0] or None
    manager = limiter.limit_manager
    exempt = manager.exemption_scope(app, endpoint, blueprint) & ExemptionScope.APPLICATION
    defaults, decorated = manager.resolve_limits(app, endpoint, blueprint)
    limits = [*([] if exempt else manager.application_limits), *defaults, *decorated]
    charges = []
    for limit in [*limits, *not_lifted(limiter, endpoint, blueprint, limits)]:
        identity = identity_of(limiter, limit.key_func) if subject is None else prefixed(limiter, [subject])
        scope = limit.scope_for(endpoint, flask.request.method)
        charges.append(planned(limiter, limit, endpoint, dry=True).charge(limiter.engine.subject(*identity), scope, 0))
    return charges


def request_limits(limiter: "AILimiter", tab: Tab) -> list[RequestLimit]:
    """What ``current_limits`` answers: the limits of the latest phase, in the words of Flask-Limiter."""
    return [told_of(limiter, tab, each, breached=each in tab.refused) for each in tab.applied]


def request_limit(told: list[RequestLimit]) -> RequestLimit | None:
    """What ``current_limit`` answers: the last one that refused, else the first that one view has for itself."""
    breached = [limit for limit in told if limit.breached]
    explicit = [limit for limit in told if not limit.shared] or told
    return next(iter(breached[-1:] or explicit), None)


def _store_failed(limiter: "AILimiter", tab: Tab, error: AILimitError) -> NoReturn:
    if not limiter.decides_alone:
        raise error  # Flask-Limiter's own policies come first.
    limiter.logger.error("A request was refused, because its limits can't be checked: %s", error)
    tab.cancel()
    raise limiter.unavailable() from error
