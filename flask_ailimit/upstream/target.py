"""What the calls to one upstream share in this process: its groups of models, its retry budget, and who is told."""

import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from flask_ailimit.engine import Charge, Engine, Verdict
from flask_ailimit.engine.clock import MICROSECONDS, Clock, rest, seconds_running, system_clock
from flask_ailimit.tokens import TokenCounter, Usage

from . import signals
from .cache import AnswerCache
from .calling import Calling
from .pacing import Group, Wait
from .refusing import Final
from .retry_budget import RetryBudget
from .reusing import ANSWER, CacheSettings
from .settings import UpstreamSettings

_log = logging.getLogger("flask_ailimit")

_MOST_GROUPS = 256
"""Whose names come from the calls, so nobody can say how many there are."""

_SPIKE, _LEAST_SPIKE, _MINUTE = 0.2, 5, 60.0


class Target:
    """One upstream, as the calls to it see it.

    Args:
        engine: Answers the engine in whose store it is counted.
        settings: What the app says of it.
        counter: Counts the tokens of a text.
        clock: Answers microseconds since the epoch.
        running: Answers seconds of a clock that never jumps.
        pause: Does nothing for so many seconds.
    """

    def __init__(
        self,
        engine: Callable[[], Engine],
        settings: UpstreamSettings,
        counter: TokenCounter,
        *,
        clock: Clock = system_clock,
        running: Callable[[], float] = seconds_running,
        pause: Callable[[float], None] = rest,
    ) -> None:
        self.settings = settings
        self.now = running
        self.pause = pause
        self._engine = engine
        self.counter = counter
        self._clock = clock
        self._groups: OrderedDict[tuple[Engine, int, str], Group] = OrderedDict()
        self._budgets: OrderedDict[Engine, RetryBudget] = OrderedDict()
        self._caches = WeakKeyDictionary[Engine, tuple[CacheSettings, AnswerCache]]()
        self._seen: dict[str, str] = {}
        self._minute, self._calls, self._retries = running(), 0, 0

    @property
    def name(self) -> str:
        """Its name."""
        return self.settings.name

    def wall(self) -> float:
        """Seconds since the epoch."""
        return self._clock() / MICROSECONDS

    def group(self, model: str) -> Group:
        """The group of models with which a model shares its limits."""
        settings = self.settings
        return self.group_named(settings.group_of(settings.models.get(model, model)))

    def group_named(self, name: str) -> Group:
        """The group of models of this name."""
        engine, settings = self._engine(), self.settings
        key = engine, id(settings), name  # An app may read its settings again; a group keeps its own alive.
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(engine, settings, name, self.now)
            while len(self._groups) > _MOST_GROUPS:
                self._groups.popitem(last=False)
        return group

    @property
    def budget(self) -> RetryBudget:
        """What is left for retries, of all processes and groups."""
        engine = self._engine()
        budget = self._budgets.get(engine)
        if budget is None:
            self._budgets.clear()
            budget = self._budgets[engine] = RetryBudget(engine, engine.subject("upstream retries", self.name))
        return budget

    @property
    def cache(self) -> AnswerCache | None:
        """The cache of answers; None if the app wants none."""
        kept, engine = self.settings.kept, self._engine()
        if kept is None:
            return None
        opened = self._caches.get(engine)
        if opened is None or opened[0] != kept:  # An app may read its settings again.
            opened = self._caches[engine] = kept, kept.open(engine, self._clock)
            engine.at_close(opened[1].close)
        return opened[1]

    def tenant(self, how: Calling) -> str | None:
        """For whom a call is made; None if that can't be told, so that its answer is not to be kept."""
        return how.tenant or ""

    def hit(self, how: Calling, model: str, usage: Usage) -> None:
        """A call was answered from the cache. The usage is that of the answer, when it was asked."""
        kept = self.settings.kept
        charged = usage if kept is not None and kept.hits == ANSWER else Usage()
        how.told(self.name, model, charged)

    def settled(self, usage: Usage) -> None:
        """A call has used so much."""

    def peek(self, charges: Sequence[Charge]) -> Sequence[Verdict]:
        """What the store answers to some charges of this upstream. Takes nothing.

        Raises:
            StoreError: The store can't answer.
        """
        return self._engine().store.peek(charges).verdicts

    def waited(self, group: Group, seconds: float, wait: Wait, *, is_batch: bool) -> None:
        """A call has waited for its turn."""
        facts = {"group": group.name, "seconds": seconds, "why": wait.why, "batch": is_batch}
        signals.tell(signals.call_waited, self, **facts)

    def held_up(self, group: Group, wait: Wait) -> None:
        """A call was refused: note it if the breaker is why."""
        if wait.why in ("open", "half-open"):
            self._saw(group, wait.why, wait.status)

    def let_through(self, group: Group, probe: int) -> None:
        """A call was allowed. If it is the one that tries whether the upstream is back, its number is not 0."""
        if probe:
            self._saw(group, "half-open", 0, f": process {os.getpid()} tries, as probe {probe:x}")
        elif group.name in self._seen:
            self._saw(group, "closed", 0)

    def gave_up(self, group: str, final: Final, *, is_batch: bool, **facts: Any) -> None:
        """A call got no answer that helps. Of a batch's, who began the batch is told at its end."""
        signals.tell(signals.call_given_up, self, group=group, **facts)
        if is_batch:
            return
        _log.warning(
            "upstream %s: a call of %.64r was given up (%s) after %d attempts, and answered with %d.",
            *(self.name, group, facts["why"], facts["attempts"], final.status),
        )

    def _saw(self, group: Group, state: str, status: int, who: str = "") -> None:
        if self._seen.get(group.name, "closed") == state:
            return
        if len(self._seen) >= _MOST_GROUPS:
            self._seen.clear()
        self._seen[group.name] = state
        signals.tell(signals.breaker_changed, self, group=group.name, state=state, status=status)
        why = f" (status {status})" if status else " (no answer)" if state == "open" else ""
        _log.warning("upstream %s: the breaker of %.64r is %s%s%s.", self.name, group.name, state, why, who)

    def counted(self, *, is_retry: bool) -> None:
        """Count a call or a retry of this process, and tell if retries spike."""
        if self.now() - self._minute >= _MINUTE:
            self._minute, self._calls, self._retries = self.now(), 0, 0
        self._calls += not is_retry
        self._retries += is_retry
        if is_retry and self._retries >= max(_LEAST_SPIKE, _SPIKE * self._calls):
            facts = {"retries": self._retries, "calls": self._calls}
            self._retries = -(10**9)  # Once a minute.
            signals.tell(signals.retries_spiked, self, group="", **facts)
            _log.warning(
                "upstream %s: %d of the last minute's calls were retries, beside %d others.",
                *(self.name, facts["retries"], facts["calls"]),
            )
