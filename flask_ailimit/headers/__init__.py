"""Limit headers: one decision, written in the dialects that clients read.

A dialect is one file with one function from a decision to header pairs. Every value is an integer, a time, or
the validated name of a quota, so no text of a client can reach a header.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from flask_ailimit.engine.decision import Decision
from flask_ailimit.engine.errors import ConfigurationError

from . import anthropic, budget, ietf, near_limit, openai, x_ratelimit

__all__ = [
    "DEFAULT_DIALECTS",
    "DIALECTS",
    "Dialect",
    "exposed_names",
    "limit_headers",
    "require_dialects",
]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a decision is written for one family of clients.

    Attributes:
        write: From a decision to header names and values; empty if the dialect has no word for its units.
        names: Every header name that ``write`` can answer with.
    """

    write: Callable[[Decision], Iterable[tuple[str, str]]]
    names: tuple[str, ...]


DIALECTS: dict[str, Dialect] = {
    "x-ratelimit": Dialect(x_ratelimit.x_ratelimit_headers, x_ratelimit.NAMES),
    "openai": Dialect(openai.openai_headers, openai.NAMES),
    "ietf": Dialect(ietf.ietf_headers, ietf.NAMES),
    "anthropic": Dialect(anthropic.anthropic_headers, anthropic.NAMES),
}
"""The dialects by name. A new one is a file and a line here."""

DEFAULT_DIALECTS = ("x-ratelimit", "openai", "ietf")
"""The dialects that are sent if the app names none."""

_RESPONSE_NAMES = ("Retry-After", "retry-after-ms", "x-should-retry", "x-request-id", "request-id")


def limit_headers(decision: Decision, dialects: Collection[str]) -> list[tuple[str, str]]:
    """Write ``decision`` in each of ``dialects``: names from :data:`DIALECTS`, checked at start-up.

    Behind them stands which quotas are nearly used up, and how budgets stand, unless no dialect is wanted. A quota with
    ``in_headers=False`` is left out.
    """
    told = decision.told()
    headers = [header for name in dialects for header in DIALECTS[name].write(told)]
    if not dialects:
        return headers
    return headers + near_limit.near_limit_headers(told) + budget.budget_headers(told)


def exposed_names(dialects: Iterable[str]) -> str:
    """The value of ``Access-Control-Expose-Headers`` that lets a page's script read all of our headers.

    Names, not ``*``: for a request with credentials the star is just a name (Fetch standard).
    """
    names = [name for dialect in dialects for name in DIALECTS[dialect].names]
    return ", ".join([*names, *([near_limit.NAME, budget.NAME] if names else []), *_RESPONSE_NAMES])


def require_dialects(names: Iterable[str], *, setting: str = "headers") -> tuple[str, ...]:
    """Answer ``names`` without repetitions if each is a dialect.

    Args:
        names: Names of dialects, in the order the headers are to be sent in. Empty sends none.
        setting: What the error calls the setting.

    Raises:
        ConfigurationError: A name is unknown, or ``names`` is one text instead of a list of them.
    """
    known = ", ".join(repr(name) for name in DIALECTS)
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise ConfigurationError(
            f"{setting}: a list of dialects is needed, such as ['openai']. Got {str(names)[:40]!r}. Known: {known}."
        )
    dialects = list(names)
    for name in dialects:
        if not isinstance(name, str) or name not in DIALECTS:
            near = get_close_matches(str(name), DIALECTS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigurationError(f"{setting}: no dialect is called {str(name)[:40]!r}.{hint} Known: {known}.")
    return tuple(dict.fromkeys(dialects))
