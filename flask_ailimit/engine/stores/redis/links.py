"""The way to the servers: a script with its keys goes there, and its answer comes back, at most once.

redis-py's retries are off: they charge a lost reply twice, and wait for up to a minute. What is sent again is a call
whose connection broke, once, because the scripts know it again; and a script that the server has forgotten.
"""

from collections.abc import Callable, Sequence
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

from flask_ailimit.engine.errors import StoreError
from flask_ailimit.engine.forking import forget_in_children

from .breaker import Breaker, describe
from .scripts import Script, load
from .servers import Check, Wire, nothing

_Answer = TypeVar("_Answer")


def _as_it_is(answer: Any) -> Any:
    return answer


class UnansweredError(StoreError):
    """The call was sent, and nobody knows whether it was obeyed."""


class Link:
    """Runs scripts, and knows which servers are away.

    Args:
        wire: How commands get there.
        name: The store's name in the log.
    """

    def __init__(self, wire: Wire, name: str) -> None:
        self.wire = wire
        self.name = name
        self._listeners: list[Callable[[bool], None]] = []
        self._breakers: dict[str, Breaker] = {}
        forget_in_children(self)

    def watch(self, listener: Callable[[bool], None]) -> None:
        """Call ``listener`` with False when a server goes away and True when it is back, from any thread."""
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
        breaker = self._breaker_of(keys[0])
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
            if "WRONGTYPE" not in str(error):  # That is one key's trouble.
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
        try:
            return self._eval(script, all_keys, arguments, check)
        except (TimeoutError, MaxConnectionsError):
            raise  # Who has waited for so long doesn't wait again.
        except ConnectionError:
            return self._eval(script, all_keys, arguments, check, fresh=True)
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
        *,
        fresh: bool = False,
    ) -> Any:
        rest = (b"%d" % len(keys), *keys, *arguments)
        try:
            return self.wire.send("EVALSHA", script.sha, *rest, check=check, fresh=fresh)
        except NoScriptError:
            return self.wire.send("EVAL", script.text, *rest, check=check, fresh=fresh)

    def _breaker_of(self, key: bytes) -> Breaker:
        place = self.wire.place_of(key)
        breaker = self._breakers.get(place)
        if breaker is None:
            probe_key = key + b":probe"
            name = f"{self.name} {place}".rstrip()
            breaker = Breaker(name, lambda: self._eval(load("probe"), [probe_key], []), self._tell)
            breaker = self._breakers.setdefault(place, breaker)
        return breaker

    def _tell(self, available: bool) -> None:
        for listener in self._listeners:
            listener(available)


def _broke_before(error: BaseException) -> bool:
    """Whether a connection broke before: what was sent through it may have arrived, whatever came of it afterwards."""
    earlier = error.__context__
    while earlier is not None and not isinstance(earlier, ConnectionError):
        earlier = earlier.__context__
    return earlier is not None
