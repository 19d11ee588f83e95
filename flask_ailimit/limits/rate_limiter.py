"""The ``limits`` storage and strategy that Flask-Limiter gets, both on top of our engine.

Flask-Limiter's ``reset()``, ``storage.check()``, ``flask limiter limits|clear`` and ``current_limit.remaining`` need a
``limits`` storage and strategy. These read and reset our counts. No request is decided here.
"""

from collections.abc import Callable
from typing import Any

from limits import RateLimitItem, WindowStats
from limits.storage import Storage
from limits.strategies import RateLimiter

from flask_ailimit.engine import Charge, Decision, Engine, Store, StoreError
from flask_ailimit.engine.clock import MICROSECONDS

from .unit_limit import quota_of

SCHEME = "ailimit"


class EngineStorage(Storage):
    """The engine's store as a ``limits`` storage, which can be checked and reset, but gives no single count."""

    STORAGE_SCHEME = [SCHEME]  # noqa: RUF012  the base declares it so

    def __init__(self, uri: str | None = None, *, engine_now: Callable[[], Engine], **_: Any) -> None:
        super().__init__(uri)
        self._engine_now = engine_now

    @property
    def storage(self) -> Store:
        """The store, as ``flask limiter config`` shows it."""
        return self._engine_now().store

    @property
    def base_exceptions(self) -> type[Exception]:
        """The error that a failing store raises."""
        return StoreError

    def check(self) -> bool:
        """Whether the store works."""
        try:
            self._engine_now().store.peek(())
        except StoreError:
            return False
        return True

    def reset(self) -> None:
        """Forget every count."""
        self._engine_now().reset()

    def incr(self, key: str, expiry: int = 0, amount: int = 1) -> int:  # noqa: ARG002  the base's signature
        """Raise TypeError, because only a decision changes a count."""
        raise TypeError("Counts are changed by decisions. Use limiter.engine.reserve().")

    get = get_expiry = clear = incr  # type: ignore[assignment]  # likewise


class EngineRateLimiter(RateLimiter):
    """The engine as a ``limits`` strategy, for one limit at a time."""

    def __init__(
        self,
        storage: Storage,
        algorithm: str,
        engine_now: Callable[[], Engine],
        decision_now: Callable[[], Decision | None],
        debt_periods: int = 4,
    ) -> None:
        super().__init__(storage)
        self._algorithm = algorithm
        self._debt_periods = debt_periods
        self._engine_now = engine_now
        self._decision_now = decision_now

    def hit(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        """Take ``cost`` if it fits."""
        engine = self._engine_now()
        return engine.reserve([self.charge(engine, item, identifiers, cost)]).allowed

    def test(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        """Return whether ``cost`` would fit."""
        engine = self._engine_now()
        return engine.peek([self.charge(engine, item, identifiers, cost)]).allowed

    def get_window_stats(self, item: RateLimitItem, *identifiers: str) -> WindowStats:
        """Return the epoch seconds of the reset, and what remains; from this request's decision if it has the limit."""
        if not item.amount:
            return WindowStats(0, 0)
        engine = self._engine_now()
        charge = self.charge(engine, item, identifiers, 0)
        decision = self._decision_now() or Decision((), 0)
        for verdict in decision.verdicts:
            if verdict.charge.counted_in == charge.counted_in:
                break
        else:
            decision = engine.peek([charge])
            verdict = decision.verdicts[0]
        return WindowStats((decision.at_us + verdict.reset_after_us) / MICROSECONDS, verdict.remaining)

    def clear(self, item: RateLimitItem, *identifiers: str) -> None:
        """Forget one count."""
        engine = self._engine_now()
        charge = self.charge(engine, item, identifiers, 0)
        engine.reset(charge.subject, charge.bucket)

    def charge(self, engine: Engine, item: RateLimitItem, identifiers: tuple[str, ...], cost: int) -> Charge:
        """Make a charge from Flask-Limiter's identifiers (key prefix, key, scope)."""
        *identity, scope = identifiers
        return Charge(engine.subject(*identity), quota_of(item, self._algorithm, self._debt_periods), cost, scope)
