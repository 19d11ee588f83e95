"""Whether a call is sent again, to which upstreams, and when. tenacity decides, by one number and one deadline."""

from collections.abc import Callable, Sequence
from random import SystemRandom

from tenacity import RetryCallState, Retrying

from .answers import Answer, Kind
from .pacing import LEAST_WAIT
from .retrying import Attempts, backoff
from .settings import UpstreamSettings
from .target import Target

_random = SystemRandom().random


class Again:
    """Decides after each failed attempt of one call, at all of its targets together.

    Args:
        settings: Those of the upstream that the app has called.
        deadline: Until when an attempt may begin.
        now: Answers the time, by the same clock as the deadline.

    Attributes:
        failed: How many attempts have failed.
    """

    def __init__(self, settings: UpstreamSettings, deadline: float, now: Callable[[], float]) -> None:
        self.failed = 0
        self._settings = settings
        self._deadline = deadline
        self._now = now
        self._targets: Sequence[Target] = ()
        self._repeats = False
        self._resting: Target | None = None
        self._rests_until = 0.0
        self._attempts: Attempts | None = None  # Most calls never need it.

    def after(self, answer: Answer, target: Target, targets: Sequence[Target]) -> tuple[float, Sequence[Target]] | None:
        """Seconds until the next attempt, and which targets may take it; None if there is none.

        Args:
            answer: What the last attempt came to.
            target: Where it was made.
            targets: Where it could have been made.
        """
        settings = self._settings
        others = [each for each in targets if each is not target] if answer.policy.falls_back else []
        self._repeats = answer.is_worth_retrying(settings.longest_pause, uncertain=settings.retry_uncertain)
        self._targets = [*others, target] if self._repeats else others
        self.failed += 1
        if self._attempts is None:
            self._attempts = Attempts(
                Retrying(
                    retry=lambda _: bool(self._targets),
                    wait=self._rest,
                    stop=self._is_over,
                    retry_error_callback=lambda _: None,
                )
            )
        rest = self._attempts.rest_after(answer)
        if self._repeats and others:
            self._resting, self._rests_until = target, self._now() + self._backoff(answer)
        return None if rest is None else (rest, self._targets)

    def rest_of(self, target: Target) -> float:
        """Seconds for which an upstream that has just failed is not asked. Others may be."""
        rest = self._rests_until - self._now() if target is self._resting else 0.0
        return rest if rest > LEAST_WAIT else 0.0

    def _is_over(self, state: RetryCallState) -> bool:
        return self.failed >= self._settings.attempts or self._now() + state.upcoming_sleep > self._deadline

    def _rest(self, state: RetryCallState) -> float:
        """None if another upstream may be asked: then only the one that failed rests."""
        assert state.outcome is not None  # noqa: S101  tenacity has it by now
        answer: Answer = state.outcome.result()
        return 0.0 if len(self._targets) > 1 or not self._repeats else self._backoff(answer)

    def _backoff(self, answer: Answer) -> float:
        """None where a pause holds up all calls already."""
        return 0.0 if answer.kind is Kind.THROTTLED else backoff(self.failed, answer.retry_after, _random)
