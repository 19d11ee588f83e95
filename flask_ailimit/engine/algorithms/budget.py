"""Budget: a window, or a balance that never ends, and credit beside it. It tells what is spent from what is reserved.

A charge takes first what is left of the window's limit, then the payer's grants, those that end soonest first. A refund
goes the other way round: to the grants from which the charge took, then to the window. What was used beyond a
reservation takes what is left of both. What is then still missing counts in the window, beyond the limit; if the payer
has credit, or if the window never ends, it is a debt instead, which the next grant pays; so does a limit that is
raised, if the window never ends. A window begins with nothing, however much was spent in the one before.

A payer may have used its credit beside a budget of other windows, too, which is another count. A decision takes that
off the grants before they come here.

What is reserved is held until it is settled. A worker that dies leaves it charged. Then it counts as spent after five
to ten minutes: held are the reservations of this slot of five minutes and those of the one before.

State: ``(began, ends, count, before, held, slot)``, and with credit ``(…, debt, grants, uses…)``. ``began`` and
``ends`` are those of a window, in microseconds. ``count`` is what was taken of it, ``before`` and ``held`` the parts of
that which were reserved in the slot before and in this one, ``slot`` the number of this slot. ``grants`` tells how many
grants follow, each as ``(id, ends, used)``. Then comes each use of a grant that is not settled, as ``(lease, second,
id, amount)``.
"""

from typing import NamedTuple

from flask_ailimit.engine.clock import MICROSECONDS
from flask_ailimit.engine.grant import Grant
from flask_ailimit.engine.quota import EVER, LATEST_SECOND, MAX_EXACT, Quota

from .base import Algorithm, Spending, State, Step, new

SLOT_US = 300 * MICROSECONDS
"""A reservation is known as one until the end of the slot after its own; a request may take so long."""

WAIT_US = 5 * MICROSECONDS
"""How long to wait for what others have reserved. Nobody knows when they give it back."""

MOST_ENTRIES = 512
"""How many calls in flight may use a payer's credit: each is an entry in the record, as each grant that was used is."""

_DAY = 86400
_WITHOUT_CREDIT = 6


class _Use(NamedTuple):
    """What a reservation took of a grant."""

    lease: int
    second: int
    id: int
    amount: int


class _Books:
    """A state at a time, to be changed: see the module."""

    __slots__ = (
        "before",
        "began",
        "count",
        "debt",
        "ends",
        "held",
        "is_changed",
        "limit",
        "now_us",
        "quota",
        "slot",
        "used",
        "uses",
    )

    def __init__(self, state: State, now_us: int, quota: Quota) -> None:
        self.now_us = now_us
        self.quota = quota
        self.limit = quota.limit
        self.slot = now_us // SLOT_US
        self.began = now_us
        self.count = self.before = self.held = self.debt = 0
        self.is_changed = False
        self.used: dict[int, tuple[int, int]] = {}
        self.uses: list[_Use] = []
        if state and state[0] <= now_us < state[1]:
            self.began, self.ends = state[0], state[1]
        else:
            self.ends = quota.window_end_us(now_us)
        if not state:
            return
        if now_us < state[1]:
            self.count = state[2]
            passed = self.slot - state[5]
            if passed == 0:
                self.before, self.held = state[3], state[4]
            elif passed == 1:
                self.before = state[4]
            elif passed < 0:  # The clock went back: what is held moves along.
                self.held = state[3] + state[4]
        if len(state) > _WITHOUT_CREDIT:
            self._read_credit(state)

    def _read_credit(self, state: State) -> None:
        now = self.now_us // MICROSECONDS
        ends_now = {grant.id: grant.ends for grant in self.quota.credit}
        self.debt, grants = state[6], state[7]
        uses_at = 8 + 3 * grants
        for at in range(8, uses_at, 3):
            # The end of a grant may have been moved since it was noted.
            ends = max(state[at + 1], ends_now.get(state[at], 0))
            if ends > now:
                self.used[state[at]] = ends, state[at + 2]
        for at in range(uses_at, len(state), 4):
            if state[at + 1] + _DAY > now:
                self.uses.append(_Use(*state[at : at + 4]))
        self.is_changed = self.pay()

    def pay(self) -> bool:
        """Pay of the debt what can be paid, and answer whether that was anything."""
        owed = self.debt
        if owed and self.quota.every == EVER:  # A balance: its limit may have been raised, or something come back.
            paid = min(owed, max(0, self.limit - self.count))
            self.count, self.debt = self.count + paid, self.debt - paid
        if self.debt:
            self.debt -= self.burn(self.debt)
        return self.debt < owed

    @property
    def in_force(self) -> list[Grant]:
        """The payer's grants that count now, those that end soonest first."""
        now = self.now_us // MICROSECONDS
        return [grant for grant in self.quota.credit if grant.begins <= now < grant.ends]

    def left_of(self, grant: Grant) -> int:
        """What is left of a grant."""
        return max(0, grant.amount - self.used[grant.id][1]) if grant.id in self.used else grant.amount

    @property
    def credit(self) -> int:
        """What is left of all grants that count now, less the debt; below zero with more debt than credit."""
        if not self.quota.credit:
            return -self.debt
        return min(sum(map(self.left_of, self.in_force)), MAX_EXACT) - self.debt

    def burn(self, amount: int, lease: int | None = None) -> int:
        """Take up to so much of the grants, and answer how much. With a lease it is only reserved."""
        taken = 0
        for grant in self.in_force:
            part = min(amount - taken, self.left_of(grant))
            if part:
                taken += part
                ends, used = self.used.get(grant.id, (grant.ends, 0))
                self.used[grant.id] = ends, used + part
                if lease is not None:
                    self.uses.append(_Use(lease, self.now_us // MICROSECONDS, grant.id, part))
        return taken

    def end_holding(self, taken_at_us: int, amount: int) -> None:
        """Note that so much of the window that was reserved at a time is not any more."""
        slot = taken_at_us // SLOT_US
        if slot < self.slot - 1:
            return
        of_before = min(self.before, amount) if slot < self.slot else 0
        of_held = min(self.held, amount - of_before)
        # After the clock went back it may be in the other slot.
        of_before += min(self.before - of_before, amount - of_before - of_held)
        self.before, self.held = self.before - of_before, self.held - of_held

    def uses_of(self, lease: int) -> int:
        """How much of the grants a reservation holds."""
        return min(sum(use.amount for use in self.uses if use.lease == lease), MAX_EXACT)

    def end_uses(self, lease: int, amount: int, refund: int) -> None:
        """End so much of a reservation's uses, and give the last part of it, ``refund``, back to the grants."""
        for place in range(len(self.uses) - 1, -1, -1):
            use = self.uses[place]
            if use.lease != lease or not amount:
                continue
            ended = min(use.amount, amount)
            back = min(ended, refund)
            amount, refund = amount - ended, refund - back
            if back and use.id in self.used:
                ends, used = self.used[use.id]
                self.used[use.id] = ends, max(0, used - back)
            self.uses[place] = use._replace(amount=use.amount - ended)
        self.uses = [use for use in self.uses if use.amount]

    @property
    def held_of_credit(self) -> int:
        """What is reserved of the grants by reservations that are young enough to be in flight."""
        if not self.uses:
            return 0
        since = (self.now_us // SLOT_US - 1) * SLOT_US // MICROSECONDS
        return min(sum(use.amount for use in self.uses if use.second >= since), MAX_EXACT)

    def state(self) -> State:
        """The state that these books come to."""
        if not self.used and not self.uses and not self.debt:
            return (self.began, self.ends, self.count, self.before, self.held, self.slot) if self.count else ()
        used = {id_: kept for id_, kept in self.used.items() if kept[1] or any(use.id == id_ for use in self.uses)}
        window = self.began, self.ends, self.count, self.before, self.held, self.slot
        if not used and not self.uses and not self.debt:
            return window if self.count else ()
        grants = [number for id_, (ends, amount) in used.items() for number in (id_, ends, amount)]
        return (*window, self.debt, len(used), *grants, *(number for use in self.uses for number in use))


def admit(state: State, now_us: int, quota: Quota, cost: int, lease: int) -> Step:  # noqa: D103  see Algorithm
    books = _Books(state, now_us, quota)
    room = max(0, books.limit - books.count)
    credit = books.credit if quota.credit or books.debt else 0
    is_owing = not room and credit <= 0 and (books.count > books.limit or books.debt > 0)
    beyond = cost - room
    left = min(room + max(0, credit), MAX_EXACT)
    entries = len(books.uses) + len(books.used) + len(quota.credit)
    refuses = cost > left or (not cost and is_owing) or (beyond > 0 and entries > MOST_ENTRIES)
    if not refuses and cost:
        from_window = min(cost, room)
        books.count += from_window
        books.held += from_window
        if beyond > 0:
            books.burn(beyond, lease)
    present = books.state()
    # After the clock went back, no state that was kept tells it.
    reset_us = max(0, expires(present, quota) - now_us) if present else 0
    # A debt that was paid is kept at once: the grant that paid may end before anything is taken.
    after = present if books.is_changed or (cost and not refuses) else state
    if refuses:
        return new(Step, (False, after, left, reset_us, _wait_us(books, cost)))
    return new(Step, (True, after, left - cost, reset_us, 0))


def settle(  # noqa: D103  see Algorithm
    state: State, now_us: int, quota: Quota, taken_at_us: int, cost: int, actual: int, lease: int
) -> State:
    books = _Books(state, now_us, quota)
    of_credit = min(books.uses_of(lease), cost) if books.uses else 0
    of_window = cost - of_credit
    refund = max(0, cost - actual)
    refund_of_credit = min(refund, of_credit)
    if of_credit:
        books.end_uses(lease, of_credit, refund_of_credit)
    if taken_at_us >= books.began:
        books.end_holding(taken_at_us, of_window)
        books.count -= min(books.count, refund - refund_of_credit)
    if actual > cost:
        beyond = actual - cost
        from_window = min(beyond, max(0, books.limit - books.count))
        books.count += from_window
        beyond -= from_window
        beyond -= books.burn(beyond) if beyond and quota.credit else 0
        if quota.credit or quota.every == EVER:
            books.debt += min(beyond, MAX_EXACT - books.debt)
        else:
            books.count += min(beyond, MAX_EXACT - books.count)
    books.pay()
    return books.state()


def expires(state: State, quota: Quota) -> int:  # noqa: ARG001, D103  see Algorithm
    if len(state) == _WITHOUT_CREDIT:
        return state[1]
    if state[6]:
        return LATEST_SECOND * MICROSECONDS
    last = max(state[9 : 8 + 3 * state[7] : 3], default=0)
    return max(state[1] if state[2] else 0, last * MICROSECONDS)


def spending(state: State, now_us: int, quota: Quota) -> Spending:
    """What is spent and what is reserved of a budget, and what is left of the credit beside it."""
    books = _Books(state, now_us, quota)
    reserved = books.before + books.held
    return Spending(books.count - reserved, reserved, books.credit, books.held_of_credit, books.ends)


def used_of_grants(state: State) -> dict[int, int]:
    """How much was used of each grant by what this count knows, by the grant's id."""
    if len(state) <= _WITHOUT_CREDIT:
        return {}
    return {state[at]: state[at + 2] for at in range(8, 8 + 3 * state[7], 3)}


def _wait_us(books: _Books, cost: int) -> int | None:
    """How long until a cost fits that doesn't now: a guess, if others may give back what it needs; None for never."""
    cost = max(cost, 1)  # A count that owes refuses even a cost of 0, until it has something left.
    unspent = max(0, books.limit - books.count + books.before + books.held)
    certain = _certain_wait_us(books, cost)
    if cost <= unspent + max(0, books.credit + books.held_of_credit):
        return WAIT_US if certain is None else min(WAIT_US, certain)
    return certain


def _certain_wait_us(books: _Books, cost: int) -> int | None:
    """How long until a cost fits, though nobody gives anything back: until a window or a grant begins."""
    moments = {books.ends} if books.quota.every != EVER else set()
    now_us = books.now_us
    moments.update(g.begins * MICROSECONDS for g in books.quota.credit if g.begins * MICROSECONDS > now_us)
    for moment_us in sorted(moments):
        room = books.limit if moment_us >= books.ends else max(0, books.limit - books.count)
        credit = sum(
            books.left_of(grant)
            for grant in books.quota.credit
            if grant.begins * MICROSECONDS <= moment_us < grant.ends * MICROSECONDS
        )
        if cost <= room + max(0, min(credit, MAX_EXACT) - books.debt):
            return moment_us - now_us
    return None


BUDGET = Algorithm(admit, settle, expires, spending=spending)
