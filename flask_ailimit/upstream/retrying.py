"""When to try again, for who retries with tenacity or stamina, and for our own transport.

Each piece can be used alone::

    from tenacity import retry, stop_after_attempt

    @retry(retry=retry_if_worthwhile(), wait=wait_as_told(), stop=stop_after_attempt(3) | stop_after_budget(budget))
    def ask(): ...

An SDK's own retries are to be off (``max_retries=0``), or both multiply.
"""

from collections.abc import Callable
from random import SystemRandom
from typing import Protocol

from tenacity import DoSleep, RetryCallState, Retrying
from tenacity.retry import retry_base
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from .answers import Answer
from .failures import answer_of_error, answer_of_response

LONGEST_WAIT = 60.0
"""Seconds. Who is told to wait longer than this does not retry."""

_BASE, _MOST = 0.5, 8.0
_SPREAD, _LEAST_SPREAD = 0.1, 0.25
_MOST_DOUBLINGS = 62

_random = SystemRandom().random  # Workers are forked, and apps seed Python's own: neither may make them retry together.


class Budget(Protocol):
    """Says how many retries there may be, such as :class:`flask_ailimit.upstream.retry_budget.RetryBudget`."""

    def may_retry(self) -> bool:
        """Take a retry, if there is one."""


def backoff(
    attempt: int,
    told: float | None,
    random: Callable[[], float],
    *,
    cap: float = LONGEST_WAIT,
    base: float = _BASE,
    most: float = _MOST,
) -> float:
    """Seconds to wait after an attempt that failed.

    Who was told a wait waits so long and a little more, so that not all come back at once. Who was not waits a random
    time, of which the longest doubles with each attempt ("full jitter").

    Args:
        attempt: Which one failed, from 1.
        told: The wait in seconds that the provider asks for; None, or 0, for none.
        random: Answers a number from 0 to 1, as ``random.random``.
        cap: The most seconds, whatever was told.
        base: The longest wait in seconds after the first attempt, if nothing was told.
        most: The longest wait in seconds after any attempt, if nothing was told.
    """
    if told:
        return min(told + max(_SPREAD * told, _LEAST_SPREAD) * random(), cap)
    return min(base * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS), most, cap) * random()


def wait_as_told(cap: float = LONGEST_WAIT, base: float = _BASE, most: float = _MOST) -> wait_base:
    """Wait as the provider asks, for tenacity; see :func:`backoff`."""
    return _WaitAsTold(cap, base, most)


def stop_after_budget(budget: Budget) -> stop_base:
    """Stop when no retry is left in a budget, for tenacity.

    It takes a retry each time that it is asked, so it comes last, as in
    ``stop_after_attempt(3) | stop_after_budget(budget)``.
    """
    return _StopAfterBudget(budget)


def retry_if_worthwhile(cap: float = LONGEST_WAIT, *, uncertain: bool = False) -> retry_base:
    """Retry where that may help, for tenacity: after exceptions of an SDK, httpx or httpx2, and their responses.

    Args:
        cap: Seconds. Who is told to wait longer does not retry.
        uncertain: Also if the provider may have answered already, and may bill both.
    """
    return _RetryIfWorthwhile(cap, uncertain)


def stamina_hook(error: Exception, *, cap: float = LONGEST_WAIT, uncertain: bool = False) -> bool | float:
    """Whether to retry, and after which wait, for stamina: ``@stamina.retry(on=stamina_hook)``.

    If the provider asks for no wait, stamina's own holds. A wait that it asks for is bounded by ``cap`` alone, because
    stamina applies neither its ``wait_max`` nor its ``timeout`` to it. ``functools.partial`` sets the others.

    Args:
        error: What the attempt raised.
        cap: As of :func:`retry_if_worthwhile`.
        uncertain: As of :func:`retry_if_worthwhile`.
    """
    answer = answer_of_error(error)
    if answer is None or not answer.is_worth_retrying(cap, uncertain=uncertain):
        return False
    return backoff(1, answer.retry_after, _random, cap=cap) if answer.retry_after else True


class Attempts:
    """The attempts of one call, which a tenacity controller decides on and the caller makes: for sync and async alike.

    It works on a copy of the controller, which so may be shared: tenacity keeps the state of a call in its controller.

    Example::

        attempts = Attempts(controller)
        while True:
            try:
                answer = send(request)
            except Exception as error:
                rest = attempts.rest_after_error(error)
                if rest is None:
                    raise
            else:
                rest = attempts.rest_after(answer)
                if rest is None:
                    return answer
            sleep(rest)
    """

    def __init__(self, controller: Retrying) -> None:
        self._controller = controller.copy()
        self._state = RetryCallState(self._controller, None, (), {})
        self._next()

    @property
    def number(self) -> int:
        """Which attempt this is, from 1."""
        return self._state.attempt_number

    def rest_after(self, result: object) -> float | None:
        """Seconds to rest before the next attempt; None if there is none, and the result stands."""
        self._state.set_result(result)
        return self._next()

    def rest_after_error(self, error: BaseException) -> float | None:
        """Seconds to rest before the next attempt; None if there is none, and the error is to be raised."""
        self._state.set_exception((type(error), error, error.__traceback__))
        try:
            return self._next()
        except BaseException as raised:
            if raised is error:
                return None
            raise

    def _next(self) -> float | None:
        if not self._controller.statistics:
            self._controller.begin()  # They are a thread's, and a call may go on in another one.
        try:
            step = self._controller.iter(self._state)
        except self._controller.retry_error_cls:
            return None
        if isinstance(step, DoSleep):
            self._state.prepare_for_next_attempt()
            return float(step)
        return None


class _WaitAsTold(wait_base):
    def __init__(self, cap: float, base: float, most: float) -> None:
        self._cap, self._base, self._most = cap, base, most

    def __call__(self, retry_state: RetryCallState) -> float:
        answer = _answer_in(retry_state)
        told = None if answer is None else answer.retry_after
        return backoff(retry_state.attempt_number, told, _random, cap=self._cap, base=self._base, most=self._most)


class _StopAfterBudget(stop_base):
    def __init__(self, budget: Budget) -> None:
        self._budget = budget

    def __call__(self, retry_state: RetryCallState) -> bool:  # noqa: ARG002  as tenacity calls it
        return not self._budget.may_retry()


class _RetryIfWorthwhile(retry_base):
    def __init__(self, cap: float, uncertain: bool) -> None:
        self._cap, self._uncertain = cap, uncertain

    def __call__(self, retry_state: RetryCallState) -> bool:
        answer = _answer_in(retry_state)
        return answer is not None and answer.is_worth_retrying(self._cap, uncertain=self._uncertain)


def _answer_in(retry_state: RetryCallState) -> Answer | None:
    """What the attempt met with; None if that was no answer of a provider."""
    outcome = retry_state.outcome
    if outcome is None:
        return None
    error = outcome.exception()
    return answer_of_response(outcome.result()) if error is None else answer_of_error(error)
