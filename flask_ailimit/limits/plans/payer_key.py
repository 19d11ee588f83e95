"""The key function of the limits of plans."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn


@dataclass(frozen=True, eq=False)
class PayerKey:
    """Stands for the payer of a role where Flask-Limiter has a key function.

    The identity of a payer has two parts, role and id, so that no key and no other role's payer has the same counts.
    """

    role: str

    def __call__(self) -> NoReturn:
        """Raise TypeError. Flask-Limiter would call this, but it decides no request."""
        raise TypeError("The payer of a role is found out from the request.")


@lru_cache(maxsize=256)
def payer_key(role: str) -> PayerKey:
    """The key function of a role: one object, because limits with the same key function ask it once a request."""
    return PayerKey(role)
