"""The word of an app for a customer without a limit."""

from enum import Enum
from typing import Final


class Unlimited(Enum):
    """The type of :data:`UNLIMITED`."""

    UNLIMITED = "unlimited"

    def __repr__(self) -> str:
        return "UNLIMITED"


UNLIMITED: Final = Unlimited.UNLIMITED
"""What a callable limit answers if the request has no such limit. Nothing else says so: not None, not ``""``."""
