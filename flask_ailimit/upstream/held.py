"""What a call holds from its decision on, until it is ended exactly once, however the call ends."""

import logging
from collections.abc import Mapping

from flask_ailimit.engine import AILimitError, Reservation, Settlement
from flask_ailimit.engine.algorithms.gate import FAULT, GOOD, NEUTRAL, Outcome, packed
from flask_ailimit.tokens import Measure, Usage

from . import signals
from .answers import Answer, Kind
from .cache import AnswerCache, Turn
from .calling import Calling
from .pacing import PAYMENT_REQUIRED, Asked, Group, Wait
from .reusing import Keeping
from .target import Target

_log = logging.getLogger("flask_ailimit")

_NOTHING = Usage()
_LEAST_PAUSE = 1.0
"""Seconds for which a 429 that names no time stops all calls."""


class Held:
    """A call that was allowed.

    Attributes:
        target: The upstream that it goes to.
        reservation: What it took.
        sent: Whether it may have been sent. Until then all of it is given back.
        also: Settlements that go along with its own.
        keeping: Collects the answer for the cache; None if it is not to be kept.

    Args:
        target: The upstream that it goes to.
        group: The group of models.
        reservation: What it took.
        asked: What it asked for.
        how: How it is made.
    """

    __slots__ = ("_asked", "_began", "_group", "_how", "also", "keeping", "reservation", "sent", "target")

    def __init__(self, target: Target, group: Group, reservation: Reservation, asked: Asked, how: Calling) -> None:
        self.target = target
        self._group = group
        self.reservation = reservation
        self._asked = asked
        self._how = how
        self._began = target.now()
        self.sent = False
        self.keeping: Keeping | None = None
        self.also: tuple[Settlement, ...] = ()

    def keep(self, cache: AnswerCache, turn: Turn, status: int, headers: Mapping[str, str]) -> None:
        """Collect the answer for the cache, because this call is the one that asks."""
        self.keeping = Keeping(cache, turn, status, headers)

    def waited(self, seconds: float, why: Wait) -> None:
        """Tell that it has waited for its turn."""
        self.target.waited(self._group, seconds, why, is_batch=self._how.is_batch)

    @property
    def has_known_end(self) -> bool:
        """Whether a stream that answers it has an event by which its end is known."""
        return self._asked.has_known_end

    @property
    def known_input(self) -> int:
        """The tokens of its input, as they were estimated."""
        return self._asked.usage.input_tokens

    def failed(self, answer: Answer) -> float:
        """End it after an answer that is none, or after no answer. Answers for how many seconds all calls stop."""
        pause = self._pause(answer)
        outcome = FAULT if answer.is_fault else NEUTRAL
        used = _NOTHING if answer.policy.refund == "all" else None
        status = PAYMENT_REQUIRED if answer.kind is Kind.SPENT else answer.status
        self._end(packed(Outcome(outcome, status, round(pause * 1000))), used, sent=answer.kind is not Kind.UNSENT)
        if pause:
            facts = {"group": self._group.name, "seconds": pause, "status": answer.status}
            signals.tell(signals.upstream_paused, self.target, **facts)
            _log.warning(
                "upstream %s: %s (status %d); all calls to %.64r wait for %.1f s.",
                *(self.target.name, answer.reason, answer.status, self._group.name, pause),
            )
        return pause

    def finished(self, measure: Measure, *, whole: bool) -> None:
        """End it when its answer was passed on, or was left.

        Args:
            measure: What the answer used, as far as it came.
            whole: Whether it came to its end. One that broke off is a fault of the upstream, unless it was left.
        """
        used = measure.usage if self._asked.counts_tokens else _NOTHING
        if self._end(packed(Outcome(GOOD if whole else NEUTRAL)), used):
            self._tell(used or self._asked.usage, measure.source, whole=whole)

    def broke_off(self, measure: Measure) -> None:
        """End it when the upstream cut its answer: at least what was seen is charged."""
        if self._end(packed(Outcome(FAULT)), measure.usage):
            self._tell(measure.usage or self._asked.usage, measure.source, whole=False)

    def abandoned(self) -> None:
        """End it when nobody waits for its answer. If it was sent, nobody knows what it used: nothing is given back."""
        self._end(packed(Outcome(NEUTRAL)), None if self.sent else _NOTHING, sent=self.sent)

    def _end(self, gate: int, used: Usage | None, *, sent: bool = True) -> bool:
        try:
            return self._group.settle(self.reservation, gate, used, sent=sent, also=self.also)
        except AILimitError as error:
            _log.warning("upstream %s: a call was not settled: %s", self.target.name, error)
            return True

    def _pause(self, answer: Answer) -> float:
        """For how many seconds this answer stops all calls."""
        most, policy = self.target.settings.longest_pause, answer.policy
        if answer.kind is Kind.SPENT:
            return most
        if policy.pause != "until told":
            return 0.0
        asked = answer.retry_after
        if asked is None:
            return _LEAST_PAUSE if answer.kind is Kind.THROTTLED else 0.0
        return min(asked, most)

    def _tell(self, usage: Usage, source: str, *, whole: bool) -> None:
        target, group, model = self.target, self._group.name, self._asked.model
        target.settled(usage)
        self._how.told(target.name, model, usage)
        facts = {"model": model, "usage": usage, "source": source, "whole": whole}
        signals.tell(signals.call_settled, target, group=group, seconds=target.now() - self._began, **facts)
