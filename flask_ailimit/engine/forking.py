"""What a child process must not take over from its parent: threads, connections, and locks that another thread held."""

import os
from typing import Protocol
from weakref import WeakSet


class Forgetful(Protocol):
    """Something with threads, connections or locks."""

    def forget(self) -> None:
        """Start anew without them."""


_forks = [0]


def lineage() -> int:
    """A number that a process doesn't share with its parent: what was made under another one is the parent's to end."""
    return _forks[0]


_everywhere: "WeakSet[Forgetful]" = WeakSet()


def forget_in_children(thing: Forgetful) -> None:
    """Let each child process that is forked from now on call ``thing.forget()``, while anybody needs the thing."""
    _everywhere.add(thing)


def _after_fork() -> None:
    _forks[0] += 1
    for thing in _everywhere:
        thing.forget()


os.register_at_fork(after_in_child=_after_fork)
