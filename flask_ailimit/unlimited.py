"""The value for a customer without a limit."""

from enum import Enum
from typing import Final


class Unlimited(Enum):
    """The type of :data:`UNLIMITED`."""

    UNLIMITED = "unlimited"

    def __repr__(self) -> str:
        return "UNLIMITED"


UNLIMITED: Final = Unlimited.UNLIMITED
"""A callable limit returns this if the request has no such limit. None and ``""`` don't mean that."""
