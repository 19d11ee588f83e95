"""What the engine should answer, worked out the slow way.

A count is the list of all charges ever made to it. What is used now is summed up from that list; when something will
fit is found by trying. A settlement goes back and corrects the charge in the list, which is what the engine promises,
as far back as a refund reaches. What was used too much is charged when that is known, up to the count's ceiling.
"""

from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import ceil

from flask_ailimit.engine.quota import LATEST_SECOND

SECOND = 1_000_000
SLOT = 300 * SECOND
HORIZON = 2**62


@dataclass(eq=False)
class Charged:
    at_us: int
    units: int | Fraction
    lease: int = 0
    ends_us: int = 0
    held_us: int = 0
    is_held: bool = False


@dataclass
class Count:
    """Of one subject and quota. Sub-classes say what is used at a time; here it is what they have in common."""

    quota: object
    charges: list[Charged] = field(default_factory=list)
    written_us: int = 0

    @property
    def period_us(self):
        return self.quota.period * SECOND

    def seen_at(self, now_us):
        """The count as it looks now: if the clock went back behind its last change, brought to the present."""
        if now_us >= self.written_us:
            return self
        return type(self)(self.quota, self.brought_back(now_us), now_us)

    def write(self, now_us):
        self.charges = self.seen_at(now_us).charges
        self.written_us = now_us

    def refuse(self, now_us):
        """Refusals alone bring a count back, too, if the clock went behind its last change."""
        if now_us < self.written_us:
            self.write(now_us)

    def fits(self, now_us, cost):
        return self.used(now_us) + cost <= self.quota.burst

    def remaining(self, now_us):
        return max(0, self.quota.burst - ceil(self.used(now_us)))

    def retry_after_us(self, now_us, cost):
        if cost > self.quota.burst:
            return None
        return first_us(lambda us: self.fits(now_us + us, cost))

    def reset_after_us(self, now_us):
        return first_us(lambda us: self.used(now_us + us) == 0)

    def take(self, now_us, units, lease):
        self.write(now_us)
        self.charges.append(Charged(now_us, units, lease, now_us + self.period_us))
        return self.charges[-1]

    def settle(self, now_us, charged, actual):
        self.write(now_us)
        if actual > charged.units:
            most = self.quota.ceiling - self.standing(now_us)
            self.charges.append(Charged(now_us, min(actual - charged.units, most)))
        elif self.reaches(now_us, charged):
            charged.units = actual

    def standing(self, now_us):
        """What the ceiling is over."""
        return self.used(now_us)

    def reaches(self, now_us, charged):
        return True


class TokenBucket(Count):
    def used(self, now_us):
        tick, rate = self.quota.tick_us, Fraction(self.quota.limit, self.quota.period * SECOND)
        debt, at = Fraction(0), 0
        for t, units in [*((charged.at_us, charged.units) for charged in self.charges), (now_us, 0)]:
            debt = max(Fraction(0), debt - rate * (t // tick * tick - at)) + units
            at = t // tick * tick
        return debt

    def brought_back(self, now_us):
        return [Charged(now_us, self.used(self.written_us))]


class Windows(Count):
    """What windows of the clock have in common: each pays a limit's worth of what was used beyond the limit."""

    def owed(self, window):
        """What the windows before this one leave to it."""
        of_windows = {}
        for charged in self.charges:
            at = charged.at_us // self.period_us
            of_windows[at] = of_windows.get(at, 0) + charged.units
        owed, last = 0, None
        for at in sorted(at for at in of_windows if at < window):
            if last is not None:
                owed = max(0, owed - (at - last - 1) * self.quota.limit)
            owed, last = max(0, owed + of_windows[at] - self.quota.limit), at
        return owed if last is None else max(0, owed - (window - last - 1) * self.quota.limit)

    def charged_in(self, window):
        return sum(charged.units for charged in self.charges if charged.at_us // self.period_us == window)

    def reaches(self, now_us, charged):
        return now_us // self.period_us - charged.at_us // self.period_us <= 1

    def standing(self, now_us):
        window = now_us // self.period_us
        return self.owed(window) + self.charged_in(window)


class FixedWindow(Windows):
    def used(self, now_us):
        return self.standing(now_us)

    def brought_back(self, now_us):
        if now_us // self.period_us == self.written_us // self.period_us:
            return self.charges
        return [Charged(now_us, self.used(self.written_us))]


class SlidingWindowCounter(Windows):
    def previous(self, now_us):
        window = now_us // self.period_us - 1
        return self.owed(window) + self.charged_in(window)

    def used(self, now_us):
        fading = min(self.previous(now_us), self.quota.limit)
        return self.standing(now_us) + ceil(fading * (1 - Fraction(now_us % self.period_us, self.period_us)))

    def brought_back(self, now_us):
        if now_us // self.period_us == self.written_us // self.period_us:
            return self.charges
        current = self.charged_in(self.written_us // self.period_us)
        return [Charged(now_us - self.period_us, self.previous(self.written_us)), Charged(now_us, current)]


@dataclass
class MovingWindow(Count):
    """What is owed takes all room that becomes free, at the moment when it does."""

    debt = 0
    ended: list[Charged] = field(default_factory=list)

    def later(self, now_us):
        """The charges that count at a later time, and what is then owed."""
        charges, debt = sorted(self.charges, key=lambda charged: charged.at_us), self.debt
        while charges and charges[0].at_us <= now_us - self.period_us:
            at_us = charges.pop(0).at_us + self.period_us
            charges, debt = self.room_taken(charges, debt, at_us)
        return charges, debt

    def room_taken(self, charges, debt, at_us):
        taken = min(debt, max(0, self.quota.limit - sum(charged.units for charged in charges)))
        return [*charges, Charged(at_us, taken)] if taken else charges, debt - taken

    def used(self, now_us):
        charges, debt = self.later(now_us)
        return sum(charged.units for charged in charges) + debt

    def seen_at(self, now_us):
        seen = super().seen_at(now_us)
        seen.debt = self.debt
        return seen

    def write(self, now_us):
        if now_us >= self.written_us:
            self.ended += [charged for charged in self.charges if charged.at_us <= now_us - self.period_us]
            self.charges, self.debt = self.later(now_us)
        super().write(now_us)

    def settle(self, now_us, charged, actual):
        self.write(now_us)
        if actual > charged.units:
            self.debt += actual - charged.units
        else:
            charged.units = actual
        self.charges, self.debt = self.room_taken(self.charges, self.debt, now_us)
        self.debt = min(self.debt, self.quota.ceiling - self.quota.limit)

    def brought_back(self, now_us):
        return [Charged(min(charged.at_us, now_us), charged.units) for charged in self.charges]


class Window(Count):
    """Of one window: it ends where it was to end when it began, and the next one begins with nothing."""

    ends_us = 0

    @property
    def began_us(self):
        return min((charged.at_us for charged in self.charges), default=0)

    def end_of(self, began_us):
        if self.quota.every == "session":
            return began_us + self.period_us
        if self.quota.every == "ever":
            return LATEST_SECOND * SECOND
        if self.quota.every:
            return self.quota.calendar.window(self.quota.every, began_us)[1]
        return began_us // self.period_us * self.period_us + self.period_us

    def used(self, now_us):
        return sum(charged.units for charged in self.charges) if now_us < self.ends_us else 0

    def seen_at(self, now_us):
        """If the clock went back behind the window's beginning, it begins now, and its end is another one."""
        if now_us >= self.began_us:
            return self
        seen = type(self)(self.quota, [replace(charged, at_us=now_us) for charged in self.charges], self.written_us)
        seen.ends_us = self.end_of(now_us)
        return seen

    def refuse(self, now_us):
        if now_us < self.began_us:
            self.write(now_us)

    def write(self, now_us):
        seen = self.seen_at(now_us)
        is_over = now_us >= seen.ends_us or not seen.used(now_us)
        self.charges = [] if is_over else seen.charges
        self.ends_us = self.end_of(now_us) if is_over else seen.ends_us
        self.written_us = now_us

    def take(self, now_us, units, lease):
        self.write(now_us)
        self.charges.append(Charged(now_us, units, lease, held_us=now_us, is_held=True))
        return self.charges[-1]

    def settle(self, now_us, charged, actual):
        self.write(now_us)
        if actual > charged.units:
            self.charges.append(Charged(now_us, actual - charged.units))
        else:
            charged.units = actual
        charged.is_held = False
        self.write(now_us)


class Budget(Window):
    """What is reserved may be given back, and nobody knows when. What is older than two slots will not be."""

    def retry_after_us(self, now_us, cost):
        if cost > self.quota.limit:
            return None
        wait_us = None if self.quota.every == "ever" else super().retry_after_us(now_us, cost)
        held = sum(charged.units for charged in self.charges if self.is_young(charged, now_us))
        if max(1, cost) > max(0, self.quota.limit - self.used(now_us) + held):
            return wait_us
        return 5 * SECOND if wait_us is None else min(wait_us, 5 * SECOND)

    def is_young(self, charged, now_us):
        return charged.is_held and now_us // SLOT - charged.held_us // SLOT <= 1

    def seen_at(self, now_us):
        """If the clock went back to an earlier slot, what was young then is so again, and the rest is not."""
        seen = super().seen_at(now_us)
        if now_us // SLOT >= self.written_us // SLOT:
            return seen
        charges = [replace(c, held_us=now_us, is_held=self.is_young(c, self.written_us)) for c in seen.charges]
        back = type(self)(self.quota, charges, now_us)
        back.ends_us = seen.ends_us
        return back


class Concurrency(Count):
    def used(self, now_us):
        return sum(charged.units for charged in self.charges if charged.ends_us > now_us)

    def brought_back(self, now_us):
        latest = now_us + self.period_us
        return [Charged(c.at_us, c.units, c.lease, min(c.ends_us, latest)) for c in self.charges]

    def retry_after_us(self, now_us, cost):
        if cost > self.quota.burst:
            return None
        left_us = min(c.ends_us for c in self.charges if c.units and c.ends_us > now_us) - now_us
        return min(max(SECOND, self.period_us - left_us), left_us)

    def settle(self, now_us, charged, actual):
        self.write(now_us)
        self.charges = [other for other in self.charges if other.lease != charged.lease]

    def renew(self, now_us, lease):
        self.write(now_us)
        for charged in self.charges:
            if charged.lease == lease and charged.ends_us > now_us:
                charged.ends_us = now_us + self.period_us


COUNTS = {
    "budget": Budget,
    "concurrency": Concurrency,
    "fixed-window": FixedWindow,
    "moving-window": MovingWindow,
    "sliding-window-counter": SlidingWindowCounter,
    "provider-bucket": TokenBucket,
    "token-bucket": TokenBucket,
    "window": Window,
}


def first_us(holds):
    """The smallest number of microseconds from which on ``holds``."""
    if holds(0):
        return 0
    low, high = 0, 1
    while not holds(high):
        low, high = high, 2 * high
        assert high < HORIZON
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


class Reference:
    """All counts, and the decisions over them."""

    def __init__(self):
        self.counts = {}

    def count(self, charge):
        return self.counts.setdefault((charge.subject, charge.bucket), COUNTS[charge.quota.algorithm](charge.quota))

    def reserve(self, charges, now_us, lease):
        """Answer (allowed, remaining, reset after, retry after) for each charge, and what was taken if all fit."""
        asked, fits = {}, []
        for charge in charges:
            count = self.count(charge).seen_at(now_us)
            key = charge.subject, charge.bucket
            total = asked.get(key, 0) + charge.cost
            fits.append((count.fits(now_us, total), total))
            if not charge.dry:
                asked[key] = total
        if not all(fit for fit, _ in fits):
            for charge in charges:
                self.count(charge).refuse(now_us)
            return [
                self.verdict(charge, now_us, fit, 0 if fit else self.count(charge).retry_after_us(now_us, total))
                for charge, (fit, total) in zip(charges, fits, strict=True)
            ], []
        verdicts, taken = [], []
        for charge in charges:
            if charge.cost and not charge.dry:
                taken.append((charge, self.count(charge).take(now_us, charge.cost, lease)))
            verdicts.append(self.verdict(charge, now_us, True, 0))
        return verdicts, taken

    def verdict(self, charge, now_us, fits, retry_after_us):
        count = self.count(charge).seen_at(now_us)
        return fits, count.remaining(now_us), count.reset_after_us(now_us), retry_after_us

    def reset(self, subject=None, bucket=None):
        self.counts = {
            key: count
            for key, count in self.counts.items()
            if subject is not None and (key[0] != subject or bucket not in (None, key[1]))
        }
