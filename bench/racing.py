"""Contestants in turn, each in a process of its own, so that what slows the machine down slows down all of them.

A limiter may have threads of its own, and fill the heap that the garbage collector walks: neither is to be paid for by
another. Only one of them works at a time.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

from figures import Size

Call = Callable[[], Any]
Times = dict[str, list[float]]

TURNS = 3
"""Of each contestant in a block. The middle one counts, so that somebody else's time slice spoils no block."""

_FORK = get_context("fork")


@dataclass(frozen=True)
class Work:
    """What a contestant does.

    Attributes:
        call: Does it once.
        after: Cleans up behind a turn, outside of its time.
        close: Ends it.
    """

    call: Call
    after: Call | None = None
    close: Call | None = None


Open = Callable[[], Work]


def orders(names: list[str], turns: int) -> Iterator[list[str]]:
    """Who goes first changes with every other turn, and who follows whom with each."""
    for turn in range(turns):
        at = turn // 2 % len(names)
        turned = names[at:] + names[:at]
        yield turned if turn % 2 == 0 else turned[::-1]


def race(
    contestants: Mapping[str, Open], size: Size, calls: int | Mapping[str, int], *, blocks: int | None = None
) -> tuple[Times, Times]:
    """What a call takes by the clock, and of the processor.

    Args:
        contestants: Each is opened in its own process.
        size: How many blocks, and what part of the calls.
        calls: How often each is called in a turn, for all or by name.
        blocks: In place of ``size.blocks``.

    Returns:
        Wall time and processor time in microseconds per call, one value per block, by contestant. Processor time is
        that of the contestant's whole process, with all its threads, and not that of a server it asks. It is the
        steadier one where others use the machine too: who starts threads loses his turn to them.

    Raises:
        RuntimeError: A contestant failed; the message says which, and why.
    """
    names, blocks = [*contestants], blocks or size.blocks
    often = {name: size.part(calls if isinstance(calls, int) else calls[name]) for name in names}
    lanes = {name: _Lane(name, contestants[name], often[name]) for name in names}
    wall: Times = {name: [] for name in names}
    processor: Times = {name: [] for name in names}
    try:
        for lane in lanes.values():
            lane.turn()  # The first one warms it up.
        turns = orders(names, blocks * TURNS)
        for _ in range(blocks):
            block: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
            for _ in range(TURNS):
                for name in next(turns):
                    block[name].append(lanes[name].turn())
            for name, taken in block.items():
                wall[name].append(median(each[0] for each in taken))
                processor[name].append(median(each[1] for each in taken))
    finally:
        for lane in lanes.values():
            lane.end()
    return wall, processor


class _Lane:
    """A contestant's process, which waits until it is its turn."""

    def __init__(self, name: str, open_work: Open, calls: int) -> None:
        self._name = name
        self._pipe, theirs = _FORK.Pipe()
        self._process = _FORK.Process(target=_wait_for_turns, args=(theirs, open_work, calls), daemon=True)
        self._process.start()
        theirs.close()

    def turn(self) -> tuple[float, float]:
        """Microseconds per call of one turn, by the clock and of the processor."""
        try:
            self._pipe.send(True)
            answer = self._pipe.recv()
        except (EOFError, OSError):
            answer = "its process ended"
        if isinstance(answer, str):
            raise RuntimeError(f"{self._name}: {answer}")  # noqa: TRY004  it is what the process said
        return answer

    def end(self) -> None:
        """Let it end."""
        with suppress(OSError):
            self._pipe.send(False)
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()


def _wait_for_turns(pipe: Connection, open_work: Open, calls: int) -> None:
    work = None
    try:
        work = open_work()
        while pipe.recv():
            work.call()  # It has slept: its memory must come back into the CPU's caches first.
            start, spent = time.perf_counter_ns(), time.process_time_ns()
            for _ in range(calls):
                work.call()
            spent, taken = time.process_time_ns() - spent, time.perf_counter_ns() - start
            if work.after:
                work.after()
            pipe.send((taken / calls / 1000, spent / calls / 1000))
    except EOFError:
        pass
    except Exception as error:  # noqa: BLE001  the other process raises it
        pipe.send(f"{type(error).__name__}: {error}")
    if work and work.close:
        work.close()
    os._exit(0)  # Nobody waits for threads that a limiter has left.
