"""Turns: the line in which calls to a provider wait, at most ``limit`` of them.

A ticket is a number from 1 to 2**53 - 1. An odd one is that of a batch's call, which comes after all others; within a
class who came first is served first. A place has a lease of ``period`` seconds that is renewed while somebody waits
there, as a slot of ``concurrency`` is, so the place of who died ends by itself.

The cost of a charge is the ticket whose turn is asked for. It fits if nobody is before it, and then it leaves the line.
A ticket without a place comes after all of its class. A refusal tells a second for each who is before it; who waits
knows better how long a call takes. Without a place, where there is none left, it tells that the charge never fits.

A settlement at a cost of 0 takes a place for the ticket that is its lease, if ``actual`` is above 0 and the line is not
full; a place that it has already is renewed. If ``actual`` is 0, that ticket leaves the line.

State: ``(expires1, ticket1, expires2, ticket2, ...)`` in the order of turns.
"""

from flask_ailimit.engine.clock import MICROSECONDS
from flask_ailimit.engine.quota import Quota

from . import concurrency
from .base import Algorithm, State, Step
from .concurrency import expires, renew, running

_TURN_US = MICROSECONDS


def admit(state: State, now_us: int, quota: Quota, cost: int, lease: int) -> Step:  # noqa: ARG001, D103  see Algorithm
    line = running(state, now_us, quota)
    tickets = line[1::2]
    left = max(0, quota.limit - len(tickets))
    before = _before(tickets, cost) if cost else 0
    if before:
        is_left_out = not left and cost not in tickets
        return Step(False, state, left, _reset_us(line, now_us), None if is_left_out else before * _TURN_US)
    if not cost or cost not in tickets:
        return Step(True, state, left, _reset_us(line, now_us), 0)
    rest = line[2:]
    return Step(True, rest, max(0, quota.limit - len(rest) // 2), _reset_us(rest, now_us), 0)


def settle(
    state: State,
    now_us: int,
    quota: Quota,
    taken_at_us: int,
    cost: int,
    actual: int,
    lease: int,
) -> State:
    """Take a place or leave the line, see above. At a cost, it is the ticket that leaves."""
    if cost or not actual:
        return concurrency.settle(state, now_us, quota, taken_at_us, 1, 0, cost or lease)
    line = renew(state, now_us, quota, (lease,))
    tickets = line[1::2]
    if lease in tickets or len(tickets) >= quota.limit:
        return line
    place = 2 * _before(tickets, lease)
    return (*line[:place], now_us + quota.period_us, lease, *line[place:])


def _before(tickets: State, ticket: int) -> int:
    """How many are before a ticket, which comes after all of its class if it has no place."""
    if ticket in tickets:
        return tickets.index(ticket)
    return len(tickets) if ticket % 2 else sum(1 - each % 2 for each in tickets)


def _reset_us(line: State, now_us: int) -> int:
    return max(line[::2]) - now_us if line else 0


TURNS = Algorithm(admit, settle, expires, renew)
