"""Connections that nobody uses at the moment."""

from collections import deque
from queue import Empty
from threading import Condition
from typing import Any

from flask_ailimit.engine.clock import seconds_running


class Stack:
    """What :class:`queue.LifoQueue` does, but without a lock unless somebody waits, which is a tenth of the time.

    Each step of a deque is whole: two threads never take the same item.

    Attributes:
        queue: What is there.
    """

    def __init__(self) -> None:
        self.queue: deque[Any] = deque()
        self._waiting = 0
        self._returned = Condition()

    def put(self, item: Any) -> None:
        """Add an item, and wake somebody who waits for one."""
        self.queue.append(item)
        # Whoever waits has said so before looking: so either they find the item, or they are found waiting here.
        if self._waiting:
            with self._returned:
                self._returned.notify()

    def get(self, timeout: float = 0) -> Any:
        """Take the item that was added last; wait for one for ``timeout`` seconds.

        Raises:
            Empty: There was none in that time.
        """
        try:
            return self.queue.pop()
        except IndexError:
            return self._wait(seconds_running() + timeout)

    def _wait(self, until: float) -> Any:
        with self._returned:
            self._waiting += 1
            try:
                while True:
                    try:
                        return self.queue.pop()
                    except IndexError:  # Perhaps somebody who didn't wait was faster.
                        left = until - seconds_running()
                    if left <= 0:
                        raise Empty
                    self._returned.wait(left)
            finally:
                self._waiting -= 1
