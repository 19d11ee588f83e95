"""Makes the charges of the current request from its resolved limits: finds the subject and the cost of each."""

from collections.abc import Callable, Iterable

from flask_limiter import RequestLimit
from werkzeug.exceptions import HTTPException

from flask_ailimit.current import current_request
from flask_ailimit.engine import Quota, Reservation
from flask_ailimit.engine.charge import require_cost
from flask_ailimit.engine.grant import Grant
from flask_ailimit.engine.quota import MAX_EXACT, TOKEN_UNITS, is_money
from flask_ailimit.http.errors import BodyTooLarge
from flask_ailimit.limits.keys import remote_address
from flask_ailimit.limits.methods import counted_method
from flask_ailimit.limits.phase import LimitCharge, ResolvedLimit, RuntimeLimit
from flask_ailimit.limits.plans.payer_key import PayerKey
from flask_ailimit.limits.plans.plan import NO_PAYERS
from flask_ailimit.limits.plans.selection import PlannedPayer
from flask_ailimit.limits.unit_limit import UnitCost
from flask_ailimit.signals import usage_settled

from .asking import ask
from .estimate import token_cost
from .ledger import Ledger
from .models import note_model
from .money_estimate import money_to_reserve
from .payers import payer_in
from .pricing import Priced


def charges_for(ledger: Ledger, endpoint: str, limits: Iterable[ResolvedLimit]) -> list[LimitCharge]:
    """The charges of the current request under these limits. A cost that is not fixed is 0 until :func:`at_cost`.

    A key function that several limits share is called once.
    """
    charges = []
    subjects: dict[int, bytes] = {}
    for each in limits:
        try:
            charge = _charge_for(ledger, endpoint, each, subjects)
        except Exception as error:
            if each.enforced_percent != NO_PAYERS:
                raise
            _log_untried(ledger, each, error)
            continue
        if charge is not None:
            charges.append(charge)
    return charges


def _charge_for(ledger: Ledger, endpoint: str, each: ResolvedLimit, subjects: dict[int, bytes]) -> LimitCharge | None:
    limit = each.limit
    if limit.exempt_when is not None and limit.is_exempt:
        return None
    subject = subjects.get(id(limit.key_func))
    if subject is None:
        subject = subjects[id(limit.key_func)] = subject_of(ledger, limit.key_func)
    scope = limit.scope_for(endpoint, counted_method(current_request())) if each.scope is None else each.scope
    credit = credit_of(each.quota, payer_of(ledger, limit)) if each.takes_credit else ()
    windows = ledger.app_state.windows_of_credit.get(each.quota.unit, ()) if credit else ()
    return LimitCharge(each, each.charge(subject, scope, each.cost or 0, credit, windows))


def payer_of(ledger: Ledger, limit: RuntimeLimit) -> PlannedPayer:
    """The payer whose plan has a limit. Raises the errors of :func:`.payers.payers_of`."""
    assert isinstance(limit.key_func, PayerKey)  # noqa: S101  limits of plans have one
    return payer_in(ledger, limit.key_func.role)


def credit_of(quota: Quota, payer: PlannedPayer) -> tuple[Grant, ...]:
    """What a payer was granted beside a budget."""
    return payer.credit.get(quota.unit, ())


def _log_untried(ledger: Ledger, each: ResolvedLimit, error: Exception) -> None:
    # Not the error's text, which may hold a key or a prompt.
    ledger.flask_limiter.logger.warning(
        "A request is not tried on %s: asking about it raised %s", each.limit.limit, type(error).__name__
    )


def without_held(reservations: Iterable[Reservation], charges: Iterable[LimitCharge]) -> list[LimitCharge]:
    """The charges of a later phase, without those that the request has paid already and pays only once."""
    held = {verdict.charge.counted_in for each in reservations for verdict in each.decision.taken}
    return [each for each in charges if not each.resolved.charged_once or each.charge.counted_in not in held]


def at_cost(ledger: Ledger, charges: Iterable[LimitCharge], *, may_collide: bool = False) -> list[LimitCharge]:
    """The same charges with their costs. To find a cost, the request's body may be read."""
    known = []
    for each in charges:
        if each.resolved.cost is not None:
            known.append(each)
            continue
        try:
            cost = _cost_now(ledger, each.limit, each.charge.quota)
            known.append(LimitCharge(each.resolved, each.charge.costing(cost)))
            note_what_is_priced(ledger, each)
        except BodyTooLarge:
            raise
        except HTTPException as error:  # The app's function turns the client away, which nothing that is tried does.
            if not each.charge.shadow:
                raise
            _log_untried(ledger, each.resolved, error)
    return each_count_once(known) if may_collide else known


def each_count_once(charges: Iterable[LimitCharge]) -> list[LimitCharge]:
    """The costliest charge of each count. An app factory that runs twice decorates its views twice."""
    counts: dict[object, LimitCharge] = {}
    for each in charges:
        count = (each.charge.counted_in, each.limit.deduct_when)
        known = counts.get(count)
        if known is None or (each.charge.cost > known.charge.cost and each.charge.shadow <= known.charge.shadow):
            counts[count] = each  # What is only tried takes the place of nothing that holds.
    return list(counts.values())


def subject_of(ledger: Ledger, key_func: Callable[[], str]) -> bytes:
    """The hashed subject that a key function names, kept in the ledger. Raises what :func:`identity_of` raises."""
    identity = ledger.identities[key_func] = identity_of(ledger, key_func)
    if type(key_func) is PayerKey and ledger.flask_limiter.fallback is None:
        return payer_in(ledger, key_func.role).subject  # Its hash is known already.
    return ledger.engine.subject(*identity)


def identity_of(ledger: Ledger, key_func: Callable[[], str]) -> list[str]:
    """The identity of the client: its key, or its address if the key is empty; of a payer, its role and its id.

    An address has two parts, so that no key looks like one. Flask-Limiter skips a limit whose key is empty; here it
    counts the client's address.

    Raises:
        AmbiguousKey: The request carries different keys.
        LimiterUnavailable: The key function failed. The address is not used then, because all clients of a proxy have
            one address and would share one count.
    """
    if type(key_func) is PayerKey:
        payer = payer_in(ledger, key_func.role)
        return with_prefix(ledger.flask_limiter.key_prefix, [payer.role, payer.id])
    key = ask(ledger, "key_func", key_func)
    return with_prefix(ledger.flask_limiter.key_prefix, [str(key)] if key else ["", remote_address()])


def with_prefix(key_prefix: str, identity: list[str]) -> list[str]:
    """An identity with the ``key_prefix`` before it, if there is one."""
    return [key_prefix, *identity] if key_prefix else identity


def as_request_limit(ledger: Ledger, charge: LimitCharge, *, breached: bool) -> RequestLimit:
    """The charge's limit as Flask-Limiter's ``RequestLimit``."""
    return ledger.flask_limiter.as_request_limit(charge, ledger.identities[charge.limit.key_func], breached=breached)


def note_what_is_priced(ledger: Ledger, each: LimitCharge) -> None:
    """Note a charge whose cost in the end is not the number of tokens alone: of money, or of weighed tokens."""
    cost = each.limit.cost
    if isinstance(cost, UnitCost) and (cost.limit.weights is not None or is_money(cost.limit.unit)):
        limit = cost.limit
        ledger.pricing.limits[each.charge.counted_in] = Priced(limit.unit, limit.weights, limit.unknown_price)


def _cost_now(ledger: Ledger, limit: RuntimeLimit, quota: Quota) -> int:
    try:
        cost = limit.cost
        if isinstance(cost, UnitCost) and cost.limit.unit in TOKEN_UNITS:
            units = token_cost(ledger, cost.quota, cost.limit)
            if usage_settled.receivers and ledger.app_state.prices is not None:
                note_model(ledger)
            return units
        if isinstance(cost, UnitCost) and is_money(cost.limit.unit):
            return money_to_reserve(ledger, quota, cost.limit)
        asked = cost.limit.cost if isinstance(cost, UnitCost) else cost
        cost_now = asked() if callable(asked) else asked
        # A client may have named the number. Beyond what can be counted it never fits, and must not count as 1.
        return require_cost(min(cost_now, MAX_EXACT) if type(cost_now) is int else cost_now)
    except HTTPException:
        raise  # The body is too large, or the app's estimate refused it.
    except Exception as error:  # noqa: BLE001  any: it may be the app's function
        ledger.flask_limiter.logger.warning(
            "The cost of %s counts as 1: asking for it raised %s", limit.limit, type(error).__name__
        )
        return 1
