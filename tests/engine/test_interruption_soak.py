"""Exceptions at random points, in threads and by signals: nothing stays held."""

import gc
import random
import signal
import sys
import threading
from contextlib import suppress
from functools import partial

import pytest
from children import exit_code_of_child
from flask import Flask, Response
from interruptions import Interruption, Worker, comes_true, interrupt

from flask_ailimit import AILimiter
from flask_ailimit.engine import Charge, Engine, Quota, leases
from flask_ailimit.engine.stores.local import LocalStore
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.testing import ManualClock

LEASE = 60
SLOT = Quota(10_000, LEASE, "concurrency", "concurrency")
REQUESTS = Quota(10**9, 60, "requests")
HOW_MANY = [60, pytest.param(25_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]

in_every_number = pytest.mark.parametrize("number", HOW_MANY)


@pytest.fixture(autouse=True)
def undisturbed(monkeypatch):
    """What is raised where nobody can catch it is forgotten. pytest would keep it, and what its traceback knows."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)


@pytest.fixture(params=["memory", "local"])
def engine(request, tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "_LOOK_EVERY", 0.01)
    clock = ManualClock()
    store = (
        MemoryStore(clock) if request.param == "memory" else LocalStore(tmp_path / "x", clock=clock, lock_timeout=60)
    )
    engine = Engine(store, secret=b"x" * 32)
    engine.clock = clock
    yield engine
    engine.close()


def charges(engine):
    return [Charge(engine.subject("user-1"), quota) for quota in (SLOT, REQUESTS)]


def ask(engine):
    reservation = engine.reserve(charges(engine))
    try:
        pass
    finally:
        reservation.settle({})


def require_nothing_held(engine):
    """No lock: other threads and processes come in. No lease is renewed, and no slot held for longer than a lease."""
    assert Worker(partial(ask, engine)).has_ended()
    if isinstance(engine.store, LocalStore):
        assert exit_code_of_child(lambda: ask(engine)) == 0
    assert comes_true(lambda: knows_of_no_lease(engine))
    engine.clock.advance(LEASE)
    assert engine.peek(charges(engine)).verdicts[0].used == 0


def knows_of_no_lease(engine):
    """Whether it has given back all of them. A thread that looks for those just now has some in its hands."""
    gc.collect()
    engine.leases.give_back()
    return engine.leases._held == {}


@in_every_number
def test_nothing_stays_held_by_threads_that_are_interrupted(engine, number):
    stop = threading.Event()

    def work():
        while not stop.is_set():
            with suppress(Interruption):
                while not stop.is_set():
                    ask(engine)

    draw, raised = random.Random(), 0
    workers = [Worker(work) for _ in range(2)]
    for _ in range(number):
        worker = draw.choice(workers)
        interrupt(worker)
        stop.wait(draw.random() * 3e-4)
        if not worker.is_alive():  # It was interrupted beside of what catches that.
            raised += 1
            workers = [each if each.is_alive() else Worker(work) for each in workers]
    stop.set()
    assert all(worker.has_ended() for worker in workers)
    require_nothing_held(engine)


class Signals:
    """Has a handler raise in the main thread, in the middle of the library."""

    def __init__(self, number):
        self.raised = 0
        self._number = number
        self._stopped = threading.Event()
        self._before = signal.signal(signal.SIGUSR1, self._handle)

    def interrupt(self, work):
        """Do the work again and again until it has been interrupted so often."""
        sender = Worker(self._send)
        while self.raised < self._number:
            with suppress(Interruption):
                work()
        self._stopped.set()
        assert sender.has_ended()  # One more signal would end the process by then.
        signal.signal(signal.SIGUSR1, self._before)

    def _handle(self, _, frame):
        if "flask_ailimit/" in frame.f_code.co_filename:
            self.raised += 1
            raise Interruption

    def _send(self):
        draw = random.Random()
        while not self._stopped.wait(draw.random() * 5e-4):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)


@in_every_number
def test_nothing_stays_held_when_a_handler_of_signals_raises(engine, number):
    Signals(number).interrupt(partial(ask, engine))
    require_nothing_held(engine)


@in_every_number
def test_nothing_of_an_app_stays_held_when_a_handler_of_signals_raises(number, monkeypatch):
    monkeypatch.setattr(leases, "_LOOK_EVERY", 0.01)
    clock = ManualClock()
    monkeypatch.setattr("flask_ailimit.engine.clock.system_clock", clock)
    app = Flask("interrupted")
    limiter = AILimiter(lambda: "user-1", app=app, storage_uri="memory://")

    @app.get("/")
    @limiter.limit_concurrency(10_000)
    def view():
        return Response(iter([b"one ", b"two"]), mimetype="text/plain")

    client = app.test_client()

    def get():
        with client.get("/") as response:
            assert response.data == b"one two"

    Signals(number).interrupt(get)
    get()
    assert comes_true(lambda: knows_of_no_lease(limiter.engine))
    limiter.engine.close()
