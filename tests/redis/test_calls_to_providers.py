"""What an app's own calls to a provider leave to Redis: what is done once, and what is not brought later."""

from contextlib import closing

import pytest
from lossy_calls import answers
from redis_servers import wait_until
from redis_stores import store_at

from flask_ailimit.engine import Charge, Engine, Quota, Settlement
from flask_ailimit.engine.algorithms.gate import FAULT, OPEN, Outcome, packed, standing_of
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.engine.stores.share import Share, ShareStore
from flask_ailimit.testing import ManualClock

SUBJECT = b"openai".ljust(16)
GATE = Charge(SUBJECT, Quota(1, 60, "gate", "gate"))
LINE = Charge(SUBJECT, Quota(10, 60, "turns", "turns"), 0)
TOKENS = Charge(SUBJECT, Quota(1000, 86400, "tokens", "provider-bucket"), 100)


@pytest.fixture
def store(server):
    with closing(store_at(server.uri)) as store:
        yield store


def left(store, charge):
    return store.peek([charge.costing(0)]).verdicts[0].remaining


def told(units):
    return Settlement(TOKENS.costing(0), 0, units, 0)


def test_what_is_told_beside_settlements_keeps_none_of_them_from_being_done(store):
    """What is told has no lease of its own: a marker that is named by it would be that of all others, too."""
    taken = [store.reserve([TOKENS], lease) for lease in (1, 2, 3)]
    for lease, decision in enumerate(taken, start=1):
        store.settle([told(50), Settlement(TOKENS, decision.at_us, 10, lease)])
    assert left(store, TOKENS) == 970
    store.settle([told(50)])
    assert left(store, TOKENS) == 950


def test_settlement_that_is_sent_again_is_done_once_whatever_is_told_with_it(store):
    decision = store.reserve([TOKENS], 1)
    for units in (1, 2):
        store.settle([told(units), Settlement(TOKENS, decision.at_us, 150, 1)])
        assert left(store, TOKENS) == 850


def test_place_in_the_line_and_what_was_told_are_not_brought_once_the_server_is_back(server, store):
    """Who waited may have had its turn by then. What a call cost is brought, and who leaves the line is gone."""
    refund = Settlement(TOKENS, store.reserve([TOKENS], 1).at_us, 300, 1)
    server.kill()
    store.settle([Settlement(LINE, 0, 1, 2), told(900), refund])
    store.settle([Settlement(LINE, 0, 1, 4)])
    store.settle([told(900)])
    server.restart()
    wait_until(lambda: answers(store, SUBJECT) and left(store, TOKENS) < 1000)
    assert not store._afterwards._errands
    # The server has forgotten what was reserved: of the 300, 200 were used too much.
    assert (left(store, TOKENS), left(store, LINE)) == (800, 10)


def test_probe_of_who_was_interrupted_is_given_back(server):
    clock = ManualClock()
    with closing(store_at(server.uri, clock)) as store:
        engine = Engine(store, secret=bytes(16))
        for _ in range(10):
            assert engine.reserve([GATE]).end(lambda _: packed(Outcome(FAULT, 500)))
        assert standing_of(left(store, GATE))[:2] == (OPEN, 500)
        clock.advance(1)
        probe = engine.reserve([GATE])
        assert not engine.reserve([GATE]).allowed
        probe.open.clear()  # As when its end is interrupted.
        del probe
        engine.leases.give_back()
        assert engine.reserve([GATE]).cancel()
        engine.leases.close()


def test_decision_that_nobody_heard_of_gives_back_its_probe_and_its_tokens(server):
    clock = ManualClock()
    with closing(store_at(server.uri, clock)) as store:
        faults = [Settlement(GATE, clock(), packed(Outcome(FAULT, 500)), 99)] * 10
        store.settle(faults)
        clock.advance(1)
        charges = [GATE, LINE.costing(2), TOKENS]
        assert store.reserve(charges, 5).allowed
        store._undo(charges, 5)
        assert store.reserve([GATE], 6).allowed
        assert left(store, TOKENS) == 1000


@pytest.mark.parametrize("rank", [0, 1, 6])
def test_machine_alone_has_a_gate_and_a_line_of_its_own_and_its_share_of_the_tokens(rank):
    store = ShareStore(MemoryStore(ManualClock()), lambda: Share(rank, 7))
    store.settle([Settlement(LINE, 0, 1, ticket) for ticket in (2, 4)])
    decision = store.reserve([GATE, LINE.costing(5000), TOKENS], 1)
    assert [verdict.allowed for verdict in decision.verdicts] == [True, False, True]
    assert decision.verdicts[1].retry_after == 2
    assert [verdict.limit for verdict in decision.verdicts] == [1, 10, 1000 * (rank + 1) // 7 - 1000 * rank // 7]
    store.renew([(LINE, 2)])
    store.settle([Settlement(LINE, 0, 0, 2)])
    assert left(store, LINE) == 9
