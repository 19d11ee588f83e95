"""What a store is, and the one kind that brings the state to the arithmetic."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Protocol, TypeVar, runtime_checkable

from flask_ailimit.engine import decide
from flask_ailimit.engine.charge import Charge, Settlement
from flask_ailimit.engine.decision import Decision, Settled
from flask_ailimit.engine.errors import StoreError
from flask_ailimit.engine.native import give_way
from flask_ailimit.engine.notice import NOTICE, notice_of

from .renewing import Held, by_count, in_pieces

_RENEWED_AT_ONCE = 50

_Answer = TypeVar("_Answer")


class Store(Protocol):
    """Keeps every count, tells the time, and decides. Each method but ``renew`` is one atomic step and one round trip.

    All raise :class:`flask_ailimit.engine.errors.StoreError` when the store can't answer. Implementations pass
    :class:`flask_ailimit.testing.StoreContract`.

    Attributes:
        nearby: A store on this machine that may decide while this one is away; None if there is none.
    """

    nearby: "Store | None"

    def reserve(self, charges: Sequence[Charge], lease: int) -> Decision:
        """Take every charge, or none if one is refused. A refusal changes nothing.

        ``lease`` is the reservation's own number, 0 to 2**53 - 1: concurrency keeps it, and a store that may see
        a request twice knows it again by it.
        """

    def settle(self, settlements: Sequence[Settlement]) -> Settled:
        """Correct charges that were taken to what they really cost.

        Answers how many counts were unknown, and which passed their soft percent by it. Each is answered to one
        settlement of all processes in a window, or to none if the answer is lost. And which settlements that correct
        nothing found their count below it.
        """

    def renew(self, leases: Sequence[tuple[Charge, int]]) -> None:
        """Let these leases run for a whole period from now. A lease that is gone stays gone.

        Not in one step: many leases are renewed in pieces, between which others decide.
        """

    def peek(self, charges: Sequence[Charge]) -> Decision:
        """Answer as :meth:`reserve` would, and take nothing."""

    def reset(self, subject: bytes | None = None, bucket: bytes | None = None) -> int | None:
        """Forget one count of a subject with its notice, all its counts, or (without a subject) everything.

        Answers how many counts of the subject it forgot, without notices and those that had ended already. A store may
        answer None, which says that it can't tell; so do all when everything is forgotten.
        """

    def watch(self, listener: Callable[[bool], None]) -> None:
        """Call ``listener``, from any thread, with False when the store goes away and True when it is back.

        A store that says nothing of the kind never goes away for long.
        """

    def secret(self) -> bytes | None:
        """A random secret that everyone who opens this store shares, if the store can keep one."""

    def close(self) -> None:
        """Give back files, connections and threads. Closing twice is fine."""


@runtime_checkable
class Shared(Protocol):
    """A store in a place that other apps may come to use by accident."""

    def introduce(self, configuration: str, app: str) -> None:
        """Say once in the log if another configuration is in use there."""

    def discard(self) -> None:
        """Remove the place, once closed, if nothing was ever counted there and nobody else has it open."""


@runtime_checkable
class Located(Protocol):
    """A store that says where its counts are. A store need not be one."""

    @property
    def where(self) -> str:
        """The place in a few words, for the owner of the app: without a password."""


@runtime_checkable
class Agreeing(Protocol):
    """A store of several machines, which must hash identities with one secret, and which keeps none for them."""

    def agree(self, fingerprint: bytes, advice: str) -> None:
        """Raise ``ConfigurationError`` with the advice if others that use the store left another fingerprint."""


@runtime_checkable
class KeepsChanges(Protocol):
    """A store that keeps a trail beside its counts: numbered texts, which no reset and no sweep takes away.

    Attributes:
        shares_changes: Whether other processes read and write the same trail.
    """

    shares_changes: bool

    def changes_from(self, number: int) -> list[tuple[int, str]]:
        """The entries with this number and higher ones, in order. The first number is 1.

        Raises:
            StoreError: The store can't answer, or what it keeps can't be read.
        """

    def add_change(self, text: str, last: int, without: Collection[int] = ()) -> bool:
        """Append an entry, with the number after ``last``, and erase those of ``without``, in one step.

        Answers False, and changes nothing, if ``last`` is not the number of the last entry: somebody else was first.

        Args:
            text: The entry, in one line.
            last: The number of the last entry; 0 if there is none.
            without: Numbers of earlier entries. The other entries keep their numbers.

        Raises:
            StoreError: The store can't keep it.
        """

    def may_lose_changes(self) -> str | None:
        """When the entries may be lost, and what to do, in a sentence; None if they stay, or if that can't be seen."""


@runtime_checkable
class Lasting(Protocol):
    """A store that says whether its counts last. Money is counted only where they do."""

    def may_lose_counts(self) -> str | None:
        """When counts may be lost, and what to do, in sentences; None if they last through a restart.

        A store of which it can't be seen says so, too.

        Raises:
            StoreError: The store can't answer.
        """


class Transaction(Protocol):
    """What a :class:`StateStore` hands to the arithmetic: the only one of its store, at a fixed time."""

    now_us: int

    def read(self, subject: bytes) -> decide.Record:
        """Answer the subject's record, which the caller doesn't change, empty if there is none."""

    def write(self, changes: decide.Changes) -> None:
        """Write the records, all or none. An empty record is deleted."""


class StateStore(ABC):
    """A store that keeps records and leaves the arithmetic to Python: implement :meth:`transaction`."""

    nearby: Store | None = None

    @abstractmethod
    def transaction(self) -> AbstractContextManager[Transaction]:
        """Open a transaction; only one at a time. An exception inside undoes it."""

    @abstractmethod
    def clear(self) -> None:
        """Forget everything."""

    def alone(self, step: Callable[[Transaction], _Answer]) -> _Answer:
        """Answer what ``step`` does with a transaction of its own.

        A time-out may be raised anywhere, between taking a lock and entering the block that gives it back too. A store
        with locks of its own puts something around this which gives them back all the same.
        """
        with self.transaction() as transaction:
            return step(transaction)

    def reserve(self, charges: Sequence[Charge], lease: int) -> Decision:
        """See :class:`Store`."""

        def step(transaction: Transaction) -> Decision:
            decision, changes = decide.decide(transaction.read, charges, transaction.now_us, lease)
            if changes:
                transaction.write(changes)
            return decision

        return self.alone(step)

    def settle(self, settlements: Sequence[Settlement]) -> Settled:
        """See :class:`Store`."""

        def step(transaction: Transaction) -> Settled:
            settled, changes = decide.settle(transaction.read, settlements, transaction.now_us)
            try:
                transaction.write(changes)
            except StoreError:
                if not settled.passed:
                    raise
                # A full store has no room for notices: rather nobody is told than the settlement is lost.
                settled, changes = decide.settle(transaction.read, settlements, transaction.now_us, is_heard=False)
                transaction.write(changes)
            return settled

        return self.alone(step)

    def renew(self, leases: Iterable[tuple[Charge, int]]) -> None:
        """See :class:`Store`."""
        for number, held in enumerate(in_pieces(by_count(leases), _RENEWED_AT_ONCE)):
            if number:
                give_way()
            self.alone(partial(_renew, held))

    def peek(self, charges: Sequence[Charge]) -> Decision:
        """See :class:`Store`."""
        dry = [charge._replace(dry=True) for charge in charges]
        answer = self.alone(lambda transaction: decide.decide(transaction.read, dry, transaction.now_us, 0)[0])
        verdicts = [verdict._replace(charge=charge) for verdict, charge in zip(answer.verdicts, charges, strict=True)]
        return Decision(tuple(verdicts), answer.at_us)

    def watch(self, listener: Callable[[bool], None]) -> None:  # noqa: B027  it may be left as it is
        """See :class:`Store`. Nobody is told: it is part of this machine."""

    def reset(self, subject: bytes | None = None, bucket: bytes | None = None) -> int | None:
        """See :class:`Store`."""
        if subject is None:
            self.clear()
            return None

        def step(transaction: Transaction) -> int:
            record = transaction.read(subject)
            kept: decide.Record = {}
            if bucket is not None:
                kept = {name: count for name, count in record.items() if name not in (bucket, notice_of(bucket))}
            transaction.write({subject: kept})
            forgotten = {name: count for name, count in record.items() if name not in kept}
            return sum(count.state != NOTICE for count in decide.alive(forgotten, transaction.now_us).values())

        return self.alone(step)


def _renew(held: Sequence[Held], transaction: Transaction) -> None:
    transaction.write(decide.renew(transaction.read, held, transaction.now_us))
