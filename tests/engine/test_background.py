"""The threads that work in the background."""

import contextvars
import threading

from interruptions import comes_true

from flask_ailimit.engine import Charge, Engine, Quota, leases
from flask_ailimit.engine.background import started
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.testing import ManualClock

whose = contextvars.ContextVar("whose")


def give_threads_their_starters_context(monkeypatch):
    """As OpenTelemetry, sentry-sdk and pytest-check do, and CPython with ``-X thread_inherit_context``."""
    start = threading.Thread.start

    def start_with_context(thread):
        run, context = thread.run, contextvars.copy_context()
        thread.run = lambda: context.run(run)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_with_context)


def test_a_thread_in_the_background_knows_nothing_of_who_started_it(monkeypatch):
    give_threads_their_starters_context(monkeypatch)
    whose.set("the request's")
    seen = []
    assert started(lambda: seen.append(whose.get(None)), "test")
    assert comes_true(lambda: seen)
    assert seen == [None]


def test_the_thread_that_a_request_starts_does_not_keep_its_reservation(monkeypatch):
    give_threads_their_starters_context(monkeypatch)
    monkeypatch.setattr(leases, "_LOOK_EVERY", 0.01)
    engine = Engine(MemoryStore(ManualClock()), secret=b"x" * 32)
    slot = Charge(engine.subject("user-1"), Quota(10, 60, "concurrency", "concurrency"))

    def request():
        holds = []
        whose.set(holds)  # As Flask's context has the request.
        holds.append(engine.reserve([slot]))

    contextvars.copy_context().run(request)
    assert comes_true(lambda: not engine.leases._held)
    engine.close()
