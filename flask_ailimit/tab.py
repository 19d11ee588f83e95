"""What one request owes: its open reservations, and what is known of its real usage."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from flask import Flask, Response

from .engine import AILimitError, Charge, Decision, Reservation
from .engine.quota import TOKEN_UNITS
from .engine.reservation import end_together
from .errors import QuotaExceeded
from .signals import usage_settled
from .tokens import Estimate, Usage

_log = logging.getLogger("flask_ailimit")

NOTHING = Usage()


@dataclass
class Tab:
    """One request's account with one limiter.

    Attributes:
        app: The app that serves the request.
        request_id: Names the request in a refusal.
        count_cached: Whether input read from the model's cache counts.
        reservations: What was taken, a reservation for each phase of the request.
        decision: The verdicts of all phases so far.
        refusal: What was raised, if something was refused.
        estimate: What the request may use, once somebody asked.
        recorded: What the view said it used.
        streaming: A stream has taken over the tab and will end it.
        deductions: Charges that cost nothing unless the answer says so (Flask-Limiter's ``deduct_when``).
        waived: Those of them that cost nothing.
        caller: The qualified name of the function whose limits are being decided, if it is one.
        in_middleware: Whether that happens before the view is called.
    """

    app: Flask
    request_id: str
    count_cached: bool
    reservations: list[Reservation] = field(default_factory=list)
    decision: Decision | None = None
    refusal: QuotaExceeded | None = None
    estimate: Estimate | None = None
    recorded: Usage | None = None
    streaming: bool = False
    deductions: list[tuple[Charge, Callable[[Response], bool]]] = field(default_factory=list)
    waived: list[Charge] = field(default_factory=list)
    caller: str | None = None
    in_middleware: bool = True

    def add(self, reservation: Reservation) -> None:
        """Note the answer of one phase."""
        decision = reservation.decision
        self.decision = self.decision.joined(decision) if self.decision else decision
        if reservation.allowed:
            self.reservations.append(reservation)

    @property
    def counts_tokens(self) -> bool:
        """Whether any charge is in tokens."""
        verdicts = self.decision.verdicts if self.decision else ()
        return any(verdict.charge.quota.unit in TOKEN_UNITS for verdict in verdicts)

    def record(self, usage: Usage) -> None:
        """Add what the view used; an agent may call its model several times."""
        self.recorded = self.recorded + usage if self.recorded else usage

    def waive(self, response: Response | None) -> None:
        """Ask which conditional charges the answer makes; without an answer, none. The decision shows it."""
        self.waived = [charge for charge, when in self.deductions if response is None or not when(response)]
        if self.waived and self.decision:
            self.decision = self.decision.without(self.waived)

    def settle(self, usage: Usage) -> bool:
        """End every reservation with what was really used. Answers whether any was open."""

        def actual_of(charge: Charge, counted: Usage) -> int:
            if any(charge is waived for waived in self.waived):
                return 0
            return counted.of(charge.quota.unit) if charge.quota.unit in TOKEN_UNITS else charge.cost

        return self._end(usage, actual_of, exact=True)

    def settle_at_least(self, usage: Usage) -> bool:
        """End every reservation when more than ``usage`` may have been used: nothing is given back."""

        def actual_of(charge: Charge, counted: Usage) -> int:
            return max(charge.cost, counted.of(charge.quota.unit)) if charge.quota.unit in TOKEN_UNITS else charge.cost

        return self._end(usage, actual_of, exact=False)

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
        _end(self.reservations, lambda _: 0)

    def _end(self, usage: Usage, actual_of: Callable[[Charge, Usage], int], *, exact: bool) -> bool:
        counted = usage if self.count_cached else usage.without_cached()
        ended = _end(self.reservations, lambda charge: actual_of(charge, counted))
        if ended:
            usage_settled.send(self.app, usage=usage, exact=exact, decision=self.decision, request_id=self.request_id)
        return ended


def _end(reservations: list[Reservation], actual_of: Callable[[Charge], int]) -> bool:
    try:
        return end_together(reservations, actual_of)
    except AILimitError as error:
        # What was reserved stays charged until time has paid for it, and leases run out. The answer is not to suffer.
        _log.error("A request was not settled: %s", error)
        return False
