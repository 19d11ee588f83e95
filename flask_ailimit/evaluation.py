"""The seam: limits that apply become charges, the charges one decision, and the decision a tab or a 429.

Flask-Limiter finds out which limits apply: in the decorator of a view that has limits, else before it. That is one
atomic decision. Limits by address, before it, and those of what the view calls, after it, are others.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NoReturn

import flask
from flask_limiter import ExemptionScope, RequestLimit

from .applying import apply, at_cost, identity_of, not_held, prefixed, subject_of, told_of
from .engine import AILimitError, Charge, Decision, Engine, Verdict
from .methods import counted_method, meets
from .planning import Applied, Phase, applied_to, counted, not_lifted, planned
from .refusing import forbid, not_allowed, refuse
from .resolving import allows_nothing
from .tab import Tab

if TYPE_CHECKING:
    from .extension import AILimiter


def evaluate(limiter: "AILimiter", tab: Tab, endpoint: str, phase: Phase) -> None:
    """Decide one phase of the current request. Takes the place of Flask-Limiter's own evaluation.

    Raises:
        QuotaExceeded: A limit refused.
        LimiterUnavailable: The store can't answer and the policy is to refuse.
        NotAllowed: A limit is 0.
        UnreadableBody: The limits admit the request, and its body can't be taken.
    """
    tab.applied = tab.refused = ()
    if phase.forbidding:
        forbid(limiter, tab, phase.forbidding)
    if not phase.limits and not phase.metas:
        return
    engine = limiter.engine_of(tab.state)
    metas = at_cost(limiter, apply(limiter, tab, engine, endpoint, phase.metas)) if phase.metas else []
    applied, charges = _charged(limiter, tab, engine, endpoint, phase, metas)
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
        if phase.counts_tokens:
            limiter.limit_manager.refused_lately.note(_without_body(reservation.decision, metas, applied))
        refuse(limiter, tab, endpoint, metas, applied, reservation.decision)
    if tab.invalid is not None:  # Not before it is counted: mistakes are limited too.
        raise tab.invalid


def _charged(
    limiter: "AILimiter", tab: Tab, engine: Engine, endpoint: str, phase: Phase, metas: Sequence[Applied]
) -> tuple[list[Applied], list[Charge]]:
    """What the request is charged in a phase, save for its meta limits."""
    meets_again = phase.once and tab.reservations
    if phase.payer is not None and not meets_again:
        return applied_to(phase, subject_of(limiter, tab, engine, phase.payer))
    applied = apply(limiter, tab, engine, endpoint, phase.limits)
    if meets_again:
        applied = not_held(tab.reservations, applied)
    if phase.counts_tokens:
        _refuse_unread(limiter, tab, engine, endpoint, metas, applied)
    applied = at_cost(limiter, applied, may_collide=phase.may_collide)
    return applied, [each.charge for each in applied]


def _refuse_unread(
    limiter: "AILimiter",
    tab: Tab,
    engine: Engine,
    endpoint: str,
    metas: Sequence[Applied],
    applied: Sequence[Applied],
) -> None:
    """Refuse, before its body is read, a request of somebody who was refused a moment ago and still would be.

    What is asked for the body costs nothing here. A request that is refused so is refused at any cost.
    """
    lately = limiter.limit_manager.refused_lately
    charges = [each.charge for each in (*metas, *applied)]
    if not lately.has_any(charges):
        return
    try:
        decision = engine.peek(charges)
    except AILimitError:
        return  # It is asked once more with all costs, and answered as ever.
    if _without_body(decision, metas, applied):
        tab.decision = tab.decision.joined(decision) if tab.decision else decision
        refuse(limiter, tab, endpoint, metas, applied, decision)


def _without_body(decision: Decision, metas: Iterable[Applied], applied: Iterable[Applied]) -> list[Verdict]:
    """The verdicts that refuse for limits whose cost doesn't depend on the body."""
    known = {id(each.charge) for each in (*metas, *applied) if each.planned.cost is not None}
    return [verdict for verdict in decision.refused if id(verdict.charge) in known]


def applicable(limiter: "AILimiter", endpoint: str, subject: str | None = None) -> list[Charge]:
    """Dry charges of cost 0 for every limit of an endpoint, to ask what is left.

    ``subject`` takes the place of each limit's key function, where there is no request to ask it.

    Raises:
        NotAllowed: One of them is 0.
    """
    app = flask.current_app
    blueprint = endpoint.rpartition(".")[0] or None
    manager = limiter.limit_manager
    exempt = manager.exemption_scope(app, endpoint, blueprint) & ExemptionScope.APPLICATION
    defaults, decorated = manager.resolve_limits(app, endpoint, blueprint)
    limits = [*([] if exempt else manager.application_limits), *defaults, *decorated]
    limits = [*limits, *not_lifted(limiter, endpoint, blueprint, limits)]
    if any(allows_nothing(limit) and meets(limit.methods, flask.request) for limit in limits):
        raise not_allowed(limiter)
    charges = []
    for limit in counted(limits):
        identity = identity_of(limiter, limit.key_func) if subject is None else prefixed(limiter, [subject])
        scope = limit.scope_for(endpoint, counted_method(flask.request))
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
