"""What every algorithm is: pure functions of (state, now, quota, cost), all integers.

No clock, lock, socket or logging here: the same inputs give the same answer in any process, in any language.
"""

from collections.abc import Callable, Container
from typing import NamedTuple

from flask_ailimit.engine.quota import Quota

State = tuple[int, ...]
"""What a store keeps of one count, each number in 0..2**53 - 1; ``()`` is a count never used."""


class Step(NamedTuple):
    """The answer to one charge.

    Attributes:
        allowed: The charge fits.
        state: The count afterwards; the same as before if nothing was taken. But when the limit has changed it may be
            another one all the same: the count under this limit, which is to be kept, or the wait would not be true.
        remaining: Units left in ``state``, never negative.
        reset_after_us: Microseconds until ``state`` is as if never used.
        retry_after_us: 0 if allowed; microseconds until the same charge fits; None if it never can.
    """

    allowed: bool
    state: State
    remaining: int
    reset_after_us: int
    retry_after_us: int | None


class Spending(NamedTuple):
    """How a budget stands, in its units.

    Attributes:
        spent: What was used in this window; more than the limit, if calls used more than they had reserved.
        reserved: What calls in flight have reserved of the window besides.
        credit: What is left of the payer's grants that count now, less what is owed; it may be below zero.
        reserved_credit: What calls in flight have reserved of the grants. It is not in ``credit``.
        ends_us: When the window ends, in microseconds since the epoch; the latest of all times if it never does.
    """

    spent: int
    reserved: int
    credit: int
    reserved_credit: int
    ends_us: int


new = tuple.__new__
"""Makes a named tuple of all its values, without the time that calling its own constructor takes."""


class Algorithm(NamedTuple):
    """One way to count.

    Attributes:
        admit: ``(state, now_us, quota, cost, lease) -> Step``. ``lease`` numbers the reservation; only
            concurrency keeps it.
        settle: ``(state, now_us, quota, taken_at_us, cost, actual, lease) -> State``: make the count what it would
            be had ``actual`` been charged in place of ``cost``. What was used too much is charged now. With nothing to
            correct (``cost`` and ``actual`` 0) it only brings the count to the present. ``quota`` is the charge's: the
            limit may have changed since, and this must not undo it.
        expires: ``(state, quota) -> int``: microseconds since the epoch at which the count is as if never used.
        renew: ``(state, now_us, quota, leases) -> State``: make all these leases run for a whole period from now, in
            one step, because each step may look at every number. None where nothing expires early.
        follows_clock: Whether its windows are the periods of the clock, each of which begins anew.
        spending: ``(state, now_us, quota) -> Spending``, where what is reserved is known from what is spent. Such a
            count is settled also if the charge cost what was reserved. None for the others.
    """

    admit: Callable[[State, int, Quota, int, int], Step]
    settle: Callable[[State, int, Quota, int, int, int, int], State]
    expires: Callable[[State, Quota], int]
    renew: Callable[[State, int, Quota, Container[int]], State] | None = None
    follows_clock: bool = False
    spending: Callable[[State, int, Quota], Spending] | None = None
