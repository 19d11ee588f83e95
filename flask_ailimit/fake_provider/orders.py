"""Which fault is the next call's."""

from collections import deque
from collections.abc import Sequence
from random import Random
from threading import Lock

from .fault import Fault


class Orders:
    """Faults in the order in which calls meet them: those of :meth:`then`, then by chance, then the usual one."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._next: deque[Fault] = deque()
        self._usual = Fault.ok()
        self._chance: tuple[Random, float, Sequence[Fault]] | None = None

    def then(self, *faults: Fault) -> None:
        """Let the next calls meet these."""
        with self._lock:
            self._next.extend(faults)

    def always(self, fault: Fault) -> None:
        """Let all calls meet this one for which there is no other."""
        with self._lock:
            self._usual = fault

    def at_random(self, seed: int, share: float, faults: Sequence[Fault]) -> None:
        """Let this share of the calls meet one of these.

        Raises:
            ValueError: The share is not from 0 to 1, or there are no faults.
        """
        if not 0 <= share <= 1 or not faults:
            raise ValueError(f"share: a number from 0 to 1 is needed, and faults. Got {share!r:.40} of {len(faults)}.")
        with self._lock:
            self._chance = (Random(seed), share, tuple(faults))  # noqa: S311  it is to be repeatable

    def pop(self) -> Fault:
        """The fault of a call that has come."""
        with self._lock:
            if self._next:
                return self._next.popleft()
            if self._chance:
                numbers, share, faults = self._chance
                # Two draws for every call: what one meets does not depend on what those before it met.
                drawn, which = numbers.random(), numbers.randrange(len(faults))
                if drawn < share:
                    return faults[which]
            return self._usual
