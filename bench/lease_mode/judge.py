"""Was anything granted that should not have been, or refused though there was room? Shares no code with the limiter.

It knows what was admitted when, and what each of these had really cost by then, and nothing of leases.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from arrivals import SECOND, Request

from flask_ailimit.engine import Quota

_NEVER = -(10**40)


@dataclass
class Findings:
    """What one replay did.

    Attributes:
        granted_beyond: Requests admitted beyond the limit.
        furthest_beyond: By how many units at most.
        near: Requests that came while less than a tenth of the limit was left.
        room_missed: Requests refused although the limit had room for them, by number, with that room in whole units.
    """

    granted_beyond: int = 0
    furthest_beyond: int = 0
    near: int = 0
    room_missed: dict[int, int] = field(default_factory=dict)


class Leaking:
    """The debt of one subject's token bucket, whichever of its charges change later.

    A charge of v after a pause p turns a debt d into max(d - leak * p, 0) + v = max(d + a, m), with a = v - leak * p
    and m = v. Such steps compose to steps of the same kind, so a binary tree of them answers after each change.
    Debt is in units times the period's microseconds.
    """

    def __init__(self, quota: Quota, charges: int) -> None:
        self._leak, self._scale = quota.limit, quota.period * SECOND
        self._room = quota.burst * self._scale
        self._size = 1 << max(0, charges - 1).bit_length()
        self._add = [0] * 2 * self._size
        self._least = [_NEVER] * 2 * self._size
        self._charges: list[int] = []
        self._last_us = 0

    def room(self, now_us: int) -> int:
        """Units that fit, rounded down; negative where there is more debt than there may be."""
        debt = max(self._add[1], self._least[1]) if self._charges else 0
        return (self._room - max(0, debt - (now_us - self._last_us) * self._leak)) // self._scale

    def charge(self, now_us: int, units: int) -> int:
        """Add a charge; answers its number."""
        number, pause = len(self._charges), now_us - self._last_us
        self._charges.append(pause * self._leak if number else 0)
        self._last_us = now_us
        self.change(number, units, now_us, now_us)
        return number

    def change(self, number: int, units: int, taken_at_us: int, now_us: int) -> None:  # noqa: ARG002  as of a window
        """Let a charge be so many units, as if it had always been."""
        at, least, add = number + self._size, self._least, self._add
        add[at], least[at] = units * self._scale - self._charges[number], units * self._scale
        while at > 1:
            at //= 2
            left, right = 2 * at, 2 * at + 1
            add[at] = add[left] + add[right]
            least[at] = max(least[left] + add[right], least[right])


class Windows:
    """The count of one subject's fixed windows."""

    def __init__(self, quota: Quota, charges: int) -> None:  # noqa: ARG002  as of a bucket
        self._limit, self._length = quota.limit, quota.period * SECOND
        self._counts: defaultdict[int, int] = defaultdict(int)
        self._charges: list[int] = []

    def room(self, now_us: int) -> int:
        """Units that fit into the present window."""
        return self._limit - self._counts[now_us // self._length]

    def charge(self, now_us: int, units: int) -> int:
        """Add a charge; answers its number."""
        self._counts[now_us // self._length] += units
        self._charges.append(units)
        return len(self._charges) - 1

    def change(self, number: int, units: int, taken_at_us: int, now_us: int) -> None:
        """Let a charge be so many units, if its window is still running."""
        if taken_at_us // self._length == now_us // self._length:
            self._counts[now_us // self._length] += units - self._charges[number]


def judged(requests: Sequence[Request], admitted: Sequence[bool], quota: Quota) -> Findings:
    """Go through what was admitted, subject by subject. What was used too much is charged when it is known."""
    findings = Findings()
    by_subject: defaultdict[int, list[tuple[int, bool, int]]] = defaultdict(list)
    for number, request in enumerate(requests):
        by_subject[request.subject].append((request.at_us, True, number))
        if admitted[number] and request.actual != request.reserve:
            by_subject[request.subject].append((request.ends_us, False, number))
    kind = Windows if quota.algorithm == "fixed-window" else Leaking
    for events in by_subject.values():
        count = kind(quota, len(events))
        charges: dict[int, int] = {}
        for now_us, asks, number in sorted(events):
            request = requests[number]
            if not asks:
                if request.actual < request.reserve:
                    count.change(charges[number], request.actual, request.at_us, now_us)
                else:
                    count.charge(now_us, request.actual - request.reserve)
                continue
            room = count.room(now_us)
            findings.near += room < quota.burst // 10
            if not admitted[number]:
                if room >= request.reserve:
                    findings.room_missed[number] = room
                continue
            if room < request.reserve:
                findings.granted_beyond += 1
                findings.furthest_beyond = max(findings.furthest_beyond, request.reserve - room)
            charges[number] = count.charge(now_us, request.reserve)
    return findings
