"""The way to the servers: a script with its keys goes there, and its answer comes back, at most once.

redis-py's retries are off: they charge a lost reply twice, and wait for up to a minute. What is sent again is a call
whose connection broke, once, because the scripts know it again; and a script that the server has forgotten.
"""

import re
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, TypeVar

from redis.exceptions import (
    ClusterError,
    ConnectionError,  # noqa: A004  redis-py's, as the next
    MaxConnectionsError,
    NoScriptError,
    OutOfMemoryError,
    ResponseError,
    TimeoutError,  # noqa: A004
)

from flask_ailimit.engine.clock import seconds_running
from flask_ailimit.engine.errors import StoreError, UnansweredError
from flask_ailimit.engine.forking import forget_in_children

from .breaker import FAILURES_TO_OPEN, Breaker, describe
from .pool import Check, nothing
from .scripts import Script, load
from .servers import Wire

_Answer = TypeVar("_Answer")

_OF_ONE_KEY = re.compile(r"WRONGTYPE|(?:^|\s)user_script:\d+:")
"""In an error: a key of another type, or Lua's own complaint. What a command says in a script comes with an ``@``."""

_SENT_AGAIN_WITHIN = 5.0
"""Seconds: the script must still be known by its marker, which lives for ten, when it arrives a second time."""


def _as_it_is(answer: Any) -> Any:
    return answer


class Link:
    """Runs scripts, and knows which servers are away.

    Args:
        wire: How commands get there.
        name: The store's name in the log.
        failures_to_open: See :class:`.breaker.Breaker`.
    """

    def __init__(self, wire: Wire, name: str, failures_to_open: float = FAILURES_TO_OPEN) -> None:
        self.wire = wire
        self.name = name
        self._failures_to_open = failures_to_open
        self._listeners: list[Callable[[bool], None]] = []
        self._breakers: dict[str, Breaker] = {}
        self._available = True
        self._telling = Lock()
        forget_in_children(self)

    def watch(self, listener: Callable[[bool], None]) -> None:
        """Call ``listener`` with False when a server goes away and True when all are there again, from any thread."""
        self._listeners.append(listener)

    def run(
        self,
        script: Script,
        keys: Sequence[bytes],
        *arguments: bytes,
        markers: Sequence[bytes] = (),
        even_when_full: bool = False,
        read: Callable[[Any], _Answer] = _as_it_is,
    ) -> _Answer:
        """Answer what a script does with keys of one slot, as ``read`` understands it.

        Args:
            script: The script.
            keys: Its keys.
            *arguments: Its arguments.
            markers: More keys, by which it knows itself again. While their slot is on its way to another node of a
                cluster, keys of which one is not there yet can't be used together: then it goes without them.
            even_when_full: It may write when the server's memory is full.
            read: Understands the answer, or raises.

        Raises:
            UnansweredError: It is not known whether it ran.
            StoreError: It did not run: the server is away, or said that it can't.
        """
        place = self.wire.place_of(keys[0])
        breaker = self._breaker_at(place, keys[0])
        breaker.require_closed()
        try:
            answer = read(self._run_once(script, keys, markers, arguments, breaker.require_closed, even_when_full))
        except (StoreError, MaxConnectionsError) as error:
            # The breaker opened meanwhile, or this process is too busy: the server is not to blame.
            if _broke_before(error):
                raise UnansweredError(f"{self.name} was not asked again: {error}") from error
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"{self.name} was not asked: {error}") from error
        except Exception as error:  # redis-py raises more than its own errors while a cluster changes.
            # Where the key turned out to be with another server, that one is asked next, and only then is to blame.
            if not _is_of_one_key(error) and self.wire.place_of(keys[0]) == place:
                breaker.failed(describe(error))
            said_no = isinstance(error, ResponseError) and not _broke_before(error)
            kind = StoreError if said_no else UnansweredError
            raise kind(f"{self.name} didn't answer: {describe(error)}") from error
        breaker.succeeded()
        return answer

    def try_out(self, script: Script, keys: Sequence[bytes], *arguments: bytes) -> Any:
        """As :meth:`run`, but raise what redis-py raises, and tell no breaker."""
        return self._eval(script, keys, arguments)

    def clear(self, pattern: bytes) -> None:
        """Delete every key of a glob pattern.

        Raises:
            StoreError: Not all are known to be deleted.
        """
        try:
            self.wire.clear(pattern)
        except Exception as error:
            raise StoreError(f"{self.name} didn't answer: {describe(error)}") from error

    def close(self) -> None:
        """Stop probing, and close the connections."""
        for breaker in self._breakers.values():
            breaker.stop()
        self.wire.close()

    def forget(self) -> None:
        """Start anew in a child process, which has neither its parent's connections nor its threads."""
        self._breakers = {}
        self._available = True
        self._telling = Lock()
        self.wire.forget()

    def _run_once(
        self,
        script: Script,
        keys: Sequence[bytes],
        markers: Sequence[bytes],
        arguments: Sequence[bytes],
        check: Check,
        even_when_full: bool,
    ) -> Any:
        all_keys = (*keys, *markers)
        began = seconds_running()

        def check_again() -> None:
            check()
            if seconds_running() - began > _SENT_AGAIN_WITHIN:
                raise StoreError("the wait for a connection was too long")

        try:
            return self._eval(script, all_keys, arguments, check)
        except (TimeoutError, MaxConnectionsError):
            raise  # Who has waited for so long doesn't wait again.
        except ConnectionError:
            return self._eval(script, all_keys, arguments, check_again)
        except OutOfMemoryError:
            if not even_when_full:
                raise
            return self._eval(script.when_full, all_keys, arguments, check)
        except ClusterError:
            if not markers:
                raise
            return self._eval(script, keys, arguments, check)

    def _eval(
        self,
        script: Script,
        keys: Sequence[bytes],
        arguments: Sequence[bytes],
        check: Check = nothing,
    ) -> Any:
        rest = (b"%d" % len(keys), *keys, *arguments)
        try:
            return self.wire.send("EVALSHA", script.sha, *rest, check=check)
        except NoScriptError:
            return self.wire.send("EVAL", script.text, *rest, check=check)

    def _breaker_at(self, place: str, key: bytes) -> Breaker:
        """The breaker of the server at a place; the key is any of the store's."""
        breaker = self._breakers.get(place)
        if breaker is None:
            prefix = key.partition(b":")[0]
            name = f"{self.name} {place}".rstrip()
            breaker = Breaker(name, lambda: self._probe(place, prefix), lambda _: self._tell(), self._failures_to_open)
            breaker = self._breakers.setdefault(place, breaker)
        return breaker

    def _probe(self, place: str, prefix: bytes) -> str | None:
        """Ask the server at a place, and no other, whether it can do the work; or say why nobody asks it any more."""
        key = self.wire.key_at(place, prefix)
        if key is None:
            return "it has no slots any more" if place else None
        self._eval(load("probe"), [key], [])
        if self.wire.place_of(key) != place:
            raise StoreError("another server answered: the slot has moved meanwhile")
        return None

    def _tell(self) -> None:
        """Tell of a change, if it is one of them all: the first server went away, or the last one is back."""
        with self._telling:
            available = not any(breaker.is_open for breaker in [*self._breakers.values()])
            if available == self._available:
                return
            self._available = available
            for listener in self._listeners:
                listener(available)


def _is_of_one_key(error: BaseException) -> bool:
    """Whether a script failed over what it found, which no probe would find: the server is well."""
    return isinstance(error, ResponseError) and bool(_OF_ONE_KEY.search(str(error)))


def _broke_before(error: BaseException) -> bool:
    """Whether a connection broke before: what was sent through it may have arrived, whatever came of it afterwards."""
    earlier = error.__context__
    while earlier is not None and not isinstance(earlier, ConnectionError):
        earlier = earlier.__context__
    return earlier is not None
