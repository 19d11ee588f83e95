"""What this process has asked the store to tell: that a count has passed its soft percent.

The settlement of a charge that cost what was reserved needs no store call, unless it may be the one that has to tell
that its count has passed. Each process asks once and then, for a while, not again: whoever asks first is told, and to
the others the store would say that somebody was. If there was nothing to tell, because the count stood below by then,
it asks again. A note that is lost costs one question.
"""

from collections.abc import Iterable

from .charge import Charge
from .clock import MICROSECONDS
from .decision import Verdict

_LONGEST_US = 60 * MICROSECONDS
"""In a longer window it asks again: another process may have reset the count, which can pass once more."""

_MOST_COUNTS = 4096


class Announced:
    """The counts about which this process has asked."""

    def __init__(self) -> None:
        self._until: dict[tuple[bytes, bytes], int] = {}

    def is_to_ask(self, verdict: Verdict, at_us: int) -> bool:
        """Whether to ask about the count of this verdict. Who is answered True must ask.

        Args:
            verdict: One that is near.
            at_us: When it was given, by the clock of its store.
        """
        count = verdict.charge.counted_in
        if at_us < self._until.get(count, 0) <= at_us + _LONGEST_US:  # Later than that: the clock went back.
            return False
        if len(self._until) >= _MOST_COUNTS:
            self._until.clear()
        self._until[count] = at_us + min(verdict.reset_after_us, verdict.quota.period * MICROSECONDS, _LONGEST_US)
        return True

    def ask_again(self, charges: Iterable[Charge]) -> None:
        """Ask about the counts of these again: there was nothing to tell yet, or nobody heard the question."""
        for charge in charges:
            self._until.pop(charge.counted_in, None)

    def forget(self) -> None:
        """Ask about every count again, because some were reset."""
        self._until.clear()
