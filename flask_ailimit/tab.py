"""What one request owes: its open reservations, and what is known of its real usage."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from flask import Flask, Request, Response
from werkzeug.exceptions import HTTPException

from .engine import AILimitError, Charge, Decision, Reservation
from .engine.forking import lineage
from .engine.quota import CONCURRENCY, INPUT_TOKENS, OUTPUT_TOKENS, TOKEN_UNITS, TOKENS
from .engine.reservation import ActualOf, end_together
from .responses import is_request_id, new_request_id
from .signals import tell, usage_settled
from .tokens import Estimate, Usage

if TYPE_CHECKING:
    from .errors import QuotaExceeded, Told
    from .planning import Applied, Phase
    from .state import State

_log = logging.getLogger("flask_ailimit")

NOTHING = Usage()

RECORDED = "recorded"
REPORTED = "reported"
COUNTED = "counted"
RESERVED = "reserved"
COMPLETE = "complete"
FAILED = "failed"
ABANDONED = "abandoned"
HANDED_OVER = "handed_over"


class Tab:
    """One request's account with one limiter.

    Attributes:
        app: The app that serves the request.
        state: What the limiter knows of the app.
        start: Where the request's way began; None if it is not to be looked up.
        phase: How far the request has come, of what is known of its way; None once it left what is known.
        reservations: What was taken and is not settled yet, a reservation for each phase of the request.
        decision: The verdicts of all phases so far.
        counts_tokens: Whether any of them is over tokens.
        holds: Whether there is something to end: any of them may change, or holds a slot.
        payers: Whom each key function named, in the latest phase that asked it.
        applied: The limits of the latest phase.
        refused: Those of them that refused.
        refusal: What was raised, if something was refused.
        turned_away: What was raised last: the refusal, a 503, or what no waiting helps against.
        estimate: What the request may use, once somebody asked.
        invalid: What to answer in place of the view, because the request's body can't be taken.
        recorded: What the view said it used.
        streaming: A stream has taken over the tab and will end it.
        closed: The answer is over, or its work was handed over: what is recorded from now on comes too late.
        deductions: Charges that cost nothing unless the answer says so (Flask-Limiter's ``deduct_when``).
        waived: Those of them that cost nothing.
        caller: The qualified name of the function whose limits are being decided, if it is one.
        in_middleware: Whether that happens before the view is called.
        decided: Functions whose limits were decided with those of a function around them, and that are called next.
        status: The answer's HTTP status, once there is one.
    """

    reservations: Sequence[Reservation] = ()
    decision: Decision | None = None
    counts_tokens = False
    holds = False
    applied: "Sequence[Applied]" = ()
    refused: "Sequence[Applied]" = ()
    refusal: "QuotaExceeded | None" = None
    turned_away: "Told | None" = None
    estimate: Estimate | None = None
    invalid: HTTPException | None = None
    recorded: Usage | None = None
    streaming = False
    closed = False
    deductions: Sequence[tuple[Charge, Callable[[Response], bool]]] = ()
    waived: Sequence[Charge] = ()
    caller: str | None = None
    in_middleware = True
    decided: frozenset[str | None] = frozenset()
    status: int | None = None
    _ended: "tuple[Sequence[Reservation], ActualOf] | None" = None

    def __init__(self, app: Flask, state: "State", start: "Phase | None", request: Request) -> None:
        self.app = app
        self.state = state
        self.start = self.phase = start
        self.payers: dict[Callable[[], str], list[str]] = {}
        self._request = request
        self._paid: dict[tuple[bytes, bytes], int] = {}
        self._told = NOTHING
        self._id: str | None = None
        self._lineage = lineage()

    @property
    def request_id(self) -> str:
        """Names the request: on its answer, in a refusal and in events."""
        if self._id is None:  # A cached property takes a lock.
            self._id = new_request_id()
        return self._id

    @property
    def endpoint(self) -> str | None:
        """Flask's name of the view."""
        return self._request.endpoint

    @property
    def client_request_id(self) -> str | None:
        """The id that the client sent, if it is fit for a header."""
        sent: str | None = self._request.environ.get("HTTP_X_REQUEST_ID")
        return sent if sent is not None and is_request_id(sent) else None

    def add(self, reservation: Reservation, phase: "Phase") -> None:
        """Note the answer of one phase."""
        self.counts_tokens = self.counts_tokens or phase.counts_tokens
        self.holds = self.holds or phase.holds
        decision = reservation.decision
        self.decision = self.decision.joined(decision) if self.decision else decision
        if reservation.allowed:
            self.reservations = [*self.reservations, reservation]

    def record(self, usage: Usage) -> bool:
        """Add what the view used; an agent may call its model several times. Answers whether it came in time."""
        if self.closed:
            return False
        self.recorded = self.recorded + usage if self.recorded else usage
        if self._ended and not self.reservations:
            # The last event of the answer has left, or an after_request function is recording: charge it now.
            self.settle(self.recorded, RECORDED, COMPLETE)
        return True

    def waive(self, response: Response | None) -> None:
        """Ask which conditional charges the answer makes; without an answer, none. The decision shows it."""
        if not self.deductions:
            return
        self.waived = [charge for charge, when in self.deductions if response is None or not when(response)]
        if self.waived and self.decision:
            self.decision = self.decision.without(self.waived)

    def settle(self, usage: Usage, source: str, ending: str) -> None:
        """Charge what the request has used until now; of the source ``reserved`` at least what was reserved.

        A second time it charges what has come since. Nothing is given back then, because what the first settlement gave
        back may have been spent by another request.
        """
        if self._lineage != lineage():
            return  # In a child process, which has a copy.
        again, used = self._ended is not None, self._by_unit(usage)
        if again:
            self._note_paid()
        elif not self.holds:  # Only requests are limited, and those are settled as they were reserved.
            self._conclude(self.take(), _cost, usage, source, ending)
            return

        def actual_of(charge: Charge) -> int:
            units = used.get(charge.quota.unit)
            if again:
                return 0 if units is None else max(0, units - self._paid.get((charge.subject, charge.bucket), 0))
            if self.waived and any(charge is waived for waived in self.waived):
                return 0
            if units is None:
                return charge.cost
            return max(charge.cost, units) if source is RESERVED else units

        if again and not self.reservations and any(map(actual_of, self._ended_charges())):
            self.resume()
        taken = self.take()
        if taken and _end_all(taken, actual_of):
            self._conclude(taken, actual_of, usage, source, ending)

    def _conclude(
        self, ended: Sequence[Reservation], actual_of: ActualOf, usage: Usage, source: str, ending: str
    ) -> None:
        """Remember what was settled, and tell it."""
        if ended:
            self._ended = ended, actual_of
            if usage_settled.receivers:
                self._tell(usage, source, ending)

    def resume(self) -> None:
        """Take the slots again, because the answer goes on after it was settled."""
        if self._ended and not self.reservations and self._lineage == lineage():
            try:
                self.reservations = [each.reopen() for each in self._ended[0]]
            except AILimitError as error:
                _log.error("An answer goes on, and its slot could not be taken again: %s", error)

    def settle_refused(self) -> None:
        """End every reservation of a refused request: for nothing, unless its view had used something before."""
        if self.recorded is None:
            self.cancel()
        else:
            self.settle(self.recorded, RECORDED, COMPLETE)

    def cancel(self) -> None:
        """Give back everything, requests too: the request was refused. The decision shows it."""
        if self.decision:
            taken = [verdict.charge for each in self.reservations for verdict in each.decision.verdicts]
            self.decision = self.decision.without(taken)
        _end_all(self.take(), lambda _: 0)

    def take(self) -> Sequence[Reservation]:
        """The open reservations, which from now on are the caller's to end."""
        taken, self.reservations = self.reservations, ()
        return taken

    def _by_unit(self, usage: Usage) -> dict[str, int]:
        """What counts of a usage, in each unit of tokens."""
        if not self.counts_tokens:
            return {}
        return units_of(usage, count_cached=self.state.settings.count_cached_tokens)

    def _ended_charges(self) -> Iterator[Charge]:
        """What the latest settlement was about."""
        for reservation in self._ended[0] if self._ended else ():
            for verdict in reservation.decision.verdicts:
                if not verdict.charge.dry:
                    yield verdict.charge

    def _note_paid(self) -> None:
        """Add the latest settlement to what each count has been paid. Needed by those that settle twice only."""
        if self._ended:
            reservations, actual_of = self._ended
            for charge in self._ended_charges():
                count = charge.subject, charge.bucket
                self._paid[count] = self._paid.get(count, 0) + actual_of(charge)
            self._ended = reservations, _nothing

    def _tell(self, usage: Usage, source: str, ending: str) -> None:
        assert self._ended  # noqa: S101  it is told of what has just ended
        actual_of = self._ended[1]
        charges = [charge for charge in self._ended_charges() if charge.quota.unit != CONCURRENCY]
        charged: dict[str, int] = {}
        for charge in charges:
            charged[charge.quota.unit] = max(charged.get(charge.quota.unit, 0), actual_of(charge))
        if source is RESERVED:
            usage = usage_of(charged)
        since, self._told = _difference(usage, self._told), usage
        tell(
            usage_settled,
            self.app,
            usage=since,
            source=source,
            charged=charged,
            ending=ending,
            status=self.status,
            plan=None,
            model=None,
            label=None,
            **self.facts,
        )

    @property
    def facts(self) -> dict[str, object]:
        """What every event about this request says."""
        return {
            "decision": self.decision,
            "subject": self.subject.hex(),
            "endpoint": self.endpoint,
            "request_id": self.request_id,
            "client_request_id": self.client_request_id,
        }

    @property
    def subject(self) -> bytes:
        """Who pays the tokens; without a limit on tokens, who pays the first limit."""
        charges = [verdict.charge for verdict in self.decision.verdicts] if self.decision else []
        of_tokens = [charge for charge in charges if charge.quota.unit in TOKEN_UNITS]
        return next((charge.subject for charge in of_tokens or charges), b"")


def units_of(usage: Usage, *, count_cached: bool) -> dict[str, int]:
    """What counts of a usage, in each unit of tokens."""
    counted = usage if count_cached else usage.without_cached()
    return {unit: counted.of(unit) for unit in TOKEN_UNITS}


def _end_all(reservations: Sequence[Reservation], actual_of: ActualOf) -> bool:
    try:
        return end_together(reservations, actual_of)
    except AILimitError as error:
        # What was reserved stays charged until time has paid for it, and leases run out. The answer is not to suffer.
        # As text: a handler that keeps the error would keep the reservations that its traceback knows.
        _log.error("A request was not settled: %s", str(error))
        return False


def _nothing(_: Charge) -> int:
    return 0


def _cost(charge: Charge) -> int:
    return charge.cost


def usage_of(charged: Mapping[str, int]) -> Usage:
    """Tokens that were charged without knowing what was used, as a usage: what is not told apart counts as input."""
    output = charged.get(OUTPUT_TOKENS, 0)
    return Usage.clamped(charged.get(INPUT_TOKENS, max(0, charged.get(TOKENS, 0) - output)), output)


def _difference(usage: Usage, before: Usage) -> Usage:
    """What has come since, of each kind. A usage that was first known too high has nothing to add."""
    inputs = max(0, usage.input_tokens - before.input_tokens)
    return Usage.clamped(
        inputs,
        max(0, usage.output_tokens - before.output_tokens),
        max(0, usage.cached_input_tokens - before.cached_input_tokens),
    )
