"""What is told of a count that passes its soft percent, when Redis or its answer is away."""

from contextlib import closing

import pytest
from redis_servers import wait_until
from redis_stores import store_at

from flask_ailimit.engine import Charge, Engine, Quota, Settled, Settlement

SUBJECT = b"somebody".ljust(16)
QUOTA = Quota(10, 3600, "tokens", "fixed-window", soft_percent=80)
TIMEOUT = 0.3


@pytest.fixture
def store(proxy):
    with closing(store_at(proxy.uri, timeout=TIMEOUT)) as store:
        yield store


def taken(store, cost, lease):
    charge = Charge(SUBJECT, QUOTA, cost)
    return charge, store.reserve([charge], lease).at_us


def used(store):
    (verdict,) = store.peek([Charge(SUBJECT, QUOTA, 0)]).verdicts
    return verdict.used


def test_settlement_that_is_brought_later_is_told_to_nobody_and_the_next_one_is(store, server, proxy):
    first, second = taken(store, 4, 1), taken(store, 4, 2)
    proxy.refuse()
    proxy.reset_connections()
    assert store.settle([Settlement(*first, 5, 1)]) == Settled(0)
    proxy.heal()
    with closing(store_at(server.uri)) as other:
        wait_until(lambda: used(other) == 9)
        (told,) = other.settle([Settlement(*second, 5, 2)]).passed
    assert told.used == 10


def test_process_whose_settlement_is_brought_later_asks_again(store, proxy):
    engine = Engine(store, secret=b"of all engines here")
    quota = Quota(10, 3600, "requests", "fixed-window", soft_percent=80)
    engine.reserve([Charge(SUBJECT, quota, 7)]).settle({})
    unheard, heard = engine.reserve([Charge(SUBJECT, quota)]), engine.reserve([Charge(SUBJECT, quota)])
    proxy.refuse()
    proxy.reset_connections()
    assert unheard.settle({})
    proxy.heal()
    wait_until(lambda: not store._afterwards._thread.is_alive())
    assert heard.settle({})
    assert [verdict.used for verdict in heard.passed] == [9]


def test_settlement_whose_answer_is_lost_is_told_to_nobody_and_not_again_in_its_window(store, proxy):
    first, second = taken(store, 4, 1), taken(store, 4, 2)
    store.settle([Settlement(Charge(b"another".ljust(16), QUOTA, 0), 0, 1, 3)])  # The server knows the script now.
    proxy.inject("drop_reply", command="EVALSHA")
    assert store.settle([Settlement(*first, 5, 1)]) == Settled(0)
    proxy.heal()
    wait_until(lambda: not store._afterwards._thread.is_alive())
    assert store.settle([Settlement(*second, 5, 2)]) == Settled(0)
    assert used(store) == 10
