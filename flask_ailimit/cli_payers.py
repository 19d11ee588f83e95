"""The payer that a command names: what operators changed for it, what it has left of its plan, and what it owes.

No request tells here which plan the app names for a payer. Either the command says it, or each plan may be the one.
"""

from collections.abc import Iterator
from typing import NamedTuple

import click

from .engine.quota import BUDGET, amount_in_words
from .extension import AILimiter
from .limits.plans.admin import ChangeError, payer_named
from .limits.plans.caller import SERVICE
from .limits.plans.change import EVERYBODY, PayerName
from .limits.plans.changes_in_words import lasting_in_words
from .limits.plans.plan import Plan, Plans
from .limits.plans.selection import PlannedPayer
from .limits.plans.trail import InForce
from .limits.plans.tried import as_tried
from .request.debts import debts_of_payer
from .request.usage import usage_of_payer
from .request.usage_in_words import usage_in_words

_UNKNOWN = PayerName("", "")


class KnownPayer(NamedTuple):
    """A payer, and what is known of it without a request.

    Attributes:
        name: Its role and id; both empty if only its hash is known.
        subject: Its hash.
        changed: What operators changed for it.
        moved: The plan that it has whatever the app names: that to which it was moved, or the service's; else None.
    """

    name: PayerName
    subject: bytes
    changed: InForce
    moved: Plan | None


def payer_of(limiter: AILimiter, text: str, *, is_hash: bool) -> KnownPayer | None:
    """The payer that a text such as ``user:7`` names, or its hash; None if it names none, or if there are no plans.

    Raises:
        StoreError: The store can't tell what was changed.
    """
    plans, changes = limiter.app_state.plans, limiter.app_state.changes
    if plans is None:
        return None
    changes.look()
    in_force = changes.trail.in_force
    if is_hash:
        subject, name = bytes.fromhex(text), _UNKNOWN
        for each in (EVERYBODY, *in_force):
            if limiter.subject_of(each) == subject:
                name = each
    else:
        try:
            name = payer_named(text)
        except ChangeError:
            return None
        subject = limiter.subject_of(name)
    changed = in_force.get(name, InForce())
    moved = plans.service if name.role == SERVICE else plans.plans.get(changed.plan or "")
    return KnownPayer(name, subject, changed, moved)


def payer_with_plan(limiter: AILimiter, text: str, *, is_hash: bool) -> KnownPayer:
    """The payer that a text or a hash names, for which a plan is named too. The text may be a key, and is not repeated.

    Raises:
        ClickException: It names none, or the app has no plans.
    """
    if limiter.app_state.plans is None:
        raise click.ClickException("--plan: this app has no plans (AILIMIT_PLANS).")
    payer = payer_of(limiter, text, is_hash=is_hash)
    if payer is None:
        raise click.ClickException(
            f"--plan: SUBJECT is the role and the id of a payer, such as user:7, or it is {SERVICE}, for everybody."
        )
    return payer


def under_its_plans(limiter: AILimiter, payer: KnownPayer, named: str | None) -> list[PlannedPayer]:
    """The payer under the plan that it has as operators changed it; under each, if nobody says which it has.

    Args:
        limiter: The limiter, which has plans.
        payer: The payer.
        named: The plan that the app names for the payer; None if that is not known.
    """
    plans, changes = limiter.app_state.plans, limiter.app_state.changes
    assert plans is not None  # noqa: S101  there would be no payer
    chosen = _plan_named(plans, payer, named)
    if payer.name.role == SERVICE:
        found = [plans.service] if plans.service else []
    else:
        found = [each for each in (payer.moved or chosen,) if each] or [*plans.plans.values()]
    now = [changes.plan_of(payer.name, payer.changed, as_tried(plan, payer.subject)) for plan in found]
    credit = payer.changed.credit(changes.now_s())
    return [PlannedPayer(*payer.name, payer.subject, plan, None, credit=credit) for plan in now]


def left_of_plan(limiter: AILimiter, payer: KnownPayer, named: str | None) -> Iterator[str]:
    """What a payer has left of its plan, and what operators changed. If its plan is not known, only the latter."""
    if payer.changed.suspended is not None:
        yield f"suspended: {payer.changed.suspended}"
    if payer.moved and payer.changed.plan:
        yield f"moved to {payer.moved.name}"
    for unit, grants in payer.changed.credit(limiter.app_state.changes.now_s()).items():
        for grant in grants:
            lasting = lasting_in_words(grant.begins, grant.ends)
            yield f"granted by change {grant.id}: {amount_in_words(grant.amount, unit)}{lasting}"
    if named is None and payer.moved is None:
        return
    for planned in under_its_plans(limiter, payer, named):
        yield f"by the plan {planned.plan.name}"
        report = usage_of_payer(limiter.ledger_of_no_request(), planned)
        yield from (f"    {line}" for line in usage_in_words(report))


def is_unused(limiter: AILimiter, name: PayerName) -> bool:
    """Whether nothing is counted for a payer now, under none of the plans.

    Raises:
        StoreError: The store can't answer.
    """
    payer = payer_of(limiter, str(name), is_hash=False)
    every = under_its_plans(limiter, payer._replace(moved=None), None) if payer else []
    ledger = limiter.ledger_of_no_request()
    return not any(limit.used for planned in every for limit in usage_of_payer(ledger, planned).limits)


def forgiven(limiter: AILimiter, payer: KnownPayer, named: str | None) -> Iterator[str]:
    """Lift what a payer owes, and say so of each debt.

    If its plan is not known, only what is a debt under each plan that has the count: else a payer of a large plan
    would get back what it has used of it.
    """
    for debt in debts_of_payer(limiter.ledger_of_no_request(), under_its_plans(limiter, payer, named)):
        name = debt.name if debt.model is None else f"{debt.name} of {debt.model}"
        if debt.charge.quota.algorithm == BUDGET:
            yield f"{name}: not lifted, what is spent of a budget is spent. To lend more, grant credit"
        elif debt.paid_under:
            under, others = ", ".join(debt.owed_under), ", ".join(debt.paid_under)
            yield f"{name}: not lifted, it is owed under {under}, not under {others}. Name the payer's plan (--plan)"
        else:
            limiter.engine.forgive([debt.charge])
            yield f"{name}: debt lifted"


def _plan_named(plans: Plans, payer: KnownPayer, named: str | None) -> Plan | None:
    if named is None:
        return None
    if payer.name.role == SERVICE:
        if named != SERVICE:
            raise click.ClickException("--plan: everybody together has the limits of [service], and no other plan.")
        if plans.service is None:
            raise click.ClickException("--plan: the plans have no [service], so everybody together has no limits.")
        return plans.service
    if named not in plans.plans:
        raise click.ClickException(f"--plan: the plans of this app are {', '.join(plans.plans)}.")
    return plans.plans[named]
