"""Who pays how much of what, and what it really cost."""

from typing import NamedTuple, Self

from .quota import CONCURRENCY, GATE, MAX_EXACT, PROVIDER_BUCKET, TURNS, Quota

SUBJECT_BYTES = 16

ALLOW = "allow"
DENY = "deny"
LOCAL = "local"
STORE_ERROR_POLICIES = (ALLOW, DENY, LOCAL)
"""What a limit does while the store is away."""

_REPEATABLE = (CONCURRENCY, GATE, PROVIDER_BUCKET, TURNS)
_OF_THE_MOMENT = (PROVIDER_BUCKET, TURNS)


class _ChargeFields(NamedTuple):
    subject: bytes
    quota: Quota
    cost: int
    scope: str
    dry: bool
    on_store_error: str
    floor: int
    shadow: bool


class Charge(_ChargeFields):
    """One subject is to pay ``cost`` units of one quota. Immutable: a named tuple, because every request makes several.

    Attributes:
        subject: Who is limited: 16 bytes from :meth:`flask_ailimit.engine.Engine.subject`, never a raw identity.
        quota: What is allowed.
        cost: Units to take, an integer from 0 to 2**53 - 1. 0 takes nothing, and is refused only by a count that is in
            debt: of which more was used than its limit (or burst).
        scope: Sets apart counts that one subject doesn't share, such as those of two endpoints.
        dry: Take part in the decision, but take nothing.
        on_store_error: What holds while the store is away: ``local`` (this machine's share of the quota), ``allow``
            (pass uncounted) or ``deny`` (raise).
        floor: Units that must be left after it, an integer from 0 to 2**53 - 1: they are kept for others. A charge that
            would then never fit, because cost and floor are more than the limit (or burst), fits if nothing is used.
        shadow: Only try the quota: the charge is decided by itself, and taken if it fits. If it doesn't, it refuses
            nothing. While the store is away it isn't decided. Name such charges last: one whose count finds no place in
            a full record gives way to those before it.

    Raises:
        ValueError: The cost or the floor is no such integer (NaN, infinity, booleans and negative numbers never reach a
            store, where a comparison with NaN would admit), or the subject was not hashed.
    """

    __slots__ = ()

    def __new__(  # noqa: D102  see the class
        cls,
        subject: bytes,
        quota: Quota,
        cost: int = 1,
        scope: str = "",
        dry: bool = False,
        on_store_error: str = DENY,
        floor: int = 0,
        shadow: bool = False,
    ) -> Self:
        if type(subject) is not bytes or len(subject) != SUBJECT_BYTES:
            raise ValueError("subject: 16 bytes are needed. Make them with engine.subject('user-1').")
        if type(cost) is not int or not 0 <= cost <= MAX_EXACT:
            require_cost(cost)
        if floor:
            require_cost(floor, "floor")
        return tuple.__new__(cls, (subject, quota, cost, scope, dry, on_store_error, floor, shadow))

    @property
    def bucket(self) -> bytes:
        """Eight bytes that name this count among the subject's counts."""
        return self.quota.bucket(self.scope)

    @property
    def counted_in(self) -> tuple[bytes, bytes]:
        """The count that is charged: its subject, and its name among the subject's counts."""
        return self.subject, self.bucket

    def costing(self, cost: int) -> "Charge":
        """This charge with another cost.

        Raises:
            ValueError: The cost is not an integer from 0 to 2**53 - 1.
        """
        return Charge(self.subject, self.quota, cost, *self[3:])


class _SettlementFields(NamedTuple):
    charge: Charge
    taken_at_us: int
    actual: int
    lease: int


class Settlement(_SettlementFields):
    """What a charge that was taken really cost.

    Attributes:
        charge: The charge that was taken.
        taken_at_us: Store time of the decision that took it.
        actual: Units really used; the charge's own cost leaves the count as it is.
        lease: The reservation's number. A concurrency charge gives back the slots that it names. At a cost of 0, with
            an ``actual`` above it, that number holds so many slots from now on instead, even beyond the limit. What
            it and ``actual`` mean to ``gate``, ``turns`` and ``provider-bucket`` is said there.

    Raises:
        ValueError: ``actual`` is not an integer from 0 to 2**53 - 1.
    """

    __slots__ = ()

    def __new__(cls, charge: Charge, taken_at_us: int, actual: int, lease: int) -> Self:  # noqa: D102  see the class
        return tuple.__new__(cls, (charge, taken_at_us, require_cost(actual), lease))

    @property
    def is_repeatable(self) -> bool:
        """Done twice it is as done once: at no cost slots and places are only held or given back, and buckets told."""
        return self.charge.cost == 0 and self.charge.quota.algorithm in _REPEATABLE

    @property
    def is_of_the_moment(self) -> bool:
        """Not to be done later: a place for who may have had its turn by then, and what a provider told before."""
        return self.actual > 0 and self.charge.cost == 0 and self.charge.quota.algorithm in _OF_THE_MOMENT


def require_cost(cost: object, name: str = "cost") -> int:
    """Answer ``cost`` if it is an integer from 0 to 2**53 - 1, else raise ``ValueError``."""
    if type(cost) is not int or not 0 <= cost <= MAX_EXACT:
        raise ValueError(f"{name}: a whole number from 0 to {MAX_EXACT} is needed. Got {cost!r:.40}.")
    return cost
