"""What an operator does: change a limit of one payer, suspend it, move it to another plan, undo that, forget a payer.

Each is an entry of the trail. It is made of what the trail says at that moment, and appended only if nobody else has
appended one meanwhile; else it is made anew.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from shlex import quote

from flask_ailimit.engine import AILimitError, ConfigurationError, Quota, StoreError
from flask_ailimit.engine.limit_text import unit_of_money
from flask_ailimit.engine.quota import CONCURRENCY, is_money

from .caller import ADDRESS, SERVICE, is_role
from .change import (
    BOOST,
    CREDIT,
    EVERYBODY,
    FORGET,
    LONGEST_ID,
    LONGEST_NAME,
    LONGEST_TEXT,
    LOWER,
    MOVE,
    RAISE,
    RELOAD,
    RESUME,
    SUSPEND,
    UNDO,
    Change,
    PayerName,
    WhichLimit,
    is_text,
    limit_of_text,
    read,
    value_in_words,
    written,
)
from .credit import Credit, amount_of, is_budget
from .derived import Window, derived, limits_in, number_of
from .granting import lasting, require_budget, require_room
from .plan import BUDGET, NO_PAYERS, TRY, Plan, Plans, Source
from .plan_limits import LimitsOfPlans
from .trail import InForce, Trail
from .tried import as_tried
from .watching import LiveChanges

_NOTHING = re.compile(r"\s*0+(?!\d)")
_TRIES = 10
_LONGEST_BOOST = timedelta(days=366)
_MOST_SHOWN = 20
SUSPENDED = "This account is suspended."


class ChangeError(AILimitError, ValueError):
    """A change can't be made as it was asked for. The message says why, and what can be done."""


class Admin:
    """Changes plans for single payers while the app runs: ``limiter.admin``.

    A payer is named by role and id, such as ``user:7`` or ``organisation:acme``; ``address:10.0.0.1`` is a client
    without an account, and ``service`` everybody together. A limit is named by its unit and its window, such as
    ``requests`` and ``20 per minute``, or ``concurrency`` and ``4``.

    On all processes that share the store a change is in force within 5 seconds. It is in the trail for good.

    Each method that changes something takes ``reason`` and ``by``, why and who: texts of one line, of 1 to 500 and 1 to
    100 characters. Each returns the change, and raises :class:`ChangeError` if it can't be made, and ``StoreError`` if
    the store can't keep it.
    """

    def __init__(
        self,
        plans_now: Callable[[], Plans],
        changes: LiveChanges,
        subject_of: Callable[[PayerName], bytes],
        forget_counts: Callable[[PayerName], object],
        limits_of: Callable[[Plan], LimitsOfPlans],
        read_again: Callable[[], object],
        require_durability: Callable[[], object],
    ) -> None:
        """See :attr:`flask_ailimit.AILimiter.admin`, which makes it.

        Args:
            plans_now: The app's plans, as they were read last.
            changes: What is in force.
            subject_of: The hash of a payer.
            forget_counts: Resets every count of a payer.
            limits_of: Makes the limits of a plan, and raises ``ConfigurationError`` if they can't be counted.
            read_again: Reads the plan file, and raises ``ConfigurationError`` if it is wrong.
            require_durability: Raises ``ConfigurationError`` if the store may lose credit.
        """
        self._plans_now = plans_now
        self._changes = changes
        self._subject_of = subject_of
        self._forget_counts = forget_counts
        self._limits_of = limits_of
        self._read_again = read_again
        self._require_durability = require_durability

    def raise_limit(
        self,
        payer: str,
        unit: str,
        value: str | int,
        *,
        reason: str,
        by: str,
        model: str | None = None,
        plan: str | None = None,
    ) -> Change:
        """Raise a limit of a payer.

        Args:
            payer: Who, such as ``user:7``.
            unit: What is counted; for money ``budget``.
            value: One limit, such as ``20 per minute``, ``5 USD per calendar day``; of ``concurrency`` a number.
            reason: Why.
            by: Who does it.
            model: The pattern of models, as it is in the plan; None for the limit of all models together.
            plan: The only plan under which it is changed. None: all plans that have such a limit, which must all be
                lower. A payer that was moved has the plan to which it was moved.
        """
        return self._limit(RAISE, payer, unit, value, reason, by, model, plan)

    def lower_limit(
        self,
        payer: str,
        unit: str,
        value: str | int,
        *,
        reason: str,
        by: str,
        model: str | None = None,
        plan: str | None = None,
    ) -> Change:
        """Lower a limit of a payer. The arguments are those of :meth:`raise_limit`."""
        return self._limit(LOWER, payer, unit, value, reason, by, model, plan)

    def boost(
        self,
        payer: str,
        unit: str,
        value: str | int,
        *,
        until: datetime | timedelta,
        reason: str,
        by: str,
        model: str | None = None,
        plan: str | None = None,
    ) -> Change:
        """Raise a limit of a payer for a time.

        Args:
            payer: As of :meth:`raise_limit`, and so the others.
            unit: What is counted.
            value: The limit.
            until: The end, with a time zone; or how long from now on. At most 366 days from now.
            reason: Why.
            by: Who does it.
            model: The pattern of models.
            plan: The only plan under which it is boosted.
        """
        now = datetime.fromtimestamp(self._changes.now_s(), UTC)
        if isinstance(until, datetime) and until.tzinfo is None:
            raise ChangeError("until: a time with a time zone is needed, such as 2026-12-01T18:00+00:00.")
        lasting = until if isinstance(until, timedelta) else until - now
        if not timedelta(seconds=1) <= lasting <= _LONGEST_BOOST:
            raise ChangeError("until: a time from 1 second to 366 days from now is needed.")
        return self._limit(BOOST, payer, unit, value, reason, by, model, plan, int((now + lasting).timestamp()))

    def try_limit(
        self,
        payer: str,
        unit: str,
        value: str | int,
        *,
        reason: str,
        by: str,
        model: str | None = None,
        plan: str | None = None,
    ) -> Change:
        """Try another value of a limit on a payer: it decides and counts beside the one that holds, and refuses none.

        What it would have refused is told by :data:`flask_ailimit.request_would_be_refused`. :meth:`undo` ends it. The
        arguments are those of :meth:`raise_limit`; the value may be higher or lower than the one that holds.
        """
        return self._limit(TRY, payer, unit, value, reason, by, model, plan)

    def suspend(self, payer: str, *, reason: str, by: str, tell: str = SUSPENDED) -> Change:
        """Turn the payer's requests away: a 403 with the code ``suspended``, on all routes that are limited by plan.

        Args:
            payer: Who, such as ``user:7``.
            reason: Why. Clients are not told.
            by: Who does it.
            tell: What the client is told: one line of 1 to 500 characters.
        """
        name = payer_named(payer)
        _require_text("tell", tell, LONGEST_TEXT)

        def make(trail: Trail) -> Change:
            before = trail.in_force.get(name, InForce()).suspended
            if before == tell:
                raise ChangeError(f"{name} is suspended already, and told the same.")
            was = "not suspended" if before is None else f"suspended: {before}"
            return Change(kind=SUSPEND, payer=name, words=tell, before=was)

        return self._append(make, reason, by)

    def resume(self, payer: str, *, reason: str, by: str) -> Change:
        """End a suspension.

        Args:
            payer: Who, such as ``user:7``.
            reason: Why.
            by: Who does it.
        """
        name = payer_named(payer)

        def make(trail: Trail) -> Change:
            before = trail.in_force.get(name, InForce()).suspended
            if before is None:
                raise ChangeError(f"{name} is not suspended.")
            return Change(kind=RESUME, payer=name, before=f"suspended: {before}")

        return self._append(make, reason, by)

    def move(self, payer: str, plan: str | None, *, reason: str, by: str) -> Change:
        """Move a payer to a plan, whatever plan the app names for it.

        Args:
            payer: Who, such as ``user:7``.
            plan: The name of the plan; None for the one that the app names.
            reason: Why.
            by: Who does it.
        """
        name = payer_named(payer)
        if name.role == SERVICE:
            raise ChangeError("service: everybody together has no plan but [service].")
        if plan is not None:
            self._plan(plan)

        def make(trail: Trail) -> Change:
            before = trail.in_force.get(name, InForce()).plan
            if before == plan:
                raise ChangeError(f"{name} has {plan or 'the plan that the app names'} already.")
            return Change(kind=MOVE, payer=name, plan=plan, before=before or "the plan that the app names")

        return self._append(make, reason, by)

    def credit(
        self,
        payer: str,
        amount: str,
        *,
        reason: str,
        by: str,
        until: datetime | timedelta | None = None,
        begins: datetime | None = None,
    ) -> Change:
        """Grant credit to a payer, which it may use beside its budget.

        A request takes first what is left of the budget, and then credit: of several grants those that end soonest.
        Credit is for the budget of the payer's plan over all models that is in the same unit; of several for the one
        with the longest window, and the others still hold. Under a plan without such a budget it waits. :meth:`undo`
        takes back what was not used.

        Args:
            payer: Who, such as ``user:7``.
            amount: How much, such as ``20 USD``; of a unit whose budget is no money, such as ``1000000 tokens``.
            reason: Why.
            by: Who does it.
            until: When what is left is lost: a time with a zone, or how long from the beginning on. None: never.
            begins: From when on it may be used, a time with a zone. None: at once.

        Raises:
            ChangeError: Also if no plan that the payer may have has such a budget, if the payer has 64 grants in this
                unit already or more than 2**53 - 1 units by them, or if the store may lose the credit.
        """
        name = payer_named(payer)
        if isinstance(amount, str) and amount.lstrip()[:1] in ("-", "\N{MINUS SIGN}"):
            raise ChangeError(
                f"credit: {amount.strip()[:60]}: to take credit back, undo its grant: what was used of it stays used, "
                f"and the rest is gone. See: flask ailimit changes {name}"
            )
        with _as_change_errors():
            self._require_durability()
            granted, unit = amount_of(amount)
            credit = Credit(unit, granted, *lasting(begins, until, int(self._changes.now_s())))

        def make(trail: Trail) -> Change:
            known = trail.in_force.get(name, InForce())
            with _as_change_errors():
                require_budget(name, unit, self._budgets(name, known))
                require_room(name, credit, known.grants.get(unit, ()), self._changes.now_s())
            return Change(kind=CREDIT, payer=name, credit=credit)

        return self._append(make, reason, by)

    def undo(self, number: int, *, reason: str, by: str) -> Change:
        """Undo a change: from now on it is as if it had never been made. An ``undo`` itself can't be undone.

        Args:
            number: That of the change in the trail.
            reason: Why.
            by: Who does it.
        """

        def make(trail: Trail) -> Change:
            change = trail.entries.get(number)
            if change is None:
                raise ChangeError(f"There is no change {number}. See: flask ailimit changes")
            if change.payer is None:
                raise ChangeError(f"Change {number} ({change.kind}) can't be undone. Make the change again.")
            if not trail.can_undo(number):
                raise ChangeError(f"Change {number} is undone already, by change {trail.undone[number]}.")
            return Change(kind=UNDO, undone=number)

        return self._append(make, reason, by)

    def reload(self, *, reason: str, by: str) -> Change:
        """Have every process read its plan file again. Where that can't be read, the plans stay as they were.

        Args:
            reason: Why.
            by: Who does it.
        """
        try:
            self._read_again()
        except ConfigurationError as error:
            raise ChangeError(f"The plans stay as they are. {error}") from error
        return self._append(lambda _: Change(kind=RELOAD), reason, by)

    def forget(self, payer: str, *, reason: str, by: str) -> Change:
        """Forget a payer: its counts, and its entries in the trail, for good. The others keep their numbers.

        The trail then says that somebody was forgotten, and not who. What is suspended is so no more.

        Args:
            payer: Who, such as ``user:7``.
            reason: Why. Don't name the payer in it.
            by: Who does it.
        """
        name = payer_named(payer)

        def make(trail: Trail) -> Change:
            return Change(kind=FORGET, forgotten=tuple(trail.of_payer(name)))

        change = self._append(make, reason, by)
        self._forget_counts(name)
        return change

    def changes(self, payer: str | None = None) -> list[Change]:
        """The trail, in order: all of it, or what is about one payer.

        Raises:
            ChangeError: There is no such payer.
            StoreError: The store can't answer.
        """
        name = None if payer is None else payer_named(payer)
        self._changes.look()
        trail = self._changes.trail
        return [*trail.entries.values()] if name is None else [trail.entries[each] for each in trail.of_payer(name)]

    def undone(self) -> Mapping[int, int]:
        """The numbers of undone changes, each with that of the entry that undid it, as of the last look."""
        return self._changes.trail.undone

    def may_lose_changes(self) -> str | None:
        """When the trail may be lost, and what to do; None if it stays, or if that can't be seen."""
        store = self._changes.store
        return None if store is None else store.may_lose_changes()

    @property
    def _plans(self) -> Plans:
        return self._plans_now()

    def _limit(
        self,
        kind: str,
        payer: str,
        unit: str,
        value: str | int,
        reason: str,
        by: str,
        model: str | None,
        plan: str | None,
        until: int | None = None,
    ) -> Change:
        name = payer_named(payer)
        if unit == BUDGET:
            unit = _unit_of_budget(value)
        text, (period, every) = _value(unit, value)
        limit = WhichLimit(unit, period, model, every)

        def make(trail: Trail) -> Change:
            known = trail.in_force.get(name, InForce())
            # A plan that the file has no more is that of nobody: the app names one, as in requests.
            only = plan or (known.plan if known.plan in self._plans.plans else None)
            before = self._before(name, known, limit, only)
            _require_direction(kind, name, unit, text, before)
            source = Source(kind if kind in (BOOST, TRY) else "change", until)
            for each in before:
                self._require_countable(each, limit, text, source)
            return Change(
                kind=kind,
                payer=name,
                limit=limit,
                value=text,
                plan=None if name.role == SERVICE else only,
                until=until,
                before=_before_in_words(before),
            )

        return self._append(make, reason, by)

    def _before(self, payer: PayerName, known: InForce, limit: WhichLimit, only: str | None) -> dict[Plan, str | int]:
        """The plans that the payer may have, and that have the limit, each with the value that holds under it."""
        candidates = self._candidates(payer, only)
        found: dict[Plan, str | int] = {}
        subject = self._subject_of(payer)
        for each in candidates:
            plan = as_tried(each, subject)
            now = derived(plan, known.values(plan.name, self._changes.now_s(), with_boosts=False))
            value = limits_in(now).get(limit)
            if value is not None:
                assert isinstance(value.value, str | int)  # noqa: S101  what has a number is no UNLIMITED
                found[plan] = value.value
        if not found:
            raise ChangeError(
                f"{payer} has no limit on {limit} in this window. {_hint(candidates, limit)}There are: "
                f"{_limits_in_words(candidates)}."
            )
        return found

    def _budgets(self, payer: PayerName, known: InForce) -> list[tuple[str, Quota]]:
        """The budgets over all models that hold for a payer under the plans that it may have, with their names."""
        found: list[tuple[str, Quota]] = []
        for each in self._candidates(payer, known.plan if known.plan in self._plans.plans else None):
            plan = as_tried(each, self._subject_of(payer))
            holding = [limit for limit in self._limits_of(plan)[plan, None] if limit.enforced_percent != NO_PAYERS]
            quotas = [quota for limit in holding for quota in limit.static_quotas()]
            found += [(plan.name, quota) for quota in quotas if is_budget(quota)]
        return found

    def _candidates(self, payer: PayerName, only: str | None) -> list[Plan]:
        """The plans that a payer may have."""
        if payer.role == SERVICE:
            if self._plans.service is None:
                raise ChangeError("service: the plans have no [service], so everybody together has no limits.")
            return [self._plans.service]
        return [*self._plans.plans.values()] if only is None else [self._plan(only)]

    def _require_countable(self, plan: Plan, limit: WhichLimit, value: str | int, source: Source) -> None:
        try:
            self._limits_of(derived(plan, ((limit, value, source),)))
        except ConfigurationError as error:
            raise ChangeError(f"{plan.name}: {error}") from error

    def _plan(self, name: str) -> Plan:
        found = self._plans.plans.get(name)
        if found is None:
            close = get_close_matches(str(name)[:64], [*self._plans.plans], n=1)
            hint = f"Did you mean {close[0]}? " if close else ""
            names = [*self._plans.plans][:_MOST_SHOWN]
            raise ChangeError(f"There is no plan {name!r:.66}. {hint}The plans are {', '.join(names)}.")
        return found

    def _append(self, make: Callable[[Trail], Change], reason: str, by: str) -> Change:
        """Append the change that ``make`` makes of what the trail says, with its author, reason and time."""
        store = self._changes.store
        if store is None:
            raise ChangeError("The store keeps no changes of plans. Use local://, memory:// or a Redis.")
        asked: tuple[str, int] | None = None
        for _ in range(_TRIES):
            self._changes.look()
            trail = self._changes.trail
            if asked and (entry := trail.entries.get(asked[1])) and written(entry) == asked[0]:
                return entry  # The store was asked twice, because a connection broke, and answered to the second time.
            change = make(trail)
            _require_text("reason", reason, LONGEST_TEXT)
            _require_text("by", by, LONGEST_NAME)
            change = replace(change, at=int(self._changes.now_s()), by=by, reason=reason)
            asked = written(change), trail.last + 1
            _require_readable(*asked)
            if store.add_change(asked[0], trail.last, change.forgotten):
                self._changes.look()
                return replace(change, number=asked[1])
        raise StoreError("Others change plans at the same time, or the trail was lost: see the log. Try again.")


@contextmanager
def _as_change_errors() -> Iterator[None]:
    """Raise each ConfigurationError of the block as a ChangeError."""
    try:
        yield
    except ConfigurationError as error:
        raise ChangeError(str(error)) from error


def payer_named(text: str) -> PayerName:
    """The payer that a text such as ``user:7`` names. The id may have colons.

    Raises:
        ChangeError: It names none.
    """
    role, colon, name = text.partition(":")
    if text == SERVICE:
        return EVERYBODY
    if not colon or not (is_role(role) or role == ADDRESS) or not is_text(name, LONGEST_ID):
        raise ChangeError(
            f"A payer is a role and an id of 1 to {LONGEST_ID} printable characters, such as user:7 or "
            f"organisation:acme, or it is service. Got {text[:80]!r}."
        )
    return PayerName(role, name)


def _unit_of_budget(value: str | int) -> str:
    try:
        return unit_of_money(value)
    except ConfigurationError as error:
        raise ChangeError(str(error)) from error


def _value(unit: str, value: str | int) -> tuple[str | int, Window]:
    """The value of a limit in one spelling, and its window."""
    is_number = isinstance(value, int) or (isinstance(value, str) and value.isascii() and value.isdigit())
    if unit == CONCURRENCY:
        if not is_number or isinstance(value, bool) or not 1 <= int(value) < 2**53:
            raise ChangeError(
                f"concurrency: a number of calls in flight is needed, such as 4. Got {str(value)[:80]!r}."
            )
        return int(value), (0, "")
    if isinstance(value, str) and not is_money(unit) and _NOTHING.match(value):
        raise ChangeError(
            f"{unit}: {value.strip()[:80]} would let nothing through, and can't be tried. "
            "To stop the payer, suspend it."
        )
    try:
        part = limit_of_text(value if isinstance(value, str) else repr(value)[:80], unit)
    except ConfigurationError as error:
        raise ChangeError(str(error)) from error
    return part.spelled, (part.period, part.every)


def _require_direction(
    kind: str, payer: PayerName, unit: str, value: str | int, before: Mapping[Plan, str | int]
) -> None:
    """Refuse what may be a typing error: a raise that lowers, or the other way round."""
    is_right = [_is_right(kind, number_of(value, unit), number_of(was, unit)) for was in before.values()]
    if all(is_right):
        return
    if kind == TRY:
        raise ChangeError(f"try: {value_in_words(value)} is what {payer} has now, so nothing would be seen.")
    wanted = "lower" if kind == LOWER else "higher"
    which = f" Of several plans, name the one that {payer} has (--plan)." if any(is_right) else ""
    raise ChangeError(
        f"{kind}: {value_in_words(value)} is not {wanted} than {_before_in_words(before)}, "
        f"which {payer} has now.{which}"
    )


def _is_right(kind: str, number: int, before: int) -> bool:
    if kind == TRY:
        return number != before
    return number < before if kind == LOWER else number > before


def _before_in_words(before: Mapping[Plan, str | int]) -> str:
    texts = {value_in_words(value) for value in before.values()}
    if len(texts) == 1:
        return texts.pop()
    return ", ".join(f"{value_in_words(value)} ({plan.name})" for plan, value in [*before.items()][:_MOST_SHOWN])


def _hint(plans: Iterable[Plan], limit: WhichLimit) -> str:
    """What may have been meant by a limit that none of the plans has."""
    every = {each for plan in plans for each in limits_in(plan)}
    units = {each.unit for each in every}
    if limit.unit not in units:
        if is_money(limit.unit):  # A currency that is much like it is another one all the same.
            return ""
        close = get_close_matches(limit.unit[:64], sorted(units), n=1)
        return f"Did you mean {close[0]}? " if close else ""
    models = sorted({each.model for each in every if each[:2] == limit[:2] and each.model is not None})
    if models:
        return f"There is one for models: --model {' or '.join(quote(each) for each in models[:_MOST_SHOWN])}. "
    return ""


def _limits_in_words(plans: Iterable[Plan]) -> str:
    found = [
        f"{limit} {value_in_words(each.value)} ({plan.name})"  # type: ignore[arg-type]  # UNLIMITED has no window
        for plan in plans
        for limit, each in limits_in(plan).items()
    ]
    return ", ".join(found[:_MOST_SHOWN]) or "none with a number"


def _require_readable(text: str, number: int) -> None:
    """Refuse an entry that no process could read again: the trail would be damaged by it."""
    try:
        read(number, text)
    except StoreError as error:
        raise ChangeError(f"Nothing was changed, because the trail can't keep this. {error}") from error


def _require_text(what: str, text: object, longest: int) -> None:
    if not is_text(text, longest):
        raise ChangeError(f"{what}: a text of one line is needed, of 1 to {longest} characters. Got {text!r:.80}.")
