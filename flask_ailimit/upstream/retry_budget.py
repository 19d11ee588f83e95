"""How many retries there may be: a part of the traffic of all workers together, and a few whatever the traffic.

When a provider is in trouble, each retry is one more call to it. So retries are a token bucket in the app's store: a
retry takes one, and ten first attempts give one back. A quiet app may still retry ten times a minute.
"""

from collections.abc import Sequence
from itertools import count

from flask_ailimit.engine import Charge, Engine, Quota, Reservation, Settlement, StoreError
from flask_ailimit.engine.charge import LOCAL

RETRIES = Quota(limit=10, period=60, unit="retries", burst=50)
FIRST_ATTEMPTS_A_RETRY = 10


class RetryBudget:
    """Retries of one upstream account, counted over all workers.

    Args:
        engine: Whose store has the count.
        subject: The account, from ``engine.subject``.
        quota: How many retries there may be without any traffic, and at once.
        first_attempts: How many first attempts earn a retry.
    """

    def __init__(
        self, engine: Engine, subject: bytes, *, quota: Quota = RETRIES, first_attempts: int = FIRST_ATTEMPTS_A_RETRY
    ) -> None:
        self._engine = engine
        self._retry = Charge(subject, quota, on_store_error=LOCAL)
        self._first_attempts = first_attempts
        # Not locked: next() of it is one step of Python's. A worker that ends forgets less than a retry.
        self._seen = count(1)

    def may_retry(self) -> bool:
        """Take a retry, in a store call of its own. Without a store there are none: nobody can count them."""
        try:
            reservation = self._engine.reserve([self._retry])
        except StoreError:
            return False
        reservation.settle({})
        return reservation.allowed

    @property
    def count(self) -> Charge:
        """The charge that asks how many are left, and takes none."""
        return self._retry.costing(0)

    def earned(self, first: Reservation) -> Sequence[Settlement]:
        """Note a first attempt. What comes of it is to be settled with what its reservation is settled with.

        So no call to the store is made for it. Nine times of ten nothing comes of it.

        Args:
            first: What the first attempt has reserved.
        """
        if next(self._seen) % self._first_attempts:
            return ()
        # A refund of what was taken before, and so never more than the bucket lacked at that time and since.
        return [Settlement(self._retry, first.decision.at_us, 0, first.taken.lease)]
