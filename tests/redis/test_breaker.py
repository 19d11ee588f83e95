"""The circuit breaker by itself, before a server that answers when it is told to."""

import threading
import time
from collections import Counter
from contextlib import suppress
from threading import Barrier, Event, Lock, Thread

import pytest
from redis_servers import PATIENCE, wait_until

from flask_ailimit.engine import StoreError
from flask_ailimit.engine.stores.redis import breaker
from flask_ailimit.engine.stores.redis.breaker import Breaker

PROBE_THREAD = "flask_ailimit probe"


class Watched:
    """A server that a breaker watches over.

    Attributes:
        back: Whether probes are answered.
        changes: What the breaker told.
        probes: How many there were, by the thread they were made in.
        at: When each was.
        most_at_once: The most probes that ran at the same time.
    """

    def __init__(self):
        self.back = Event()
        self.changes = []
        self.probes = Counter()
        self.at = []
        self.most_at_once = 0
        self.gate = Event()
        self.gate.set()
        self._lock = Lock()
        self._running = 0
        self.breaker = Breaker("redis 10.0.0.5:6379", self.probe, self.changes.append)

    def probe(self):
        with self._lock:
            self.at.append(time.monotonic())
            self.probes[threading.current_thread().name] += 1
            self._running += 1
            self.most_at_once = max(self.most_at_once, self._running)
        try:
            self.gate.wait(PATIENCE)
            if not self.back.is_set():
                raise ConnectionRefusedError("probe refused")
        finally:
            with self._lock:
                self._running -= 1

    def fail(self, times=1, reason="it broke"):
        for _ in range(times):
            self.breaker.failed(reason)

    def probing(self):
        """How many threads probe for any breaker."""
        return sum(thread.name == PROBE_THREAD for thread in threading.enumerate())


@pytest.fixture
def watched():
    before = {thread for thread in threading.enumerate() if thread.name == PROBE_THREAD}
    watched = Watched()
    yield watched
    watched.gate.set()
    watched.breaker.stop()
    wait_until(lambda: not {t for t in threading.enumerate() if t.name == PROBE_THREAD} - before)


@pytest.mark.parametrize(
    ("calls", "is_open"),
    [("", False), ("f", False), ("ff", False), ("fff", True), ("ffsff", False), ("ffsfff", True), ("fsfsfsf", False)],
)
def test_it_opens_after_exactly_three_failures_in_a_row(watched, calls, is_open):
    for call in calls:
        assert not watched.breaker.is_open
        watched.breaker.require_closed()
        if call == "f":
            watched.breaker.failed("it broke")
        else:
            watched.breaker.succeeded()
    assert watched.breaker.is_open == is_open
    wait_until(lambda: watched.changes == [False] * is_open)


def test_while_open_every_call_fails_at_once_with_the_reason(watched, monkeypatch):
    monkeypatch.setattr(breaker, "_FIRST_WAIT", 600)
    watched.fail(3, "ConnectionError: Error 111")
    for _ in range(1000):
        with pytest.raises(StoreError, match=r"redis 10\.0\.0\.5:6379 is away: ConnectionError: Error 111"):
            watched.breaker.require_closed()
    assert not watched.probes  # The first one is not due yet, and nothing waited for it.


def test_a_reason_that_changes_is_told_as_it_is_now(watched):
    watched.fail(3, "TimeoutError: late")
    wait_until(lambda: watched.probes)

    def reason():
        with pytest.raises(StoreError) as raised:
            watched.breaker.require_closed()
        return str(raised.value)

    wait_until(lambda: reason().endswith("is away: ConnectionRefusedError: probe refused"))


def test_no_request_probes_and_only_one_thread_does(watched):
    watched.gate.clear()
    start = Barrier(16)

    def call():
        start.wait()
        for _ in range(20):
            with suppress(StoreError):
                watched.breaker.require_closed()
            watched.breaker.failed("it broke")  # What was under way when it opened fails, too.
            time.sleep(0)

    threads = [Thread(target=call, name="request") for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: watched.probes)
    wait_until(lambda: watched.probing() == 1)  # Others that were started meanwhile end at once.
    watched.gate.set()
    wait_until(lambda: sum(watched.probes.values()) >= 2)
    assert set(watched.probes) == {PROBE_THREAD}
    assert watched.most_at_once == 1
    wait_until(lambda: watched.changes == [False])


def test_a_probe_that_succeeds_closes_it_and_each_change_is_told_once(watched):
    for outage in range(1, 3):
        watched.back.clear()
        watched.fail(5)
        wait_until(lambda outage=outage: watched.changes == [False, True] * (outage - 1) + [False])
        watched.back.set()
        wait_until(lambda: not watched.breaker.is_open)
        wait_until(lambda outage=outage: watched.changes == [False, True] * outage)
        wait_until(lambda: watched.probing() == 0)
        watched.breaker.require_closed()


def test_after_it_closed_three_further_failures_open_it_and_no_fewer(watched):
    watched.fail(4)
    watched.back.set()
    wait_until(lambda: watched.changes == [False, True])
    watched.fail(2)
    assert not watched.breaker.is_open
    watched.fail()
    assert watched.breaker.is_open


def test_a_listener_hears_of_the_change_when_it_has_happened(watched):
    seen = []
    watched.breaker._on_change = lambda available: seen.append((available, watched.breaker.is_open))
    watched.back.set()
    watched.fail(3)
    wait_until(lambda: seen == [(False, True), (True, False)])


def test_probes_come_after_a_quarter_of_a_second_and_then_less_often(watched):
    began = time.monotonic()
    watched.fail(3)
    wait_until(lambda: len(watched.at) == 2)
    first, second = watched.at[0] - began, watched.at[1] - watched.at[0]
    assert first >= 0.2
    assert second >= 0.4
    assert first + second < 20  # Generous: the machine may be busy.


@pytest.mark.slow
def test_probes_never_come_less_often_than_about_each_half_second(watched):
    watched.fail(3)
    wait_until(lambda: len(watched.at) == 6)
    waits = [later - earlier for earlier, later in zip(watched.at, watched.at[1:], strict=False)]
    assert all(wait >= 0.4 for wait in waits)
    assert sorted(waits)[1] <= 0.75


def test_stopped_it_probes_no_more(watched):
    watched.fail(3)
    wait_until(lambda: watched.probes)
    watched.breaker.stop()
    wait_until(lambda: watched.probing() == 0)
    assert watched.breaker.is_open
    assert watched.changes == [False]


def test_stopped_before_it_opens_it_never_probes(watched):
    watched.back.set()
    watched.breaker.stop()
    watched.fail(3)
    wait_until(lambda: watched.probing() == 0)
    assert not watched.probes


def test_stopped_during_a_probe_that_fails_it_makes_no_other(watched):
    watched.gate.clear()
    watched.fail(3)
    wait_until(lambda: watched.probes)
    watched.breaker.stop()
    watched.gate.set()
    wait_until(lambda: watched.probing() == 0)
    assert sum(watched.probes.values()) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_listener_that_raises_neither_breaks_a_call_nor_keeps_it_open(watched):
    def listen(available):
        watched.changes.append(available)
        raise RuntimeError("a listener's own trouble")

    watched.breaker._on_change = listen
    watched.back.set()
    watched.fail(3)
    wait_until(lambda: not watched.breaker.is_open)
    wait_until(lambda: watched.changes == [False, True])


def test_where_no_thread_can_start_the_call_does_not_suffer(watched):
    """It is open for no longer than until a thread can start again."""
    before = threading.stack_size()
    threading.stack_size(1 << 46)  # As if the system had no thread to give.
    try:
        watched.fail(3)
    finally:
        threading.stack_size(before)
    watched.back.set()
    watched.fail(3)
    wait_until(lambda: not watched.breaker.is_open)


def test_many_threads_through_many_outages_hear_every_change_in_turn(watched):
    """Calls fail while the server is down. However they interleave, away and back alternate."""
    down = Event()
    done = Event()
    refused = Counter()

    def call():
        while not done.is_set():
            try:
                watched.breaker.require_closed()
            except StoreError:
                refused[threading.get_ident()] += 1
                time.sleep(0.001)
                continue
            if down.is_set():
                watched.breaker.failed("down")
            else:
                watched.breaker.succeeded()
            time.sleep(0)

    threads = [Thread(target=call) for _ in range(12)]
    for thread in threads:
        thread.start()
    try:
        for outage in range(1, 4):
            watched.back.clear()
            down.set()
            wait_until(lambda outage=outage: watched.changes == [False, True] * (outage - 1) + [False])
            down.clear()
            watched.back.set()
            wait_until(lambda outage=outage: watched.changes == [False, True] * outage)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert refused
    assert not watched.breaker.is_open
    assert watched.most_at_once == 1
