"""Work through many items with a few threads: a bounded number at once, and none left half done."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from itertools import islice
from operator import length_hint
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

from flask_ailimit.money import PriceBook

from .batch_progress import shown
from .calling import Tally, calling, calling_now
from .spending import Spending

Item = TypeVar("Item")
Answer = TypeVar("Answer")

LONGEST_WAIT: Final = 86_400.0
"""Seconds that a batch's call waits if nobody says how long: as long as a provider's own batch takes. With the
``max_wait`` of calls that somebody waits for, a pause of ten minutes would fail all items that are left."""

_MOST_WORKERS: Final = 256


@dataclass(frozen=True, slots=True)
class Failed:
    """Stands in the place of an answer that is none.

    Attributes:
        index: The item's place, from 0.
        error: What the function raised.
    """

    index: int
    error: Exception


class Interrupted(KeyboardInterrupt):
    """A batch was interrupted. What was answered until then is here, because it is paid.

    Attributes:
        done: The answers, or :class:`Failed`, by the item's place. An item that isn't there was not begun, or was left
            because of a second interrupt.
    """

    def __init__(self, done: Mapping[int, Any]) -> None:
        super().__init__()
        self.done = done


class Work(Generic[Item, Answer]):
    """The items being worked through. Gives place and answer of each as it is ready; a context manager that waits.

    Items are taken from the iterable in the thread that asks for answers, and never more than two for each worker
    before their answers are taken. At the end of the block no further item begins, and those that run are waited for.
    After an interrupt only :meth:`rest` waits for them, so that a second one is heard at any moment.

    Args:
        function: Is called with each item, in a copy of the context in which this is made.
        items: The items.
        workers: How many run at once, 1 to 256.
        tally: Is told of each call that was settled, in the thread that made it.
    """

    def __init__(
        self, function: Callable[[Item], Answer], items: Iterable[Item], *, workers: int, tally: Tally | None = None
    ) -> None:
        if type(workers) is not int or not 1 <= workers <= _MOST_WORKERS:
            raise ValueError(f"workers: a whole number from 1 to {_MOST_WORKERS} is needed. Got {workers!r:.40}.")
        self._function = function
        self._items = enumerate(items)
        self._workers = workers
        self._tally = tally
        self._todo: SimpleQueue[tuple[int, Item] | None] = SimpleQueue()
        self._ready: SimpleQueue[tuple[int, Answer | Failed] | BaseException] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._open = 0
        self.stopped = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, KeyboardInterrupt):
            # Whoever caught it has waited by rest(), unless a second one came before that. That may have come inside of
            # the event's lock, which is never free then: only a thread that may stay there may ask for it.
            threading.Thread(target=self._begin_no_more, daemon=True).start()
        else:
            self._stop()

    def __iter__(self) -> Iterator[tuple[int, Answer | Failed]]:
        """The answers, in the order in which they come.

        Raises:
            BaseException: What the iterable raised, or what is no ``Exception`` and the function raised.
        """
        while self._fill():
            ready = self._ready.get()
            if isinstance(ready, BaseException):
                raise ready
            self._open -= 1
            yield ready

    def rest(self) -> Iterator[tuple[int, Answer | Failed]]:
        """Begin no further item, wait for those that run, and give their answers."""
        self._stop()
        while not self._ready.empty():
            ready = self._ready.get()
            if not isinstance(ready, BaseException):
                yield ready

    def _fill(self) -> bool:
        """Have as many items waiting or at work as there may be; answer whether there are any."""
        for each in islice(self._items, 2 * self._workers - self._open):
            self._open += 1
            self._todo.put(each)
            if len(self._threads) < self._workers:
                # A daemon, so that a second interrupt ends the process. What it holds has a lease.
                thread = threading.Thread(target=copy_context().run, args=(self._work,), name="batch", daemon=True)
                self._threads.append(thread)
                thread.start()
        return self._open > 0

    def _work(self) -> None:
        outer = calling_now()
        wait = LONGEST_WAIT if outer.wait is None else outer.wait
        with calling(wait=wait, batch=True, tally=self._tally, stop=self.stopped):
            while (each := self._todo.get()) is not None and not self.stopped.is_set():
                index, item = each
                try:
                    self._ready.put((index, self._function(item)))
                except Exception as error:  # noqa: BLE001  it is kept in the item's place
                    self._ready.put((index, Failed(index, error)))
                except BaseException as error:  # noqa: BLE001  who waits for answers raises it
                    self._ready.put(error)
                    return

    def _stop(self) -> None:
        if self.stopped.is_set():
            return  # A second interrupt ended the waiting.
        self._begin_no_more()
        for thread in self._threads:
            thread.join()

    def _begin_no_more(self) -> None:
        self.stopped.set()
        for _ in self._threads:
            self._todo.put(None)


def run(
    function: Callable[[Item], Answer],
    items: Iterable[Item],
    *,
    workers: int = 5,
    progress: bool = False,
    prices: PriceBook | None = None,
) -> list[Answer | Failed]:
    """Call a function with each item, several at once, and return the answers in the order of the items.

    An item whose call raises doesn't end the others, because their answers are paid: in its place is a
    :class:`Failed`, which says why. The calls wait while they would delay others than a batch's, and up to a day if
    ``calling(wait=...)`` around this doesn't say otherwise.

    Args:
        function: Is called in threads, in a copy of this one's context.
        items: Any iterable. It is read as the work goes on.
        workers: How many calls run at once, 1 to 256.
        progress: Show on the standard error how far it is: a bar, if it is a terminal and tqdm is installed; else a
            line every few seconds.
        prices: What models cost, for the progress.

    Raises:
        Interrupted: After Ctrl-C, when the calls that ran then had ended; it has what was answered. After a second one
            at once: then what they had reserved stays charged, and their slots are free when their leases end.
        ValueError: ``workers`` is no such number.
        BaseException: What the iterable raised, or what is no ``Exception`` and the function raised.
    """
    spending = Spending(prices)
    outer = calling_now().tally

    def tally(upstream: str, model: str, usage: Any) -> None:
        spending.tell(upstream, model, usage)
        if outer is not None:
            outer(upstream, model, usage)

    done: dict[int, Answer | Failed] = {}
    total = length_hint(items, -1)
    with (
        shown(progress, spending, None if total < 0 else total) as show,
        Work(function, items, workers=workers, tally=tally) as work,
    ):
        try:
            for index, answer in work:
                done[index] = answer
                show(isinstance(answer, Failed))
        except KeyboardInterrupt:
            with suppress(KeyboardInterrupt):
                done.update(work.rest())
            done.update(work.rest())  # After a second interrupt: what is ready.
            raise Interrupted(done) from None
    return [done[index] for index in range(len(done))]
