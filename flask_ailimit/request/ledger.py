"""What one request owes: its open reservations, and its real usage as far as it is known."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from flask import Flask, Request, Response
from werkzeug.exceptions import HTTPException

from flask_ailimit.app_state import AppState
from flask_ailimit.engine import AILimitError, Charge, Decision, Engine, Reservation, Verdict
from flask_ailimit.engine.forking import lineage
from flask_ailimit.engine.quota import (
    CONCURRENCY,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    TOKEN_UNITS,
    TOKENS,
    is_money,
    is_of_tokens,
    is_own,
)
from flask_ailimit.engine.reservation import ActualOf, Ended, end_together
from flask_ailimit.http.errors import OwnAnswer, QuotaExceeded
from flask_ailimit.http.responses import is_request_id, new_request_id
from flask_ailimit.limits.flask_limiter_access import FlaskLimiterAccess
from flask_ailimit.limits.phase import LimitCharge, Phase
from flask_ailimit.limits.plans.selection import PlannedPayer, Selection
from flask_ailimit.money import Money, currency_of
from flask_ailimit.money.cost import Cost
from flask_ailimit.signals import tell, usage_settled
from flask_ailimit.tokens import Estimate, Usage
from flask_ailimit.tokens.units import added

from .pricing import IMAGES, Pricing
from .soft_limits import tell_passed

_log = logging.getLogger("flask_ailimit")

NO_USAGE = Usage()
_NOTHING: Mapping[str, int] = MappingProxyType({})

ADDRESS = "address"
"""The name of the phase of the limits by address, and of their counts."""

RECORDED = "recorded"
REPORTED = "reported"
COUNTED = "counted"
RESERVED = "reserved"
COMPLETE = "complete"
FAILED = "failed"
ABANDONED = "abandoned"
HANDED_OVER = "handed_over"


class Ledger:
    """What one request owes to one limiter.

    Attributes:
        app: The app that serves the request.
        app_state: What belongs to the app: settings, engine, token counter.
        flask_limiter: Gives access to the Flask-Limiter part of the limiter.
        root: The phase before the first one; None if phases are not kept.
        phase: The latest phase of the request, if it is kept; else None.
        engine: Decides the latest phase: :meth:`engine_now` when it began.
        reservations: The reservations that are not ended yet, one for each phase of the request.
        decision: The verdicts of all phases so far.
        is_limited: Whether any limit so far holds, and is not only tried.
        by_address_only: Whether all that hold so far are limits by address: it isn't known whose request it is.
        counts_tokens: Whether any phase has a limit on tokens.
        counts_units: Whether any phase has a limit on tokens or on a unit of the app's own.
        needs_settling: Whether a reservation must be settled: its cost may still change, it holds a slot, or a limit
            is nearly used up, which somebody has to tell.
        identities: The identity that each key function named when it was called last.
        limits: The limits of the latest phase, with their charges.
        refused: Those of them that refused.
        refusal: The error that was raised, if a limit refused.
        turned_away: The error that was raised last: a refusal, a 503, or a final answer (400, 403, 413).
        payers: The request's payers with their plans, once they are found out; see :mod:`.payers`.
        suspended: What the client is told, if one of the payers is suspended; else None.
        unidentified: The error that was raised because the payers or their plans can't be found out.
        selection: The limits of plans that hold for the request, once they are found out.
        models: Every model that the request's body names, once it was read; None if they can't be told.
        estimates: The tokens that the request may use, once they are estimated, by the output that is reserved if it
            names no maximum.
        invalid: The error to raise before the view, because the request's body can't be read.
        recorded_units: What the view recorded in units of the app's own.
        pricing: What it costs in money, and in tokens that are weighed.
        streaming: The end of a stream settles what is owed.
        closed: The response is closed, or its work was handed over: usage that is recorded now comes too late.
        deductions: Charges that cost nothing unless the response says so (Flask-Limiter's ``deduct_when``).
        waived: Those of them that the response made free.
        limited_function: The qualified name of the function whose limits are being decided, if it is one.
        before_view: Whether the limits are being decided before Flask calls the view.
        decided: Names of wrapped functions whose limits were decided with those of the wrapper around them.
        status: The response's HTTP status, once there is one.
        settlements: How often the request was settled.
        asked: What the view's calls to upstreams have used.
        is_reused: Whether one of them was answered from a cache.
    """

    engine: Engine
    reservations: Sequence[Reservation] = ()
    decision: Decision | None = None
    is_limited = False
    by_address_only = True
    counts_tokens = False
    counts_units = False
    needs_settling = False
    limits: Sequence[LimitCharge] = ()
    refused: Sequence[LimitCharge] = ()
    refusal: QuotaExceeded | None = None
    turned_away: OwnAnswer | None = None
    invalid: HTTPException | None = None
    payers: tuple[PlannedPayer, ...] = ()
    suspended: str | None = None
    unidentified: HTTPException | None = None
    selection: Selection | None = None
    models: Sequence[object] | None = ()
    recorded_units: Mapping[str, int] = _NOTHING
    streaming = False
    closed = False
    deductions: Sequence[tuple[Charge, Callable[[Response], bool]]] = ()
    waived: Sequence[Charge] = ()
    limited_function: str | None = None
    before_view = True
    decided: frozenset[str | None] = frozenset()
    status: int | None = None
    settlements = 0
    asked: Usage = NO_USAGE
    is_reused = False
    _recorded: Usage | None = None
    _ended: tuple[Sequence[Reservation], ActualOf] | None = None
    _settled: tuple[Usage | None, Mapping[str, int]] = None, _NOTHING
    _answer_used: Usage = NO_USAGE
    _usage_sent: Usage = NO_USAGE
    _units_sent: Mapping[str, int] = _NOTHING
    _charged_sent: Mapping[str, int] = _NOTHING
    _nano_sent = 0

    def __init__(self, app: Flask, app_state: AppState, flask_limiter: FlaskLimiterAccess, request: Request) -> None:
        self.app = app
        self.app_state = app_state
        self.flask_limiter = flask_limiter
        self.root = self.phase = flask_limiter.registry.root if flask_limiter.handles_store_errors else None
        self.identities: dict[Callable[[], str], list[str]] = {}
        self.estimates: dict[int, Estimate] = {}
        self.pricing = Pricing(app_state)
        self._request = request
        self._paid: dict[tuple[bytes, bytes], int] = {}
        self._id: str | None = None
        self._lineage = lineage()

    @property
    def recorded(self) -> Usage | None:
        """The tokens that the view recorded.

        If it recorded none and has an answer from a cache, they are those of its calls that were really made.
        """
        return self.asked if self._recorded is None and self.is_reused else self._recorded

    def engine_now(self) -> Engine:
        """The app's engine, or the engine in memory while Flask-Limiter's fallback is in use."""
        return self.flask_limiter.fallback_in_use or self.app_state.engine

    @property
    def answer_facts(self) -> dict[str, str]:
        """The arguments of each error that we raise for this request: ``request_id`` and ``error_format``."""
        return {"request_id": self.request_id, "error_format": self.app_state.settings.error_format}

    @property
    def request_id(self) -> str:
        """The id of the request on its answer, in a refusal and in events."""
        if self._id is None:  # A cached property takes a lock.
            self._id = new_request_id()
        return self._id

    @property
    def endpoint(self) -> str | None:
        """Flask's name of the view."""
        return self._request.endpoint

    @property
    def client_request_id(self) -> str | None:
        """The id that the client sent, if it is fit for a header; else None."""
        sent: str | None = self._request.environ.get("HTTP_X_REQUEST_ID")
        return sent if sent is not None and is_request_id(sent) else None

    def add(self, reservation: Reservation, phase: Phase) -> None:
        """Add the reservation of one phase."""
        self.counts_tokens = self.counts_tokens or phase.counts_tokens
        self.counts_units = self.counts_units or phase.counts_units
        self.needs_settling = self.needs_settling or phase.needs_settling
        decision = reservation.decision
        if phase.has_soft_percent and not self.needs_settling:
            self.needs_settling = any(verdict.is_near for verdict in decision.verdicts)
        self.decision = self.decision.joined(decision) if self.decision else decision
        if reservation.allowed:
            self.reservations = [*self.reservations, reservation]

    def limited(self) -> None:
        """Note that a limit of the current phase holds, and is not only tried."""
        self.is_limited = True
        self.by_address_only = self.by_address_only and self.limited_function == ADDRESS

    def record(self, usage: Usage | None, units: Mapping[str, int], cost: Money | None = None) -> bool:
        """Add usage of the view, which may call its model several times. Returns False if the ledger is closed.

        Args:
            usage: Tokens; None if the view says nothing about them.
            units: Units of the app's own.
            cost: What the tokens cost, if the app names it.
        """
        if self.closed:
            return False
        if usage is not None:
            self._recorded = self._recorded + usage if self._recorded else usage
        self.pricing.record(usage, cost, units.get(IMAGES, 0))
        self.recorded_units = added(self.recorded_units, units)
        if self._ended and not self.reservations:
            # The response is settled: its last event has left, or an after_request function records. Charge it now.
            self.settle(self.recorded, RECORDED, COMPLETE)
        return True

    def waive(self, response: Response | None) -> None:
        """Find the conditional charges that the response makes free (without one: all), and correct the decision."""
        if not self.deductions:
            return
        self.waived = [
            charge for charge, when in self.deductions if response is None or not _deducts(when, response, charge)
        ]
        if self.waived and self.decision:
            self.decision = self.decision.without(self.waived)

    def settle(self, usage: Usage | None, source: str, ending: str, *, failed: bool = False) -> None:
        """Charge what the request has used until now; with the source ``reserved``, at least what was reserved.

        Of a unit of the app's own, what was recorded is charged; without a record, what was reserved, and nothing if
        the request ``failed``.

        A second call charges what was used since the first. It gives nothing back, because another request may have
        taken what the first gave back. Its usage may be None: no tokens since the first.
        """
        if self._lineage != lineage():
            return  # A child process has only a copy.
        again = self._ended is not None
        self._answer_used = usage or self._answer_used
        if not again and not self.needs_settling:  # Only requests are limited, and they cost what was reserved.
            self._conclude(self.take(), _cost, usage or NO_USAGE, source, ending, failed=failed)
            return
        used = {**self._by_unit(usage), **self.recorded_units} if self.recorded_units else self._by_unit(usage)
        # Images may have been recorded since, and nothing of the tokens.
        priced = self.pricing.units_used(self._answer_used, failed=failed)
        usage = usage or NO_USAGE
        self._note_paid()

        def actual_of(charge: Charge) -> int:
            count = charge.counted_in
            units = priced[count] if count in priced else used.get(charge.quota.unit)
            if again:
                return 0 if units is None else max(0, units - self._paid.get(charge.counted_in, 0))
            if self.waived and any(charge is waived for waived in self.waived):
                return 0
            if units is None:
                return 0 if failed and is_own(charge.quota.unit) else charge.cost
            return max(charge.cost, units) if source == RESERVED and is_of_tokens(charge.quota.unit) else units

        if again and not self.reservations and any(map(actual_of, self._ended_charges())):
            self.resume()
        taken = self.take()
        if not taken:
            self._tell_uncounted(usage, source, ending)
            return
        ended = _end_all(taken, actual_of)
        if ended.was_open:
            self._conclude(taken, actual_of, usage, source, ending, failed=failed)
        self.tell_of_passed(ended.passed)

    def _conclude(
        self,
        ended: Sequence[Reservation],
        actual_of: ActualOf,
        usage: Usage,
        source: str,
        ending: str,
        *,
        failed: bool = False,
    ) -> None:
        """Remember what was settled, and send :data:`flask_ailimit.usage_settled`."""
        if ended:
            self._ended = ended, actual_of
            self._note_settled()
            self.settlements += 1
            # A stranger's request that only its address was charged for is on nobody's bill.
            is_billed = self.is_limited and (source == RECORDED or not self.by_address_only)
            if usage_settled.receivers and is_billed:
                self._tell(usage, source, ending, failed=failed)

    def _note_settled(self) -> None:
        """Note that all that was recorded is paid, and is no part of what is handed over."""
        self._settled = self.recorded, self.recorded_units
        self.pricing.settled = len(self.pricing.calls)

    def resume(self) -> None:
        """Take the slots again, because the response goes on after it was settled. Requests alone are paid for."""
        if self._ended and self.needs_settling and not self.reservations and self._lineage == lineage():
            try:
                self.reservations = [each.reopen() for each in self._ended[0]]
            except AILimitError as error:
                _log.error("An answer goes on, and its slot could not be taken again: %s", error)

    def settle_after_refusal(self) -> None:
        """End every reservation of a refused request: charge the recorded usage, or nothing if there is none."""
        if self._recorded is None and not self.recorded_units:
            self.cancel()
        else:
            self.settle(self._recorded or NO_USAGE, RECORDED, COMPLETE, failed=True)

    def cancel(self) -> None:
        """Give back everything, requests too, because the request was refused, and correct the decision."""
        if self.decision:
            taken = [verdict.charge for each in self.reservations for verdict in each.decision.taken]
            self.decision = self.decision.without(taken)
        _end_all(self.take(), lambda _: 0)

    def take(self) -> Sequence[Reservation]:
        """Remove and return the open reservations. The caller ends them."""
        taken, self.reservations = self.reservations, ()
        return taken

    def to_hand_over(self) -> Sequence[Reservation]:
        """The open reservations. Those of a request that was settled are taken again, for what its work still uses."""
        self.resume()
        return self.reservations

    def handed_over(self) -> None:
        """Note that others end the reservations. The request itself is charged nothing more."""
        self.closed, self._ended, self.reservations = True, None, ()

    @property
    def recorded_since(self) -> tuple[Usage | None, Mapping[str, int]]:
        """What the view recorded since the latest settlement: tokens, None if it named none, and other units."""
        usage, units = self._settled
        since = None if self.recorded == usage else (self.recorded or NO_USAGE).beyond(usage or NO_USAGE)
        return since, _units_since(self.recorded_units, units)

    def _by_unit(self, usage: Usage | None) -> dict[str, int]:
        """The counted tokens of a usage by unit; empty if no limit is on tokens."""
        if usage is None or not self.counts_tokens:
            return {}
        return units_of(usage, count_cached=self.app_state.settings.count_cached_tokens)

    def _ended_charges(self) -> Iterator[Charge]:
        """The charges of the latest settlement."""
        for reservation in self._ended[0] if self._ended else ():
            for verdict in reservation.decision.taken:
                yield verdict.charge

    def _note_paid(self) -> None:
        """Add the latest settlement to the sum charged to each count. Only a request that settles twice needs it."""
        if self._ended:
            self._paid = self._paid_with_latest()
            self._ended = self._ended[0], _nothing

    def _paid_with_latest(self) -> dict[tuple[bytes, bytes], int]:
        """The sum charged to each count until now. Several calls of a limited function are charged to one count."""
        paid = {**self._paid}
        if self._ended:
            actual_of = self._ended[1]
            for charge in self._ended_charges():
                paid[charge.counted_in] = paid.get(charge.counted_in, 0) + actual_of(charge)
        return paid

    def _tell_uncounted(self, usage: Usage, source: str, ending: str) -> None:
        """Send an event of what was recorded since the latest settlement, if no limit counts it: a bill may need it."""
        is_more = usage.total_tokens > self._usage_sent.total_tokens or self.recorded_units != self._units_sent
        if self._ended and is_more and source == RECORDED and usage_settled.receivers:
            self._conclude(self._ended[0], _nothing, usage, source, ending)
        if self._ended:
            self._note_settled()  # What was charged before covers it.

    def tell_of_passed(self, passed: Sequence[Verdict]) -> None:
        """Send :data:`flask_ailimit.soft_limit_passed` for each of these limits."""
        if not passed:
            return
        payers = {
            payer.subject.hex(): {"role": payer.role, "plan": payer.plan.name, "label": payer.label}
            for payer in self.payers
        }
        tell_passed(self.app, passed, payers, endpoint=self.endpoint, request_id=self.request_id)

    def _tell(self, usage: Usage, source: str, ending: str, *, failed: bool) -> None:
        paid = most_by_unit(self._ended_charges(), self._paid_with_latest())
        charged = {unit: amount - self._charged_sent.get(unit, 0) for unit, amount in paid.items()}
        self._charged_sent = paid
        since = usage_of(charged) if source == RESERVED else usage.beyond(self._usage_sent)
        self._usage_sent = self._usage_sent + since
        units = _units_since(self.recorded_units, self._units_sent)
        self._units_sent = self.recorded_units
        known = None if source == RESERVED else self._answer_used
        cost = charged_money(charged, self.pricing, known, failed=failed)
        if cost is None and known is not None:
            cost = self.pricing.cost_told(known, failed=failed)
            if cost is not None:
                cost = replace(cost, nano=max(0, cost.nano - self._nano_sent))
                self._nano_sent += cost.nano
        tell(
            usage_settled,
            self.app,
            number=self.settlements,
            usage=since,
            units=units,
            source=source,
            charged=charged,
            cost=cost,
            ending=ending,
            status=self.status,
            **self.facts,
        )

    @property
    def decision_told(self) -> Decision | None:
        """The decision as the app sees it: None if every limit so far is only tried."""
        return self.decision if self.is_limited else None

    @property
    def facts(self) -> dict[str, object]:
        """The facts that every event about this request has."""
        return {
            "decision": self.decision_told,
            "subject": self.subject.hex(),
            "endpoint": self.endpoint,
            "request_id": self.request_id,
            "client_request_id": self.client_request_id,
            **self.facts_of_plan,
        }

    @property
    def facts_of_plan(self) -> dict[str, str | None]:
        """The plan and the label of the first payer, and the pattern that the model matched."""
        first = self.payers[0] if self.selection is not None else None
        return {
            "plan": None if first is None else first.plan.name,
            "label": None if first is None else first.label,
            "model": None if self.selection is None else self.selection.pattern,
        }

    @property
    def subject(self) -> bytes:
        """The subject of the first limit on tokens; without one, of the first limit; without any, empty.

        If the request is limited by plan, the subject is its first payer.
        """
        if self.selection is not None:
            return self.payers[0].subject
        verdicts = self.decision.verdicts if self.decision else ()
        charges = [verdict.charge for verdict in verdicts if not verdict.charge.shadow]
        of_tokens = [charge for charge in charges if charge.quota.unit in TOKEN_UNITS]
        return next((charge.subject for charge in of_tokens or charges), b"")


def units_of(usage: Usage, *, count_cached: bool) -> dict[str, int]:
    """The counted tokens of a usage by unit, with or without input from the model's cache."""
    counted = usage if count_cached else usage.without_cached()
    return {unit: counted.of(unit) for unit in TOKEN_UNITS}


def _end_all(reservations: Sequence[Reservation], actual_of: ActualOf) -> Ended:
    try:
        return end_together(reservations, actual_of)
    except AILimitError as error:
        # The answer is sent all the same. What was reserved stays charged, and leases end, as time goes by.
        # Logged as text: a handler that kept the error would keep the reservations in its traceback, too.
        _log.error("A request was not settled: %s", str(error))
        return Ended(was_open=False, passed=())


def _deducts(when: Callable[[Response], bool], response: Response, charge: Charge) -> bool:
    try:
        return when(response)
    except Exception as error:
        if not charge.shadow:
            raise
        _log.warning("deduct_when: %r raised %s for a limit that is only tried", when, type(error).__name__)
        return False


def _nothing(_: Charge) -> int:
    return 0


def _cost(charge: Charge) -> int:
    return charge.cost


def most_by_unit(charges: Iterable[Charge], counts: Mapping[tuple[bytes, bytes], int]) -> dict[str, int]:
    """What was charged of each unit but slots: of several counts of a unit, to that which was charged most.

    What was only tried was charged to nobody.
    """
    most: dict[str, int] = {}
    for charge in charges:
        unit = charge.quota.unit
        if unit != CONCURRENCY and not charge.shadow:
            most[unit] = max(most.get(unit, 0), counts[charge.counted_in])
    return most


def charged_money(charged: Mapping[str, int], pricing: Pricing, usage: Usage | None, *, failed: bool) -> Cost | None:
    """What was charged in money, and by which price; None if no limit is on money.

    Of several currencies it is the first in which anything was charged.

    Args:
        charged: What was charged, by unit.
        pricing: What the request costs.
        usage: What it used; None if that is unknown. Then it was charged what was reserved.
        failed: As of :meth:`.Pricing.units_used`.
    """
    units = [unit for unit in charged if is_money(unit)]
    if not units:
        return None
    unit = next((each for each in units if charged[each]), units[0])
    cost = None if usage is None else pricing.cost_told(usage, unit, failed=failed)
    amount = charged[unit]
    return Cost(amount, currency_of(unit), source=RESERVED) if cost is None else replace(cost, nano=amount)


def usage_of(charged: Mapping[str, int]) -> Usage:
    """Charged tokens as a usage, where the real usage is unknown. Tokens of no known kind count as input."""
    output = charged.get(OUTPUT_TOKENS, 0)
    return Usage.clamped(charged.get(INPUT_TOKENS, max(0, charged.get(TOKENS, 0) - output)), output)


def _units_since(units: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """The amounts beyond those in ``before``, without units of which there is no more."""
    return {unit: amount - before.get(unit, 0) for unit, amount in units.items() if amount != before.get(unit)}
