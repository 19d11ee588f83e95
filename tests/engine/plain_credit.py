"""A budget and credit beside it as their rules say, worked out the slow way: what is used is summed up from a list.

A budget is used first, then the credit, of which the grants that end soonest come first. What comes back returns to the
grants it came from, then to the budget. What was used beyond a reservation is owed if nothing is left, and the next
grant pays it. A window begins with nothing.
"""

from dataclasses import dataclass

HOUR = 3600 * 10**6


@dataclass(eq=False)
class Entry:
    """So much of a window or of a grant. ``work`` is who used it; nobody, if it paid a debt."""

    source: object
    amount: int
    work: object = None


class PlainCredit:
    def __init__(self, limit):
        self.limit = limit
        self.grants = {}
        self.entries = []
        self.owed = 0

    def used(self, source):
        return sum(entry.amount for entry in self.entries if entry.source == source)

    def left_of(self, grant):
        return max(0, grant.amount - self.used(grant.id))

    def room(self, now_us):
        return max(0, self.limit - self.used(self.window(now_us)))

    def window(self, now_us):
        return "the hour", now_us // HOUR

    def known(self, now_us):
        """The grants that count now or later."""
        grants = [grant for grant in self.grants.values() if now_us < grant.ends * 10**6]
        return sorted(grants, key=lambda grant: (grant.ends, grant.id))

    def in_force(self, now_us):
        return [grant for grant in self.known(now_us) if grant.begins * 10**6 <= now_us]

    def balance(self, now_us):
        return sum(map(self.left_of, self.in_force(now_us))) - self.owed

    def left(self, now_us):
        return self.room(now_us) + max(0, self.balance(now_us))

    def burn(self, now_us, amount, work):
        """Take of the credit what there is; answer what is missing."""
        for grant in self.in_force(now_us):
            part = min(amount, self.left_of(grant))
            if part:
                self.entries.append(Entry(grant.id, part, work))
            amount -= part
        return amount

    def take(self, now_us, amount, work):
        part = min(amount, self.room(now_us))
        if part:
            self.entries.append(Entry(self.window(now_us), part, work))
        return self.burn(now_us, amount - part, work)

    def pay(self, now_us):
        self.owed = self.burn(now_us, self.owed, None)

    def reserve(self, now_us, cost, work):
        self.pay(now_us)
        is_owing = self.owed or self.used(self.window(now_us)) > self.limit
        if cost > self.left(now_us) or (is_owing and not self.left(now_us)):
            return False
        assert self.take(now_us, cost, work) == 0
        return True

    def settle(self, now_us, cost, actual, work):
        self.pay(now_us)
        back = max(0, cost - actual)
        for entry in reversed([entry for entry in self.entries if entry.work is work]):
            part = min(back, entry.amount)
            entry.amount, back = entry.amount - part, back - part
        missing = self.take(now_us, max(0, actual - cost), work)
        if self.known(now_us):
            self.owed += missing
        elif missing:
            self.entries.append(Entry(self.window(now_us), missing, work))
        self.pay(now_us)

    def forget(self, now_us, works):
        """Forget what can't matter any more, so that the list stays short. These works go on."""
        matter = {self.window(now_us), *(grant.id for grant in self.known(now_us))}
        self.entries = [e for e in self.entries if e.amount and (e.source in matter or e.work in works)]
