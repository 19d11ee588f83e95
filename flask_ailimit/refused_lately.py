"""Whose requests were refused a moment ago, by limits that need not know what a request's body says.

They are likely to be refused again, and a megabyte that is sent for nothing costs half a second to read and count. So
for such a request the store is asked beforehand whether a limit that needs no body still refuses. Nobody is refused
because of what is remembered here: the store decides, and a note that is wrong or lost costs one question.
"""

from collections import OrderedDict
from collections.abc import Iterable

from .engine import Charge, Verdict
from .engine.clock import MICROSECONDS, Clock

_LONGEST_US = MICROSECONDS
_MOST_COUNTS = 4096


class RefusedLately:
    """The counts that refused, each for a second, or until it is said to fit again if that is earlier.

    Only a real decision is noted, so that each count gets one every second: it also mends counts whose clock went back.

    Args:
        clock: Answers integer microseconds.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: OrderedDict[tuple[bytes, bytes], int] = OrderedDict()

    def note(self, refused: Iterable[Verdict]) -> None:
        """Remember the counts of these verdicts, in place of the oldest if there are too many."""
        now_us = self._clock()
        for verdict in refused:
            wait_us = _LONGEST_US if verdict.retry_after_us is None else min(verdict.retry_after_us, _LONGEST_US)
            if len(self._until) >= _MOST_COUNTS:
                self._until.popitem(last=False)
            self._until[verdict.charge.subject, verdict.charge.bucket] = now_us + wait_us

    def has_any(self, charges: Iterable[Charge]) -> bool:
        """Whether the count of any of these charges refused lately."""
        if not self._until:
            return False
        now_us = self._clock()
        return any(self._until.get((charge.subject, charge.bucket), 0) > now_us for charge in charges)
