"""How far a batch is: a bar where there is a terminal and tqdm, else a line of counts every few seconds."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from flask_ailimit.engine.clock import seconds_running

from .spending import Spending

EVERY: Final = 5.0
"""Seconds between two lines."""

Show = Callable[[bool], None]
"""Is told of each item that is done whether it failed."""


@contextmanager
def shown(wanted: bool, spending: Spending, total: int | None, already: int = 0) -> Iterator[Show]:
    """Show on the standard error how far a batch is, while the block runs.

    Args:
        wanted: Whether to show anything.
        spending: What the calls have used.
        total: The number of items; None if it isn't known.
        already: How many of them were done before.
    """
    if not wanted:
        yield lambda _: None
        return
    bar = _bar if sys.stderr.isatty() and _has_tqdm() else _lines
    with bar(spending, total, already) as show:
        yield show


@contextmanager
def _bar(spending: Spending, total: int | None, already: int) -> Iterator[Show]:
    from tqdm import tqdm  # noqa: PLC0415  it is optional

    failures = 0
    with tqdm(total=total, initial=already, unit=" calls", dynamic_ncols=True, file=sys.stderr) as bar:

        def show(failed: bool) -> None:
            nonlocal failures
            failures += failed
            words = [f"{failures} failed"] if failures else []
            bar.set_postfix_str(", ".join([*words, spending.in_words()]), refresh=False)
            bar.update()

        yield show


@contextmanager
def _lines(spending: Spending, total: int | None, already: int) -> Iterator[Show]:
    begun = said = seconds_running()
    done = failures = 0

    def show(failed: bool) -> None:
        nonlocal said, done, failures
        done, failures = done + 1, failures + failed
        now = seconds_running()
        if now - said >= EVERY:
            said = now
            sys.stderr.write(line(done, failures, total, already, now - begun, spending.in_words()) + "\n")
            sys.stderr.flush()

    yield show
    if done:
        sys.stderr.write(line(done, failures, total, already, seconds_running() - begun, spending.in_words()) + "\n")


def line(done: int, failures: int, total: int | None, already: int, seconds: float, spent: str) -> str:
    """The counts in one line, such as ``120 of 1000, 3 failed, 4.2 a second, 5120 tokens, 0.13 USD, 3 min left``.

    Args:
        done: Items that are done since the beginning.
        failures: How many of them failed.
        total: All items, those done before included; None if it isn't known.
        already: Those that were done before.
        seconds: How long it has taken.
        spent: What was used, in words.
    """
    rate = done / seconds if seconds > 0 else 0.0
    words = [f"{already + done}" if total is None else f"{already + done} of {total}"]
    words += [f"{failures} failed"] if failures else []
    words += [f"{rate:.1f} a second", spent]
    left = 0 if total is None else total - already - done
    if left > 0 and rate > 0:
        words.append(f"{_duration(left / rate)} left")
    return ", ".join(words)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < _MINUTES else f"{minutes // _MINUTES} h {minutes % _MINUTES} min"


_MINUTES = 60


def _has_tqdm() -> bool:
    try:
        import tqdm  # noqa: F401, PLC0415  it is optional
    except ImportError:
        return False
    return True
