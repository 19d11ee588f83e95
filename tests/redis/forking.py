"""A process that uses a store, forks, and goes on: ``python forking.py URI SCENARIO`` exits with 0 if all is well.

Every caller has a subject of its own and knows what is left of it: an answer that is another's shows.
"""

import multiprocessing
import os
import secrets
import signal
import sys
import time
import traceback
from contextlib import closing
from threading import Event, Thread

import redis
from fault_proxy import FaultProxy
from redis_servers import wait_until
from redis_stores import store_at

from flask_ailimit.engine import Charge, Engine, Quota
from flask_ailimit.engine.errors import StoreError
from flask_ailimit.engine.quota import CONCURRENCY

DAY = 86400
CALLS = 300
QUOTA = Quota(1_000_000, 360 * DAY, "tokens", "moving-window")
LEASE = Quota(10, 3, CONCURRENCY, CONCURRENCY)
SOMEBODY = b"somebody".ljust(16)


def call_often(store, calls=CALLS):
    """Reserve often, each time something else; fail if an answer is not that to the question."""
    subject, left = secrets.token_bytes(16), QUOTA.limit
    for number in range(1, calls + 1):
        cost = 1 + number % 5
        left -= cost
        decision = store.reserve([Charge(subject, QUOTA, cost)], secrets.randbits(53))
        (verdict,) = decision.verdicts
        assert (verdict.allowed, verdict.remaining) == (True, left), (number, verdict.remaining, left)


def in_threads(count_of_them, work, *arguments):
    """Do it in several threads at once; fail if one of them does."""
    failures = []

    def run():
        try:
            work(*arguments)
        except BaseException as error:  # noqa: BLE001  it is raised below
            failures.append(error)

    threads = [Thread(target=run) for _ in range(count_of_them)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def forked(work, *arguments):
    """Fork; the child does it, and dies after 180 seconds. Answers its process."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        signal.alarm(180)
        work(*arguments)
        code = 0
    except BaseException:  # noqa: BLE001  the child must not go on as a second parent
        traceback.print_exc()
    finally:
        os._exit(code)


def wait_for(children):
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert not any(codes), codes


def warm(uri, **options):
    """A store with several connections."""
    store = store_at(uri, **options)
    in_threads(4, call_often, store, 20)
    return store


def children_and_parent_at_once(uri):
    store = warm(uri)
    children = [forked(call_often, store) for _ in range(4)]
    call_often(store)
    wait_for(children)


def forks_while_threads_call(uri):
    store = warm(uri)
    stop = Event()
    failures = []

    def go_on():
        while not stop.is_set():
            call_often(store, 10)

    def fork_often():
        try:
            for _ in range(5):
                wait_for([forked(call_often, store, 20), forked(in_threads, 3, call_often, store, 10)])
        except AssertionError as error:
            failures.append(error)
        finally:
            stop.set()

    forker = Thread(target=fork_often)
    forker.start()
    in_threads(3, go_on)
    forker.join()
    assert not failures, failures
    call_often(store, 20)


def child_closes(uri):
    store = warm(uri, client_name="parent")
    before = connections_of_the_parent(uri)
    assert before
    wait_for([forked(lambda: (call_often(store, 5), store.close(), call_often(store, 5)))])
    wait_for([forked(store.close)])
    call_often(store)
    assert connections_of_the_parent(uri) >= before


def connections_of_the_parent(uri):
    """Those that the servers of a URI have with a client that calls itself so."""
    ids = set()
    for host in uri.rpartition("/")[2].split(","):
        with redis.Redis(port=int(host.rpartition(":")[2])) as asked:
            ids |= {(host, client["id"]) for client in asked.client_list() if client["name"] == "parent"}
    return ids


def parent_thinks_that_the_server_is_away(uri):
    port = int(uri.rpartition(":")[2])
    with closing(FaultProxy(port)) as proxy:
        store = store_at(proxy.uri)
        call_often(store, 5)
        proxy.refuse()
        proxy.reset_connections()
        for _ in range(5):
            try:
                call_often(store, 1)
            except StoreError as error:
                reason = str(error)
        assert "is away" in reason
        proxy.heal()
        wait_for([forked(call_often, store)])
        wait_until(lambda: is_there(store))
        proxy.refuse()
        proxy.reset_connections()
        wait_for([forked(find_it_away, store)])
        proxy.heal()
        wait_until(lambda: is_there(store))  # What it undid meanwhile may have found the server away.
        call_often(store)


def find_it_away(store):
    for _ in range(5):
        assert not is_there(store)


def is_there(store):
    try:
        call_often(store, 1)
    except StoreError:
        return False
    return True


def leases_of_a_parent_and_of_a_child(uri):
    store = store_at(uri)
    engine = Engine(store, secret=b"x" * 32)
    held = engine.reserve([Charge(SOMEBODY, LEASE, 1)])

    def child():
        assert not engine.leases._held
        taken = engine.reserve([Charge(SOMEBODY, LEASE, 2)])
        for _ in range(3):
            time.sleep(LEASE.period / 2)
            assert in_flight(store) == 3, in_flight(store)
        assert taken.cancel()
        assert in_flight(store) == 1
        engine.reserve([Charge(SOMEBODY, LEASE, 4)])

    wait_for([forked(child)])
    wait_until(lambda: in_flight(store) == 1)
    time.sleep(1.2 * LEASE.period)
    assert in_flight(store) == 1
    assert held.cancel()
    assert in_flight(store) == 0
    engine.close()


def in_flight(store):
    return store.peek([Charge(SOMEBODY, LEASE, 0)]).verdicts[0].used


def multiprocessing_forks(uri):
    global STORE  # noqa: PLW0603  a worker finds it as an app finds its limiter
    STORE = warm(uri)
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(work_of_a_pool, [uri] * 6) == ["inherited"] * 6
        call_often(STORE)


def multiprocessing_spawns(uri):
    store = warm(uri)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(work_of_a_pool, [uri] * 4) == ["its own"] * 4
        call_often(store)


STORE = None


def work_of_a_pool(uri):
    inherited = STORE is not None
    store = STORE or store_at(uri)
    call_often(store, 100)
    in_threads(2, call_often, store, 50)
    return "inherited" if inherited else "its own"


SCENARIOS = [
    children_and_parent_at_once,
    forks_while_threads_call,
    child_closes,
    parent_thinks_that_the_server_is_away,
    leases_of_a_parent_and_of_a_child,
    multiprocessing_forks,
    multiprocessing_spawns,
]

if __name__ == "__main__":
    signal.alarm(500)
    {scenario.__name__: scenario for scenario in SCENARIOS}[sys.argv[2]](sys.argv[1])
