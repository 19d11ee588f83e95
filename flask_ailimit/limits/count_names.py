"""The name of a limit's count, which Flask-Limiter calls its scope.

The numbers of a limit are no part of the name, so that usage goes on when they change. Of two limits that would so have
one count, the second has a mark behind its scope.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from flask_limiter._limits import RuntimeLimit

_MARK = "\x1f"  # No scope that an app writes, and no name of an endpoint, has this character.

MarkOf = Callable[["CountedLimit", str], str]
"""Takes a limit and an endpoint, and returns what is added to the limit's scope."""


def unmarked(_limit: "CountedLimit", _endpoint: str) -> str:
    """No mark: for a limit whose count no other limit can have."""
    return ""


@dataclass(eq=True, unsafe_hash=True)
class CountedLimit(RuntimeLimit):
    """A limit that was resolved, which knows the name of its count.

    Attributes:
        provider: The callable that returned the limit; None if the limit is written as a text or a number.
        mark_of: Returns what is added to the limit's scope on an endpoint.
    """

    provider: object = field(default=None, hash=False)
    mark_of: MarkOf = field(default=unmarked, compare=False, repr=False)

    def scope_for(self, endpoint: str, method: str | None) -> str:
        """What separates the limit's count on an endpoint, for a method, from others."""
        return super().scope_for(endpoint, method) + self.mark_of(self, endpoint)


def marked(mark: object) -> str:
    """A mark with this text."""
    return f"{_MARK}{mark}"


def without_mark(scope: str) -> str:
    """A scope as the app wrote it, with the endpoint and the method."""
    return scope.partition(_MARK)[0]


def method_in(scope: str) -> str:
    """The method of a count that is each method's own."""
    return without_mark(scope).rpartition(":")[2]
