"""Who pays how much of what, and what it really cost."""

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

from .quota import MAX_EXACT, Quota

SUBJECT_BYTES = 16

ALLOW = "allow"
DENY = "deny"
LOCAL = "local"
STORE_ERROR_POLICIES = (ALLOW, DENY, LOCAL)
"""What a limit does while the store is away."""


@dataclass(frozen=True, slots=True)
class Charge:
    """One subject is to pay ``cost`` units of one quota.

    Attributes:
        subject: Who is limited: 16 bytes from :meth:`flask_ailimit.engine.Engine.subject`, never a raw identity.
        quota: What is allowed.
        cost: Units to take, an integer from 0 to 2**53 - 1. 0 takes nothing and is never refused.
        scope: Sets apart counts that one subject doesn't share, such as those of two endpoints.
        dry: Take part in the decision, but take nothing.
        on_store_error: What holds while the store is away: ``local`` (this machine's share of the quota), ``allow``
            (pass uncounted) or ``deny`` (raise).

    Raises:
        ValueError: The cost is no such integer (NaN, infinity, booleans and negative numbers never reach a
            store, where a comparison with NaN would admit), or the subject was not hashed.
    """

    subject: bytes
    quota: Quota
    cost: int = 1
    scope: str = ""
    dry: bool = False
    on_store_error: str = DENY

    def __post_init__(self) -> None:
        if type(self.subject) is not bytes or len(self.subject) != SUBJECT_BYTES:
            raise ValueError("subject: 16 bytes are needed. Make them with engine.subject('user-1').")
        require_cost(self.cost)

    @property
    def bucket(self) -> bytes:
        """Eight bytes that name this count among the subject's counts."""
        return bucket_name(self.quota, self.scope)


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a charge that was taken really cost.

    Attributes:
        charge: The charge that was taken.
        taken_at_us: Store time of the decision that took it.
        actual: Units really used; the charge's own cost leaves the count as it is.
        lease: The reservation's number. A concurrency charge gives back the slot it names, whatever ``actual`` says.
    """

    charge: Charge
    taken_at_us: int
    actual: int
    lease: int

    def __post_init__(self) -> None:
        require_cost(self.actual)


def require_cost(cost: object) -> int:
    """Answer ``cost`` if it is an integer from 0 to 2**53 - 1, else raise ``ValueError``."""
    if type(cost) is not int or not 0 <= cost <= MAX_EXACT:
        raise ValueError(f"cost: a whole number from 0 to {MAX_EXACT} is needed. Got {cost!r:.40}.")
    return cost


@lru_cache(maxsize=4096)
def bucket_name(quota: Quota, scope: str) -> bytes:
    """Hash what makes a count its own: unit, algorithm, limit, burst, period and scope.

    The limit is part of the name because debt is kept in a scale that depends on it: a changed limit starts afresh.
    """
    parts = (quota.unit, quota.algorithm, str(quota.limit), str(quota.burst), str(quota.period), scope)
    digest = blake2b(digest_size=8)
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(4, "little") + encoded)
    return digest.digest()
