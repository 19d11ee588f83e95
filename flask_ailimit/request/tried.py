"""Reports what limits that are only tried would do. The request is answered as if they weren't there."""

from flask_ailimit.engine import Decision
from flask_ailimit.engine.quota import is_of_tokens
from flask_ailimit.signals import request_would_be_refused, tell

from .ledger import Ledger
from .refuse import in_log


def tell_tried(ledger: Ledger, decision: Decision) -> None:
    """Report the limits that are only tried, and would refuse the request. If others refuse it, that is no news."""
    would_refuse = decision.would_refuse if decision.allowed else ()
    if not would_refuse:
        return
    for verdict in would_refuse:
        limit, subject, scope = in_log(verdict.charge)
        ledger.flask_limiter.logger.info("ratelimit %s (%s) would be exceeded at endpoint: %s", limit, subject, scope)
    tell(
        request_would_be_refused, ledger.app, would_refuse=would_refuse, **{**ledger.facts, "decision": ledger.decision}
    )


def was_only_read_to_try(ledger: Ledger) -> bool:
    """Whether the body was read for limits that are only tried, and for nothing else."""
    for_model = any(payer.plan.needs_model for payer in ledger.payers)
    return not for_model and not any(is_of_tokens(each.charge.quota.unit) for each in ledger.limits)
