"""Work that goes on after its answer: a view hands its reservations over, and another process ends them."""

import json
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from types import TracebackType
from typing import Self, Unpack

from flask import Flask

from flask_ailimit.app_state import AppState
from flask_ailimit.engine import Charge, HandedOver
from flask_ailimit.engine.quota import REQUESTS
from flask_ailimit.money import Cost, Money
from flask_ailimit.signals import tell, usage_settled
from flask_ailimit.tokens import Usage
from flask_ailimit.tokens.units import added

from .ledger import HANDED_OVER, NO_USAGE, RECORDED, RESERVED, Ledger, charged_money, most_by_unit, units_of, usage_of
from .pricing import IMAGES, Pricing, Recorded
from .recording import Tokens, record_of
from .soft_limits import tell_passed

_UNITS = "units."
_CALLS = "calls"
_NOTHING = {"input_tokens": 0, "output_tokens": 0}
_TOLD = ("endpoint", "subject", "request_id", "client_request_id", "plan", "model")


def note_of(ledger: Ledger) -> dict[str, str | int]:
    """The facts about the request that the process that takes over needs."""
    facts: dict[str, str | int | None] = {
        "endpoint": ledger.endpoint,
        "subject": ledger.subject.hex(),
        "request_id": ledger.request_id,
        "client_request_id": ledger.client_request_id,
        "settlements": ledger.settlements or None,
        "plan": ledger.facts_of_plan["plan"],
        "model": ledger.facts_of_plan["model"],
    }
    _, units = ledger.recorded_since
    calls = ledger.pricing.calls[ledger.pricing.settled :]
    if calls:
        facts[_CALLS] = _calls_in_json(calls)
    facts |= ledger.pricing.facts()
    facts |= {f"{_UNITS}{unit}": amount for unit, amount in units.items()}
    return {name: fact for name, fact in facts.items() if fact is not None}


def _units_before(note: Mapping[str, str | int]) -> dict[str, int]:
    """The units of the app's own that the view had recorded, and not settled, when it handed over."""
    return {name.removeprefix(_UNITS): int(fact) for name, fact in note.items() if name.startswith(_UNITS)}


def _calls_in_json(calls: Sequence[Recorded]) -> str:
    """What was recorded, call by call; without the zeros, of which there are many."""
    told = []
    for model, usage, cost, images in calls:
        counts = None if usage is None else {name: count for name, count in usage.counts.items() if count}
        told.append([model, counts, "" if usage is None else usage.service_tier, images, *(cost or ())])
    return json.dumps(told, separators=(",", ":"))


def _calls_before(note: Mapping[str, str | int]) -> list[Recorded]:
    """What the view had recorded, and not settled, when it handed over."""
    return [
        Recorded(
            model,
            None if counts is None else Usage.clamped(**_NOTHING | counts, service_tier=tier),
            Money(*cost) if cost else None,
            images,
        )
        for model, counts, tier, images, *cost in json.loads(str(note.get(_CALLS, "[]")))
    ]


class OutlivingWork:
    """A request's work, which goes on after its answer. Its slot is held until :meth:`settle` or :meth:`cancel`.

    As a context manager it is settled at the end of the block. If the block raises, it is settled with what was
    recorded, and cancelled if nothing was.

    A queue may deliver a job twice. Of all processes that take the token over, the first to settle or cancel ends the
    work, and the later calls do nothing.
    """

    def __init__(self, app: Flask, app_state: AppState, work: HandedOver) -> None:
        self._app = app
        self._app_state = app_state
        self._work = work
        self._pricing = Pricing.of_facts(app_state, work.note)
        self._pricing.calls = _calls_before(work.note)
        usages = [call.usage for call in self._pricing.calls if call.usage is not None]
        self._recorded = reduce(add, usages) if usages else None
        self._units: Mapping[str, int] = _units_before(work.note)

    @property
    def request_id(self) -> str:
        """The id of the request that handed the work over."""
        return str(self._work.note.get("request_id", ""))

    def record_usage(
        self,
        *,
        units: Mapping[str, int] | None = None,
        cost: Money | str | None = None,
        **tokens: Unpack[Tokens],
    ) -> None:
        """Record usage. It is added to earlier calls, and to what the view recorded before it handed over.

        Raises:
            ValueError: As :meth:`flask_ailimit.AILimiter.record_usage`.
        """
        usage, own, money = record_of(units, cost, **tokens)
        if usage is not None:
            self._recorded = self._recorded + usage if self._recorded else usage
        self._pricing.record(usage, money, own.get(IMAGES, 0))
        self._units = added(self._units, own)

    def settle(self) -> bool:
        """Charge what was recorded; without a record, what was reserved. Returns whether this call ended the work.

        Raises:
            StoreError: The store failed. The work stays open, so try again.
        """
        return self._end(failed=False)

    def cancel(self) -> bool:
        """Give back everything, the request too. Returns whether this call ended the work.

        Raises:
            StoreError: The store failed. The work stays open, so try again.
        """
        return self._work.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or self._has_record:
            self._end(failed=error is not None)
        else:
            self.cancel()

    @property
    def _has_record(self) -> bool:
        return self._recorded is not None or bool(self._units)

    def _end(self, *, failed: bool) -> bool:
        """Charge what was recorded, and the rest as reserved; of work that ``failed``, only the request."""
        usage, source = self._recorded, RECORDED if self._has_record else RESERVED
        used = {} if usage is None else units_of(usage, count_cached=self._app_state.settings.count_cached_tokens)
        used |= self._units
        # Images have a price, also if nobody has recorded the tokens.
        known = NO_USAGE if usage is None and self._pricing.calls else usage
        priced = {} if known is None else self._pricing.units_used(known, failed=failed)
        ended_charges, counts = list[Charge](), dict[tuple[bytes, bytes], int]()

        def actual_of(charge: Charge) -> int:
            count, unit = charge.counted_in, charge.quota.unit
            without = 0 if failed and unit != REQUESTS else charge.cost
            if count not in priced:
                actual = used.get(unit, without)
            elif usage is None:
                actual = max(without, priced[count] or 0)
            else:
                units = priced[count]
                actual = charge.cost if units is None else units  # Nobody knows the price.
            if not charge.dry:
                ended_charges.append(charge)
                counts[charge.counted_in] = counts.get(charge.counted_in, 0) + actual
            return actual

        ended = self._work.end(actual_of)
        if ended:
            charged = most_by_unit(ended_charges, counts)
            facts = {name: self._work.note.get(name) for name in _TOLD}
            tell(
                usage_settled,
                self._app,
                number=int(self._work.note.get("settlements", 0)) + 1,
                usage=usage_of(charged) if usage is None else usage,
                units={**self._units},
                source=source,
                charged=charged,
                cost=self._cost_told(charged, known, failed=failed),
                ending=HANDED_OVER,
                status=None,
                decision=None,
                label=None,
                **facts,
            )
        if self._work.passed:
            self._tell_passed()
        return ended

    def _cost_told(self, charged: Mapping[str, int], usage: Usage | None, *, failed: bool) -> Cost | None:
        cost = charged_money(charged, self._pricing, usage, failed=failed)
        if cost is None and usage is not None:
            return self._pricing.cost_told(usage, failed=failed)
        return cost

    def _tell_passed(self) -> None:
        """Send an event for each limit of which this work used the soft percent. It knows the first payer's plan."""
        note = self._work.note
        payers = {str(note["subject"]): {"plan": note["plan"]}} if "plan" in note else {}
        facts = {name: note.get(name) for name in ("endpoint", "request_id")}
        tell_passed(self._app, self._work.passed, payers, **facts)
