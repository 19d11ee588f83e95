"""What a payer owes under its plan, or under each of the plans that it may have."""

from collections.abc import Iterable
from typing import NamedTuple

from flask_ailimit.engine import Charge
from flask_ailimit.engine.quota import CONCURRENCY
from flask_ailimit.limits.plans.selection import PlannedPayer

from .endpoint_limits import limits_of_plan
from .ledger import Ledger


class Debt(NamedTuple):
    """A count of which more was used than a plan allows.

    Attributes:
        name: The name of its limit.
        model: The pattern of the models that share the count; None for all models.
        charge: A charge of the count.
        owed_under: The plans under which it is in debt.
        paid_under: The plans that have the count too, and under which it is in none.
    """

    name: str
    model: str | None
    charge: Charge
    owed_under: tuple[str, ...]
    paid_under: tuple[str, ...]


def debts_of_payer(ledger: Ledger, payers: Iterable[PlannedPayer]) -> list[Debt]:
    """What a payer owes. It takes one question to the store for each plan.

    Args:
        ledger: A ledger of no request.
        payers: The payer, once for each plan that it may have.

    Raises:
        StoreError: The store can't answer.
    """
    named: dict[tuple[bytes, bytes], tuple[str, str | None, Charge]] = {}
    owed: dict[tuple[bytes, bytes], list[str]] = {}
    paid: dict[tuple[bytes, bytes], list[str]] = {}
    for payer in payers:
        counts = _counts(ledger, payer)
        verdicts = ledger.engine_now().store.peek([charge for _, charge in counts]).verdicts if counts else ()
        for (model, charge), verdict in zip(counts, verdicts, strict=True):
            at = charge.counted_in
            named.setdefault(at, (verdict.quota.name, model, charge))
            (paid if verdict.allowed else owed).setdefault(at, []).append(payer.plan.name)
    return [Debt(*named[at], tuple(plans), tuple(paid.get(at, ()))) for at, plans in owed.items()]


def _counts(ledger: Ledger, payer: PlannedPayer) -> list[tuple[str | None, Charge]]:
    """A charge of cost 0 for each count of the plan, which is refused if the count is in debt; with its models."""
    found: dict[tuple[bytes, bytes], tuple[str | None, Charge]] = {}
    for rule in (None, *(payer.plan.models or ())):
        for limit in limits_of_plan(ledger, payer, rule):
            for charge in limit.counts:
                if charge.quota.unit != CONCURRENCY:  # Calls in flight are no debt.
                    model = None if rule is None else rule.pattern
                    found.setdefault(charge.counted_in, (model, charge._replace(dry=False)))
    return [*found.values()]
