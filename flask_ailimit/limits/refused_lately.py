"""Remembers the counts that refused a moment ago, of limits whose cost doesn't depend on the body.

A count that refused who must leave a part of it to others may have room for these. So a charge is remembered with its
floor, and the others ask the store no more often than before.

Such a count is likely to refuse again, and a megabyte of body takes half a second to read and count. So before the body
of a request to such a count is read, the store is asked whether the count still refuses. A request is never refused
because of what is remembered here: the store decides, and a note that is wrong or lost costs one question to the store.
"""

from collections import OrderedDict
from collections.abc import Iterable

from flask_ailimit.engine import Charge, Verdict
from flask_ailimit.engine.clock import MICROSECONDS, Clock

_LONGEST_US = MICROSECONDS
_MOST_COUNTS = 4096


class RefusedLately:
    """The counts that refused. Each is kept for a second, or until the request fits again if that is earlier.

    A peek notes nothing, so a note lasts a second at most. Then a full decision is made, which also repairs counts
    after the clock went back.

    Args:
        clock: Returns integer microseconds.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: OrderedDict[tuple[tuple[bytes, bytes], int], int] = OrderedDict()

    def note(self, refused: Iterable[Verdict]) -> None:
        """Remember the counts of these verdicts. If there are too many, the oldest are forgotten."""
        now_us = self._clock()
        for verdict in refused:
            wait_us = _LONGEST_US if verdict.retry_after_us is None else min(verdict.retry_after_us, _LONGEST_US)
            if len(self._until) >= _MOST_COUNTS:
                self._until.popitem(last=False)
            self._until[_note_of(verdict.charge)] = now_us + wait_us

    @property
    def is_empty(self) -> bool:
        """Whether no count was remembered yet."""
        return not self._until

    def has_count(self, counts: Iterable[tuple[tuple[bytes, bytes], int]]) -> bool:
        """Whether any of these counts is remembered, each by its subject and its bucket, and a charge's floor."""
        return not self._until.keys().isdisjoint(counts)

    def has_any(self, charges: Iterable[Charge]) -> bool:
        """Whether the count of any of these charges is remembered."""
        if not self._until:
            return False
        now_us = self._clock()
        return any(self._until.get(_note_of(charge), 0) > now_us for charge in charges)


def _note_of(charge: Charge) -> tuple[tuple[bytes, bytes], int]:
    return charge.counted_in, charge.floor
