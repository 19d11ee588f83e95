"""A cluster: who has which slot, and the connections to each of its nodes.

What is not known any more is found out by what a node answers (MOVED, ASK), or by asking any of them who has what.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from threading import Event
from typing import Any, TypeVar

from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ClusterError,
    ConnectionError,  # noqa: A004  redis-py's, as the next
    MaxConnectionsError,
    MovedError,
    TimeoutError,  # noqa: A004
    TryAgainError,
)

from flask_ailimit.engine.clock import seconds_running

from .pool import Check, nothing
from .servers import OneServer

_SLOTS = 16_384

_REDIRECTIONS = 4
"""How often a command is sent. While a slot is on its way, a command with several keys may be welcome nowhere."""

_PAUSE = 0.05
"""Seconds before the later ones of these."""

Place = tuple[str, int]
"""Host and port of a node."""

_Answer = TypeVar("_Answer")


class Cluster:
    """A cluster. It is asked who has which slot when it is first used.

    Args:
        node_at: Makes what speaks with the node at a place.
        places: Where some of the nodes are.
        patience: Seconds to ask around for: then no further node is asked.
    """

    slotted = True

    def __init__(self, node_at: Callable[[Place], OneServer], places: Sequence[Place], patience: float) -> None:
        self._node_at = node_at
        self._given = tuple(places)
        self._patience = patience
        self._nodes: dict[Place, OneServer] = {}
        self._known: tuple[Place, ...] = ()
        self._owners: list[Place | None] = []
        self._asking_until = 0.0

    def place_of(self, key: bytes) -> str:  # noqa: D102  see Wire
        return _name(self._owners[key_slot(key)]) if self._owners else ""

    def slot_of(self, key: bytes) -> int:  # noqa: D102  see Wire
        return key_slot(key)

    def key_at(self, place: str, prefix: bytes) -> bytes | None:
        """See :class:`.servers.Wire`. At no place are the slots that nobody has, and all while nobody was asked."""
        self._learn_of_changes(next((owner for owner in {*self._owners} if owner and _name(owner) == place), None))
        owners = self._owners or [None] * _SLOTS
        there = {slot for slot, owner in enumerate(owners) if _name(owner) == place}
        keys = (b"%b:{%x}:probe" % (prefix, number) for number in count(random.getrandbits(32)))
        return next(key for key in keys if key_slot(key) in there) if there else None

    def send(self, command: str, *arguments: bytes, check: Check = nothing) -> Any:
        """See :class:`.servers.Wire`. It is a script: its text or its name, how many keys it has, and they."""
        return self._send_to_slot(key_slot(arguments[2]), command, arguments, check)

    def info(self) -> Mapping[str, str]:  # noqa: D102  see Wire
        return self._ask_around(OneServer.info)[1]

    def clear(self, pattern: bytes) -> None:  # noqa: D102  see Wire
        self._learn()
        for place in {owner for owner in self._owners if owner}:
            for keys in self._node(place).find(pattern):
                for key in keys:
                    self._send_to_slot(key_slot(key), "UNLINK", (key,), nothing)

    def forget(self) -> None:  # noqa: D102  see Wire
        # What is known of the slots is as true in a child.
        self._nodes = {}
        self._asking_until = 0.0

    def close(self) -> None:  # noqa: D102  see Wire
        for node in [*self._nodes.values()]:
            node.close()

    def _send_to_slot(self, slot: int, command: str, arguments: Sequence[bytes], check: Check) -> Any:
        place, asking = self._owner(slot, check), False
        for number in range(_REDIRECTIONS):
            try:
                return self._node(place).send(command, *arguments, check=check, asking=asking)
            except MaxConnectionsError:
                raise  # This process is too busy; the node is not to blame.
            except (ConnectionError, TimeoutError, ClusterDownError):
                self._learn_of_changes(place)
                raise
            except TryAgainError:
                place, asking = self._owner(slot, check), False
                if number >= _REDIRECTIONS // 2:
                    Event().wait(_PAUSE)
            except MovedError as error:
                place, asking = _named(error, place), False
                self._owners[slot] = place
            except AskError as error:
                place, asking = _named(error, place), True
        raise ClusterError("TTL exhausted.")  # As redis-py says it.

    def _node(self, place: Place) -> OneServer:
        node = self._nodes.get(place)
        return node or self._nodes.setdefault(place, self._node_at(place))

    def _owner(self, slot: int, check: Check) -> Place:
        """The node that has a slot; any, which will know, if nobody seems to have it."""
        if not self._owners:
            self._learn(check)
        return self._owners[slot] or random.choice(self._known)  # noqa: S311  no secret

    def _learn_of_changes(self, failing: Place | None) -> None:
        """Ask others who has which slots, unless somebody does already. If none tells, what is known stands."""
        now = seconds_running()
        if now < self._asking_until:
            return
        self._asking_until = now + self._patience  # And not a lock, which somebody could leave without opening it.
        try:
            self._learn(failing=failing)
        except Exception:  # noqa: BLE001, S110  the caller has an error of its own
            pass
        finally:
            self._asking_until = 0.0

    def _learn(self, check: Check = nothing, failing: Place | None = None) -> None:
        asked, told = self._ask_around(lambda node: node.send("CLUSTER", b"SLOTS", check=check), failing)
        owners: list[Place | None] = [None] * _SLOTS
        known: dict[Place, None] = {}
        for first, last, *nodes in told:
            places = [((host or b"").decode() or asked[0], port) for host, port, *_ in nodes]
            owners[first : last + 1] = places[:1] * (last - first + 1)
            known.update(dict.fromkeys(places))
        self._owners, self._known = owners, tuple(known) or self._given
        for gone in {*self._nodes} - {*known, *self._given}:
            node = self._nodes.pop(gone, None)
            if node:
                node.close()

    def _ask_around(self, ask: Callable[[OneServer], _Answer], failing: Place | None = None) -> tuple[Place, _Answer]:
        """Ask one node after the other until one answers: who it is, and what it said.

        Raises:
            RedisError: None does; it is what the last one did instead.
        """
        places = [*dict.fromkeys((*self._known, *self._given))]
        random.shuffle(places)
        places.sort(key=lambda place: place == failing)  # It is asked last.
        until = seconds_running() + self._patience
        while True:
            place = places.pop(0)
            try:
                return place, ask(self._node(place))
            except Exception:
                if not places or seconds_running() > until:
                    raise


def _name(place: Place | None) -> str:
    return f"{place[0]}:{place[1]}" if place else ""


def _named(error: AskError, asked: Place) -> Place:
    """The node that an answer names. A node that doesn't know its own name means the one under which it was asked."""
    return error.host or asked[0], error.port
