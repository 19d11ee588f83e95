"""Work that outlives its answer: a view hands its reservations over, and another process ends them."""

from collections.abc import Mapping
from dataclasses import asdict
from types import TracebackType
from typing import Self

from flask import Flask

from .engine import Charge, HandedOver
from .engine.quota import CONCURRENCY
from .signals import tell, usage_settled
from .state import State
from .tab import HANDED_OVER, RECORDED, RESERVED, Tab, units_of, usage_of
from .tokens import Usage


def note_of(tab: Tab) -> dict[str, str | int]:
    """What whoever takes over is to know of the request."""
    facts = {
        "endpoint": tab.endpoint,
        "subject": tab.subject.hex(),
        "request_id": tab.request_id,
        "client_request_id": tab.client_request_id,
    }
    if tab.recorded is not None:
        facts |= asdict(tab.recorded)
    return {name: fact for name, fact in facts.items() if fact is not None}


def _recorded_before(note: Mapping[str, str | int]) -> Usage | None:
    """What the view had recorded when it handed over."""
    if "input_tokens" not in note:
        return None
    return Usage(*(int(note[name]) for name in ("input_tokens", "output_tokens", "cached_input_tokens")))


class OutlivingWork:
    """A request's work, which goes on after its answer. Its slot is held until :meth:`settle` or :meth:`cancel`.

    As a context manager it is settled at the end of the block. If the block raises, it is settled with what was
    recorded, and cancelled if nothing was.

    Over all processes that take the token over, the first ending counts, and the others do nothing: a queue may deliver
    a job twice.
    """

    def __init__(self, app: Flask, state: State, work: HandedOver) -> None:
        self._app = app
        self._state = state
        self._work = work
        self._recorded = _recorded_before(work.note)

    @property
    def request_id(self) -> str:
        """The id of the request that handed it over."""
        return str(self._work.note.get("request_id", ""))

    def record_usage(self, *, input_tokens: int = 0, output_tokens: int = 0, cached_input_tokens: int = 0) -> None:
        """Say what was used. Several calls add up, with what the view recorded before it handed over.

        Raises:
            ValueError: As :meth:`flask_ailimit.AILimiter.record_usage`.
        """
        usage = Usage.checked(input_tokens, output_tokens, cached_input_tokens)
        self._recorded = self._recorded + usage if self._recorded else usage

    def settle(self) -> bool:
        """Charge what was recorded; without a record, what was reserved. Answers whether this call ended it.

        Raises:
            StoreError: The store can't answer; it stays open, so try again.
        """
        source = RESERVED if self._recorded is None else RECORDED
        return self._end(self._recorded, source)

    def cancel(self) -> bool:
        """Give back everything, the request too. Answers whether this call ended it.

        Raises:
            StoreError: The store can't answer; it stays open, so try again.
        """
        return self._work.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or self._recorded is not None:
            self.settle()
        else:
            self.cancel()

    def _end(self, usage: Usage | None, source: str) -> bool:
        used = {} if usage is None else units_of(usage, count_cached=self._state.settings.count_cached_tokens)
        charged: dict[str, int] = {}

        def actual_of(charge: Charge) -> int:
            unit = charge.quota.unit
            actual = used.get(unit, charge.cost)
            if unit != CONCURRENCY and not charge.dry:
                charged[unit] = max(charged.get(unit, 0), actual)
            return actual

        ended = self._work.end(actual_of)
        if ended:
            facts = {
                name: self._work.note.get(name) for name in ("endpoint", "subject", "request_id", "client_request_id")
            }
            tell(
                usage_settled,
                self._app,
                usage=usage_of(charged) if usage is None else usage,
                source=source,
                charged=charged,
                ending=HANDED_OVER,
                status=None,
                decision=None,
                plan=None,
                model=None,
                label=None,
                **facts,
            )
        return ended
