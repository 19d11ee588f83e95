"""Names of plans that are made of other names."""

import re

from flask_ailimit.engine import ConfigurationError
from flask_ailimit.engine.quota import require_name

_OTHER = re.compile(r"[^A-Za-z0-9_.-]+")
_LONGEST = 60
"""Characters, so that a number still fits behind them."""


class Names:
    """Gives each plan a name of its own."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, wish: str) -> str:
        """A name that is free and that a plan may have, as near to the wish as possible."""
        name = as_name(wish)
        free, number = name, 2
        while free in self._taken:
            free, number = f"{name}-{number}", number + 1
        self._taken.add(free)
        return free


def as_name(wish: str) -> str:
    """A name that a plan may have, as near to the wish as possible."""
    try:
        require_name(wish, _LONGEST)
    except ConfigurationError:
        return _OTHER.sub("-", wish).strip("-._")[:_LONGEST] or "imported"
    return wish
