"""Nothing that is raised leaves a lock held."""

import threading

import pytest
from interruptions import Interruption, Worker, interrupt, interrupt_at_the_door

from flask_ailimit.engine import StoreError
from flask_ailimit.engine.mutex import BusyError, mutex, system_mutex
from flask_ailimit.engine.stores.local import LocalStore
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.testing import ManualClock, charge, remaining, reserve


@pytest.fixture(params=[mutex, system_mutex])
def lock(request):
    return request.param()


def holder_of(lock):
    """A thread inside, and what lets it go on."""
    inside, go_on = threading.Event(), threading.Event()
    worker = Worker(lambda: lock.run(lambda: (inside.set(), go_on.wait(60))))
    assert inside.wait(60)
    return worker, go_on


def is_free(lock):
    return Worker(lambda: lock.run(lambda: None)).has_ended()


def test_answer_is_that_of_the_work(lock):
    assert lock.run(lambda: 7) == 7


def test_what_the_work_raises_is_raised_and_the_lock_is_free(lock):
    with pytest.raises(ZeroDivisionError):
        lock.run(lambda: 1 / 0)
    assert is_free(lock)


def test_who_is_interrupted_just_as_it_gets_the_lock_leaves_it_free(lock):
    holder, go_on = holder_of(lock)
    done = []
    waiting = Worker(lambda: lock.run(lambda: done.append(True)))
    interrupt_at_the_door(waiting)
    go_on.set()
    assert holder.has_ended()
    assert waiting.has_ended()
    assert isinstance(waiting.raised, Interruption)
    assert not done
    assert is_free(lock)


def test_who_waits_too_long_is_told_so_and_the_holder_keeps_the_lock(lock):
    holder, go_on = holder_of(lock)
    with pytest.raises(BusyError, match="another thread"):
        lock.run(lambda: None, seconds=0.01)
    with pytest.raises(BusyError):
        lock.run(lambda: None, seconds=0)
    go_on.set()
    assert holder.has_ended()
    assert holder.raised is None
    assert is_free(lock)


def test_thread_that_comes_in_again_is_told_so_and_goes_on(lock):
    """As a stream does that the garbage collector closes in the middle of a decision."""

    def work():
        with pytest.raises(BusyError, match="same thread"):
            lock.run(lambda: None)
        return "went on"

    assert lock.run(work) == "went on"
    assert is_free(lock)


class BlockingClock(ManualClock):
    """Keeps who is inside there, from the second time on that somebody is: the first opens the store."""

    def __init__(self):
        super().__init__()
        self.blocked = threading.Event()
        self.go_on = threading.Event()
        self.blocks = False

    def __call__(self):
        if self.blocks:
            self.blocks = False
            self.blocked.set()
            assert self.go_on.wait(60)
        return super().__call__()


@pytest.fixture(params=["memory", "local"])
def clock_and_store(request, tmp_path):
    clock = BlockingClock()
    store = (
        MemoryStore(clock) if request.param == "memory" else LocalStore(tmp_path / "x", clock=clock, lock_timeout=60)
    )
    reserve(store, charge(1))
    yield clock, store
    clock.go_on.set()
    store.close()


def test_request_that_is_interrupted_at_the_door_of_a_store_leaves_it_open(clock_and_store):
    clock, store = clock_and_store
    clock.blocks = True
    inside = Worker(lambda: reserve(store, charge(1)))
    assert clock.blocked.wait(60)
    waiting = [Worker(lambda: reserve(store, charge(1))) for _ in range(3)]
    for each in waiting:
        interrupt_at_the_door(each)
    clock.go_on.set()
    assert inside.has_ended()
    assert all(each.has_ended() for each in waiting)
    assert all(isinstance(each.raised, Interruption) for each in waiting)
    assert Worker(lambda: reserve(store, charge(1))).has_ended()
    assert remaining(store, charge()) == [7]


def test_request_that_is_interrupted_inside_a_store_charges_nothing(clock_and_store):
    clock, store = clock_and_store
    clock.blocks = True
    inside = Worker(lambda: reserve(store, charge(1)))
    assert clock.blocked.wait(60)
    interrupt(inside)
    clock.go_on.set()
    assert inside.has_ended()
    assert isinstance(inside.raised, Interruption)
    assert remaining(store, charge()) == [9]


def test_store_that_is_asked_from_inside_says_so(clock_and_store):
    """By what the garbage collector ends in the middle of a decision. It used to wait for itself."""
    _, store = clock_and_store

    def step(_):
        with pytest.raises(StoreError, match="same thread"):
            reserve(store, charge(1))

    assert Worker(lambda: store.alone(step)).has_ended()
    assert remaining(store, charge()) == [9]


@pytest.mark.parametrize("seconds", [0, 61, "1", True, None])
def test_wait_that_is_out_of_range_is_refused(tmp_path, seconds):
    with pytest.raises(ValueError, match="lock_timeout: seconds from"):
        LocalStore(tmp_path, lock_timeout=seconds)
