"""What one request owes: its open reservations, and what is known of its real usage."""

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from flask import Flask, Response

from .engine import AILimitError, Charge, Decision, Reservation
from .engine.quota import TOKEN_UNITS
from .engine.reservation import end_together
from .responses import clean_request_id
from .signals import usage_settled
from .tokens import Estimate, Usage

if TYPE_CHECKING:
    from .errors import QuotaExceeded
    from .planning import Applied, Phase
    from .state import State

_log = logging.getLogger("flask_ailimit")

NOTHING = Usage()


class Tab:
    """One request's account with one limiter.

    Attributes:
        app: The app that serves the request.
        state: What the limiter knows of the app.
        start: Where the request's way began; None if it is not to be looked up.
        phase: How far the request has come, of what is known of its way; None once it left what is known.
        reservations: What was taken, a reservation for each phase of the request.
        decision: The verdicts of all phases so far.
        counts_tokens: Whether any of them is over tokens.
        holds: Whether there is something to end: any of them may change, or holds a slot.
        payers: Whom each key function named, in the latest phase that asked it.
        applied: The limits of the latest phase.
        refused: Those of them that refused.
        refusal: What was raised, if something was refused.
        estimate: What the request may use, once somebody asked.
        recorded: What the view said it used.
        streaming: A stream has taken over the tab and will end it.
        deductions: Charges that cost nothing unless the answer says so (Flask-Limiter's ``deduct_when``).
        waived: Those of them that cost nothing.
        caller: The qualified name of the function whose limits are being decided, if it is one.
        in_middleware: Whether that happens before the view is called.
    """

    reservations: Sequence[Reservation] = ()
    decision: Decision | None = None
    counts_tokens = False
    holds = False
    applied: "Sequence[Applied]" = ()
    refused: "Sequence[Applied]" = ()
    refusal: "QuotaExceeded | None" = None
    estimate: Estimate | None = None
    recorded: Usage | None = None
    streaming = False
    deductions: Sequence[tuple[Charge, Callable[[Response], bool]]] = ()
    waived: Sequence[Charge] = ()
    caller: str | None = None
    in_middleware = True

    def __init__(self, app: Flask, state: "State", start: "Phase | None", asked_id: str | None) -> None:
        self.app = app
        self.state = state
        self.start = self.phase = start
        self.payers: dict[Callable[[], str], list[str]] = {}
        self._asked_id = asked_id

    @cached_property
    def request_id(self) -> str:
        """Names the request in a refusal."""
        return clean_request_id(self._asked_id)

    def add(self, reservation: Reservation, phase: "Phase") -> None:
        """Note the answer of one phase."""
        self.counts_tokens = self.counts_tokens or phase.counts_tokens
        self.holds = self.holds or phase.holds
        decision = reservation.decision
        self.decision = self.decision.joined(decision) if self.decision else decision
        if reservation.allowed:
            self.reservations = [*self.reservations, reservation]

    def record(self, usage: Usage) -> None:
        """Add what the view used; an agent may call its model several times."""
        self.recorded = self.recorded + usage if self.recorded else usage

    def waive(self, response: Response | None) -> None:
        """Ask which conditional charges the answer makes; without an answer, none. The decision shows it."""
        if not self.deductions:
            return
        self.waived = [charge for charge, when in self.deductions if response is None or not when(response)]
        if self.waived and self.decision:
            self.decision = self.decision.without(self.waived)

    def settle(self, usage: Usage) -> bool:
        """End every reservation with what was really used. Answers whether any was open."""
        if not self.holds:
            return self._tell(usage, bool(self._taken()), exact=True)
        used = self._by_unit(usage)

        def actual_of(charge: Charge) -> int:
            if self.waived and any(charge is waived for waived in self.waived):
                return 0
            return used.get(charge.quota.unit, charge.cost)

        return self._end(usage, actual_of, exact=True)

    def settle_at_least(self, usage: Usage) -> bool:
        """End every reservation when more than ``usage`` may have been used: nothing is given back."""
        used = self._by_unit(usage)
        return self._end(usage, lambda charge: max(charge.cost, used.get(charge.quota.unit, 0)), exact=False)

    def settle_refused(self) -> None:
        """End every reservation of a refused request: for nothing, unless its view had used something before."""
        if self.recorded is None:
            self.cancel()
        else:
            self.settle(self.recorded)

    def cancel(self) -> None:
        """Give back everything, requests too: the request was refused. The decision shows it."""
        if self.decision:
            taken = [verdict.charge for each in self.reservations for verdict in each.decision.verdicts]
            self.decision = self.decision.without(taken)
        _end(self._taken(), lambda _: 0)

    def _taken(self) -> Sequence[Reservation]:
        """The reservations, which so aren't the tab's any more."""
        taken, self.reservations = self.reservations, ()
        return taken

    def _by_unit(self, usage: Usage) -> dict[str, int]:
        """What counts of a usage, in each unit of tokens."""
        if not self.counts_tokens:
            return {}
        counted = usage if self.state.settings.count_cached_tokens else usage.without_cached()
        return {unit: counted.of(unit) for unit in TOKEN_UNITS}

    def _end(self, usage: Usage, actual_of: Callable[[Charge], int], *, exact: bool) -> bool:
        return self._tell(usage, _end(self._taken(), actual_of), exact=exact)

    def _tell(self, usage: Usage, ended: bool, *, exact: bool) -> bool:
        if ended and usage_settled.receivers:
            usage_settled.send(self.app, usage=usage, exact=exact, decision=self.decision, request_id=self.request_id)
        return ended


def _end(reservations: Sequence[Reservation], actual_of: Callable[[Charge], int]) -> bool:
    try:
        return end_together(reservations, actual_of)
    except AILimitError as error:
        # What was reserved stays charged until time has paid for it, and leases run out. The answer is not to suffer.
        _log.error("A request was not settled: %s", error)
        return False
