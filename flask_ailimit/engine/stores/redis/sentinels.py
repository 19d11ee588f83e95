"""Asking sentinels for the primary, and telling those that are away from those that don't know it."""

from typing import Any

from redis.exceptions import (
    ConnectionError,  # noqa: A004  redis-py's, as the next
    RedisError,
    TimeoutError,  # noqa: A004
)
from redis.sentinel import MasterNotFoundError, Sentinel


class UnknownPrimaryError(MasterNotFoundError):
    """The sentinels answer, and none has heard of the primary."""


class Sentinels(Sentinel):
    """redis-py's, which says of all that may go wrong that there is no master."""

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Where the primary is.

        Raises:
            UnknownPrimaryError: None of the sentinels that answer knows it.
            RedisError: None answers; one says why, if it isn't away.
        """
        failed: list[RedisError] = []
        known: set[str] = set()
        for number, sentinel in enumerate(self.sentinels):
            try:
                masters: Any = sentinel.sentinel_masters()
            except RedisError as error:
                failed.append(error)
                continue
            known |= {*masters}
            state = masters.get(service_name)
            if state and self.check_master_state(state, service_name):  # type: ignore[no-untyped-call]  # redis-py's
                # The one that knew is asked first the next time.
                self.sentinels[0], self.sentinels[number] = sentinel, self.sentinels[0]
                return state["ip"], state["port"]
        if len(failed) < len(self.sentinels) and service_name not in known:
            names = ", ".join(sorted(known)[:5]) or "none"
            raise UnknownPrimaryError(f"{service_name!r} is none of those that they watch over ({names})")
        for failure in failed:
            # Not so of a login, though redis-py makes its error one of these.
            if type(failure) not in (ConnectionError, TimeoutError):
                raise failure
        raise MasterNotFoundError(f"no primary for {service_name!r}: {failed[-1] if failed else 'it is down'}")
