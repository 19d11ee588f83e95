"""Estimates what a request may cost in money, before the view runs."""

from flask_ailimit.current import current_request
from flask_ailimit.engine import Quota
from flask_ailimit.http.errors import ModelNotPriced
from flask_ailimit.limits.unit_limit import UnitLimit
from flask_ailimit.money import currency_of

from .estimate import estimate_now
from .ledger import Ledger
from .models import model_named


def money_to_reserve(ledger: Ledger, quota: Quota, limit: UnitLimit) -> int:
    """What the current request may cost in a limit on money, in nano-units, at least 1.

    What was only guessed is cut to the most that the payer can have. What the body asks for is not. Where images have a
    price, each answer may be one.

    Raises:
        ModelNotPriced: Nobody knows the price of the model, and the limit doesn't say what then.
        HTTPException: The body is larger than allowed, or the app's ``model_of`` turns the client away.
    """
    estimate, pricing = estimate_now(ledger, limit), ledger.pricing
    if ledger.invalid is not None:
        return 1  # It gets its 400 after the decision.
    if pricing.model is None:
        model_named(ledger, current_request())
    currency, unknown = currency_of(quota.unit), limit.unknown_price
    nano = pricing.nano_of(estimate.usage, currency, unknown, estimate.answers)
    if nano is None:
        names_model = pricing.sent_model is not None or not pricing.is_model_known
        raise ModelNotPriced(names_model=names_model, is_told=quota.in_headers, **ledger.answer_facts)
    most = quota.limit + sum(grant.amount for grant in quota.credit)
    if nano > most:
        return max(1, most, pricing.nano_of(estimate.least, currency, unknown, estimate.least_answers) or 0)
    return max(1, nano)
