"""The connections to a server: nobody shares one, there are never too many, and who waits for one is woken."""

import gc
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock, Semaphore

import pytest
from redis.exceptions import ConnectionError, MaxConnectionsError  # noqa: A004  redis-py's
from redis_servers import PATIENCE, wait_until

from flask_ailimit.engine.stores.redis import pool as pools
from flask_ailimit.engine.stores.redis.pool import MADE_AT_ONCE, Pool


class Connections:
    """Makes connections to nowhere.

    Attributes:
        made: How many there were.
        connected: How many were connected.
        open: How many are connected.
        most_open: The most that were at the same time.
        connecting: How many are being connected.
        most_connecting: The most that were at the same time.
        gate: Each has to pass it to be connected.
        errors: What becomes of the next ones instead.
    """

    def __init__(self):
        self.made = self.connected = self.open = self.most_open = self.connecting = self.most_connecting = 0
        self.gate = Semaphore(1_000_000)
        self.errors = []
        self.lock = Lock()

    def __call__(self):
        self.made += 1
        return Connection(self)


class Connection:
    def __init__(self, all_of_them):
        self._all = all_of_them
        self._connected = False

    def connect(self):
        of = self._all
        with of.lock:
            of.connecting += 1
            of.most_connecting = max(of.connecting, of.most_connecting)
        assert of.gate.acquire(timeout=PATIENCE)
        with of.lock:
            of.connecting -= 1
            if of.errors:
                raise of.errors.pop()
            self._connected = True
            of.connected += 1
            of.open += 1
            of.most_open = max(of.open, of.most_open)

    def disconnect(self):
        with self._all.lock:
            self._all.open -= self._connected
            self._connected = False


@pytest.fixture
def connections():
    return Connections()


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(pools, "PATIENCE", 0.01)


@pytest.fixture
def patient(monkeypatch):
    """The machine may be busy with something else."""
    monkeypatch.setattr(pools, "PATIENCE", PATIENCE)


def test_latest_is_used_first(connections):
    pool = Pool(connections, 3)
    first, second = pool.take(), pool.take()
    pool.put(first)
    pool.put(second)
    assert pool.take() is second
    assert pool.take() is first
    assert connections.made == 2


def test_no_more_than_the_most_are_open_and_who_finds_none_is_told(connections, impatient):
    pool = Pool(connections, 2)
    taken = [pool.take() for _ in range(2)]
    with pytest.raises(MaxConnectionsError, match=r"none of 2 connections was free for 0\.01 s"):
        pool.take()
    pool.put(taken.pop())
    pool.take()
    assert connections.made == connections.most_open == 2


def test_fewer_connections_than_callers_serve_them_all(connections, patient):
    pool, lock, taken = Pool(connections, 3), Lock(), set()

    def take_often(_):
        for _ in range(500):
            connection = pool.take()
            with lock:
                assert connection not in taken
                taken.add(connection)
            with lock:
                taken.remove(connection)
            pool.put(connection)

    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(take_often, range(12))) == [None] * 12
    assert connections.most_open <= 3
    assert not pool._queue


def test_who_waits_is_woken_by_what_is_put_back_and_by_what_is_closed(connections, patient):
    pool = Pool(connections, 4)
    taken = [pool.take() for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(pool.take) for _ in range(4)]
        wait_until(lambda: len(pool._queue) == 4)
        for number, connection in enumerate(taken):
            (pool.put if number % 2 else pool.drop)(connection)
        assert len({each.result() for each in waiting}) == 4
    assert not pool._queue
    assert (connections.made, connections.most_open) == (6, 4)


def test_only_some_are_made_at_once_and_others_are_served_meanwhile(connections, patient):
    connections.gate = Semaphore(1)
    pool = Pool(connections, 64)
    finished = Event()

    def use():
        connection = pool.take()
        pool.put(connection)
        finished.set()

    with ThreadPoolExecutor(MADE_AT_ONCE + 20) as threads:
        used = [threads.submit(use) for _ in range(MADE_AT_ONCE + 20)]
        assert finished.wait(PATIENCE)
        wait_until(lambda: sum(each.done() for each in used) >= 20)
        assert connections.open == 1
        for _ in range(64):
            connections.gate.release()
    assert connections.most_connecting <= MADE_AT_ONCE
    assert connections.open <= MADE_AT_ONCE + 1


def test_who_waits_is_served_in_turn_and_before_all_who_come_later(connections, patient):
    pool, served = Pool(connections, 1), []
    taken = pool.take()

    def use(number):
        connection = pool.take()
        served.append(number)
        pool.put(connection)

    with ThreadPoolExecutor(8) as threads:
        for number in range(8):
            threads.submit(use, number)
            wait_until(lambda number=number: len(pool._queue) == number + 1)
        pool.put(taken)
        use("later")
    assert served == [*range(8), "later"]


def test_who_is_told_while_waiting_that_it_is_no_use_passes_on_what_it_was_woken_for(connections, patient):
    """The server is found to be away: all who wait are told, though only one of them was woken."""
    pool, away = Pool(connections, 1), Event()
    taken = pool.take()

    def check():
        if away.is_set():
            raise ConnectionRefusedError

    with ThreadPoolExecutor(5) as threads:
        waiting = [threads.submit(pool.take, check) for _ in range(5)]
        wait_until(lambda: len(pool._queue) == 5)
        away.set()
        pool.drop(taken)
        for each in waiting:
            with pytest.raises(ConnectionRefusedError):
                each.result(PATIENCE)
    assert connections.connected == 1


def test_one_that_can_not_be_connected_takes_no_place(connections, impatient):
    connections.errors = [ConnectionError("refused") for _ in range(5)]
    pool = Pool(connections, 1)
    for _ in range(5):
        with pytest.raises(ConnectionError):
            pool.take()
    assert pool.take()


def test_one_that_was_lost_by_an_exception_takes_no_place(connections, impatient):
    """Such as a time-out of gevent's, at whatever point."""
    pool = Pool(connections, 2)
    pool.take()
    lost = [pool.take()]
    lost.clear()
    gc.collect()
    assert pool.take()


PRELOADED = """
import os
from flask_ailimit.engine.stores.redis.pool import Pool
class Connection:
    connect = disconnect = lambda self: None
pool = Pool(Connection, 2)
import gevent.monkey
gevent.monkey.patch_all()
def use():
    for _ in range(20):
        connection = pool.take()
        gevent.sleep(0)
        pool.put(connection)
users = [gevent.spawn(use) for _ in range(20)]
gevent.joinall(users, timeout=200)
print(sum(user.successful() for user in users), flush=True)
os._exit(0)
"""


def test_greenlets_wait_for_one_beside_others_though_gevent_came_after_the_import():
    """As with gunicorn's --preload."""
    ran = subprocess.run([sys.executable, "-c", PRELOADED], capture_output=True, text=True, timeout=300, check=False)
    assert (ran.stdout, ran.returncode) == ("20\n", 0), ran.stderr


def test_after_a_fork_there_are_none(connections):
    pool = Pool(connections, 2)
    used, free = pool.take(), pool.take()
    pool.put(free)
    pool.forget()
    taken = [pool.take(), pool.take()]
    assert not {used, free} & {*taken}


def test_free_ones_can_be_closed_and_those_in_use_are_left_alone(connections):
    pool = Pool(connections, 3)
    used, *free = [pool.take() for _ in range(3)]
    for connection in free:
        pool.put(connection)
    pool.clear()
    assert connections.open == 1
    pool.put(used)
    assert pool.take() is used
