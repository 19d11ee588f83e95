"""Connections lie in a stack: nobody shares one, and who waits for one is woken."""

from concurrent.futures import ThreadPoolExecutor
from queue import Empty
from threading import Lock

import pytest
from redis_servers import wait_until

from flask_ailimit.engine.stores.redis.stack import Stack

PATIENCE = 20


def stack_of(*items):
    stack = Stack()
    for item in items:
        stack.put(item)
    return stack


def test_latest_is_taken_first():
    stack = stack_of(1, 2, None)
    assert [stack.get() for _ in range(3)] == [None, 2, 1]


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_nothing_is_taken_from_an_empty_stack(timeout):
    with pytest.raises(Empty):
        stack_of().get(timeout=timeout)


def test_who_waits_is_woken_by_what_is_put_back():
    stack = stack_of()
    with ThreadPoolExecutor(4) as threads:
        taken = [threads.submit(stack.get, PATIENCE) for _ in range(4)]
        wait_until(lambda: stack._waiting == 4)
        for item in range(4):
            stack.put(item)
        assert sorted(each.result() for each in taken) == [0, 1, 2, 3]
    assert stack._waiting == 0


def test_threads_never_have_the_same_item_and_none_is_lost():
    stack, lock, taken = stack_of(1, 2, 3), Lock(), set()

    def take_often(_):
        for _ in range(2000):
            item = stack.get(PATIENCE)
            with lock:
                assert item not in taken
                taken.add(item)
            with lock:
                taken.remove(item)
            stack.put(item)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(take_often, range(8))) == [None] * 8
    assert sorted(stack.queue) == [1, 2, 3]
