"""Decides a phase of the current request: makes a charge of each limit, and asks the store about all in one step.

All limits of a view are one decision. It is made in the view's decorator if the view has limits of its own, else just
before the view. The limits by address are decided before it, in a decision of their own, and so are, after it, the
limits of each function that the view calls.
"""

from collections.abc import Iterable, Sequence
from typing import NoReturn

from flask_limiter import RequestLimit

from flask_ailimit.engine import AILimitError, Charge, Decision, Verdict
from flask_ailimit.http.errors import LimiterUnavailable
from flask_ailimit.limits.phase import LimitCharge, Phase
from flask_ailimit.limits.plans.payer_key import PayerKey
from flask_ailimit.limits.plans.selection import Selection

from .charges import as_request_limit, at_cost, charges_for, subject_of, without_held
from .ledger import Ledger
from .payers import must_read_model, payers_of
from .refuse import forbid, refuse
from .tried import tell_tried, was_only_read_to_try
from .which_limits import is_inside_view


def decide_phase(ledger: Ledger, endpoint: str, phase: Phase) -> None:
    """Decide one phase of the current request.

    Args:
        ledger: What the request owes.
        endpoint: Flask-Limiter's name of the request's endpoint.
        phase: The limits.

    Raises:
        QuotaExceeded: A limit refused.
        LimiterUnavailable: The store failed and the policy is to refuse.
        NotAllowed: A limit is 0.
        UnreadableBody: The limits allow the request, but its body can't be read.
    """
    before = ledger.limits
    ledger.limits = ledger.refused = ()
    if phase.zero_limits:
        forbid(ledger, phase.zero_limits)
    if phase.limits or phase.metas:
        _reserve(ledger, endpoint, phase)
    if phase.only_tries and not ledger.limits and is_inside_view(ledger):
        ledger.limits = before  # As if there were no such phase.
    # Raised after the decision, so that invalid requests count too.
    if ledger.invalid is not None and not was_only_read_to_try(ledger):
        raise ledger.invalid


def _reserve(ledger: Ledger, endpoint: str, phase: Phase) -> None:
    ledger.engine = ledger.engine_now()
    metas = at_cost(ledger, charges_for(ledger, endpoint, phase.metas)) if phase.metas else []
    limits, charges = _limit_charges(ledger, endpoint, phase, metas)
    if metas:
        charges = [*(each.charge for each in metas), *charges]
    if not charges:
        return
    try:
        reservation = ledger.engine.reserve(charges)
    except AILimitError as error:
        _store_failed(ledger, error)
    ledger.add(reservation, phase)
    if phase.has_deduct_when:
        deductions = [(each.charge, each.limit.deduct_when) for each in limits if each.limit.deduct_when]
        ledger.deductions = [*ledger.deductions, *deductions]
    if phase.tries:
        limits = [each for each in limits if not each.charge.shadow]
        tell_tried(ledger, reservation.decision)
    ledger.limits = limits
    if limits or metas:
        ledger.limited()
    if not reservation.allowed:
        if phase.counts_tokens or ledger.estimates:
            ledger.flask_limiter.registry.refused_lately.note(_without_body(reservation.decision, metas, limits))
        refuse(ledger, endpoint, metas, limits, reservation.decision)


def _limit_charges(
    ledger: Ledger, endpoint: str, phase: Phase, metas: Sequence[LimitCharge]
) -> tuple[list[LimitCharge], list[Charge]]:
    """The request's charges in a phase, without those of meta limits: with their limits, and alone."""
    meets_again = phase.charged_once and ledger.reservations
    if phase.sole_key_func is not None and not meets_again:
        return phase.charges_of(subject_of(ledger, phase.sole_key_func))
    limits = charges_for(ledger, endpoint, phase.limits)
    if meets_again:
        limits = without_held(ledger.reservations, limits)
    if phase.counts_tokens:
        _refuse_unread(ledger, endpoint, metas, limits)
    limits = at_cost(ledger, limits, may_collide=phase.may_collide)
    return limits, [each.charge for each in limits]


def refuse_before_model(ledger: Ledger, endpoint: str, by_plan: Phase) -> None:
    """Refuse a request before its body is read for its model, as :func:`_refuse_unread` does before it is estimated.

    Looks at the limits of plans that hold for every model.

    Args:
        ledger: What the request owes.
        endpoint: Flask-Limiter's name of the request's endpoint.
        by_plan: The phase that stands for those of all selections.

    Raises:
        QuotaExceeded: One of the limits refused a moment ago, and still refuses.
    """
    lately = ledger.flask_limiter.registry.refused_lately
    if lately.is_empty or not must_read_model(ledger):
        return
    of_any_model = Selection(payers_of(ledger))
    phase = by_plan.next_phases.get(of_any_model.key)
    if phase is None or phase.zero_limits:
        return
    subjects = {payer.role: payer.subject for payer in of_any_model.payers}
    counts = [
        ((subjects[each.limit.key_func.role], each.quota.bucket(each.scope or "")), each.floor)
        for each in phase.limits
        if isinstance(each.limit.key_func, PayerKey)
    ]
    if not lately.has_count(counts):
        return
    ledger.engine, ledger.selection = ledger.engine_now(), of_any_model
    try:
        metas = at_cost(ledger, charges_for(ledger, endpoint, phase.metas)) if phase.metas else []
        limits = without_held(ledger.reservations, charges_for(ledger, endpoint, phase.limits))
        _refuse_unread(ledger, endpoint, metas, limits)
    finally:
        ledger.selection = None


def _refuse_unread(ledger: Ledger, endpoint: str, metas: Sequence[LimitCharge], limits: Sequence[LimitCharge]) -> None:
    """Refuse a request before its body is read, if one of its counts refused a moment ago and still refuses.

    A cost that depends on the body is 0 here. A request that is refused at that cost would be refused at any cost.
    """
    limits = [each for each in limits if not each.charge.shadow]
    charges = [each.charge for each in (*metas, *limits)]
    if not ledger.flask_limiter.registry.refused_lately.has_any(charges):
        return
    try:
        decision = ledger.engine.peek(charges)
    except AILimitError:
        return  # The store is asked again, with all costs.
    if _without_body(decision, metas, limits):
        ledger.decision = ledger.decision.joined(decision) if ledger.decision else decision
        ledger.limited()
        refuse(ledger, endpoint, metas, limits, decision)


def _without_body(decision: Decision, metas: Iterable[LimitCharge], limits: Iterable[LimitCharge]) -> list[Verdict]:
    """The verdicts that refuse for limits whose cost doesn't depend on the body."""
    known = {id(each.charge) for each in (*metas, *limits) if each.resolved.cost is not None}
    return [verdict for verdict in decision.refused if id(verdict.charge) in known]


def request_limits(ledger: Ledger) -> list[RequestLimit]:
    """What ``current_limits`` returns: the limits of the latest phase, as Flask-Limiter's ``RequestLimit``."""
    return [as_request_limit(ledger, each, breached=each in ledger.refused) for each in ledger.limits]


def request_limit(ledger: Ledger) -> RequestLimit | None:
    """What ``current_limit`` returns: the limit of :func:`current_charge` as Flask-Limiter's ``RequestLimit``."""
    current = current_charge(ledger)
    return None if current is None else as_request_limit(ledger, current, breached=current in ledger.refused)


def current_charge(ledger: Ledger) -> LimitCharge | None:
    """Of the limits of the latest phase, the last that refused, else the first unshared one, else the first."""
    breached = [each for each in ledger.limits if each in ledger.refused]
    if breached:
        return breached[-1]
    explicit = [each for each in ledger.limits if not each.limit.shared]
    return next(iter(explicit or ledger.limits), None)


def _store_failed(ledger: Ledger, error: AILimitError) -> NoReturn:
    if not ledger.flask_limiter.handles_store_errors:
        raise error  # Flask-Limiter's own policies come first.
    ledger.flask_limiter.logger.error("A request was refused, because its limits can't be checked: %s", error)
    ledger.cancel()
    raise LimiterUnavailable(**ledger.answer_facts) from error
