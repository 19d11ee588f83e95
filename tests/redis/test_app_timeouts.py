"""An app's own time-out is raised in the middle of a call to Redis: what the call took is given back."""

import subprocess
import sys
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest
from redis.connection import AbstractConnection
from redis_servers import wait_until
from redis_stores import store_at

from flask_ailimit.engine import Charge, Engine, Quota, Settlement

ROOT = Path(find_spec("flask_ailimit").origin).parents[1]
SUBJECT = b"somebody who ask"
SLOT = Quota(50, 3600, "concurrency", "concurrency")
TOKENS = Quota(1000, 3600, "tokens")
REQUESTS = Quota(1000, 3600, "requests")

# The answers to the first 25 of 50 decisions come too late, and those of as many endings.
UNDER_GEVENT = """
from gevent import monkey
monkey.patch_all()
import sys
sys.path.insert(0, {root!r})
import time
import gevent
from flask_ailimit.engine import Charge, Engine, Quota, StoreError, open_store, system_clock

options = {{"timeout": 3, "connect_timeout": 2}}
engine = Engine(open_store({uri!r}, name="app-timeouts", clock=system_clock, options=options), secret=b"x" * 32)
slot = Charge(engine.subject("user-1"), Quota(50, 3600, "concurrency", "concurrency"))

def ask():
    with gevent.Timeout(2, False):
        engine.reserve([slot]).settle({{}})

gevent.joinall([gevent.spawn(ask) for _ in range(50)])
deadline = time.monotonic() + 60
left = None
while left != 0 and time.monotonic() < deadline:
    gevent.sleep(0.05)
    try:
        left = engine.peek([slot]).verdicts[0].used
    except StoreError:
        pass  # This answer was dropped, too.
print("taken:", left)
with gevent.Timeout(60, False):
    print("all at once:", sum(engine.reserve([slot]).allowed for _ in range(50)))
engine.close()
"""


class Interruption(BaseException):
    """As gevent's Timeout is."""


@pytest.fixture
def engine(server):
    with closing(store_at(server.uri)) as store:
        engine = Engine(store, secret=b"x" * 32)
        # So that the server knows the scripts.
        engine.reserve([Charge(b"somebody who was", SLOT), Charge(b"somebody who was", TOKENS, 40)]).cancel()
        yield engine


@pytest.fixture
def interrupted(monkeypatch):
    """Interrupts whoever reads the next answer, before or after the server has done what it was asked."""

    def interrupted(after):
        read = AbstractConnection.read_response

        def interrupt(*arguments, **options):
            monkeypatch.setattr(AbstractConnection, "read_response", read)
            if after:
                read(*arguments, **options)
            raise Interruption

        monkeypatch.setattr(AbstractConnection, "read_response", interrupt)

    return interrupted


def used(engine):
    charges = [Charge(SUBJECT, quota) for quota in (SLOT, TOKENS, REQUESTS)]
    return [verdict.used for verdict in engine.peek(charges).verdicts]


@pytest.mark.parametrize("after", [True, False])
def test_decision_that_was_interrupted_is_undone(engine, interrupted, after):
    interrupted(after)
    with pytest.raises(Interruption):
        engine.reserve([Charge(SUBJECT, SLOT), Charge(SUBJECT, TOKENS, 40), Charge(SUBJECT, REQUESTS)])
    wait_until(lambda: used(engine) == [0, 0, 0])


@pytest.mark.parametrize("after", [True, False])
def test_settlement_that_was_interrupted_arrives_once(engine, interrupted, after):
    reservation = engine.reserve([Charge(SUBJECT, SLOT), Charge(SUBJECT, TOKENS, 40), Charge(SUBJECT, REQUESTS)])
    interrupted(after)
    with pytest.raises(Interruption):
        reservation.settle({"tokens": 7})
    wait_until(lambda: used(engine) == [0, 7, 1])
    wait_until(lambda: not engine.store._afterwards._thread.is_alive())
    assert used(engine) == [0, 7, 1]


def test_connection_that_was_interrupted_is_not_used_for_another_answer(engine, interrupted):
    interrupted(after=False)
    with pytest.raises(Interruption):
        engine.store.settle([Settlement(Charge(SUBJECT, REQUESTS, 0), 0, 0, 1)])
    for _ in range(3):
        assert engine.reserve([Charge(SUBJECT, REQUESTS)]).allowed


def test_slots_of_greenlets_that_were_timed_out_are_given_back(proxy):
    decides = ("EVALSHA", "EVAL")
    proxy.inject("drop_reply", at=1, times=25, command=decides)
    proxy.inject("drop_reply", at=40, times=20, command=decides)
    code = UNDER_GEVENT.format(root=str(ROOT), uri=proxy.uri)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert ran.stdout == "taken: 0\nall at once: 50\n", ran.stderr
