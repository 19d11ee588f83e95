"""Counting the tokens of a text: what a counter is, and the counters by name."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from typing import Final, Protocol

from flask_ailimit.engine.errors import ConfigurationError

from .estimator import Estimator
from .toktok_counter import ToktokCounter

CERTAIN_SHARE: Final = 4
"""A quarter of an estimated count is certain: no text was found whose estimate is four times its tokens, save for
characters repeated on and on."""


class TokenCounter(Protocol):
    """Counts the tokens of a text. Must take any ``str``, lone surrogates included, and answer an integer from 0."""

    @property
    def exact(self) -> bool:
        """Whether the answer is what the model's own tokenizer would say, not an estimate."""
        ...

    def __call__(self, text: str, /) -> int:
        """Tokens of the text."""
        ...


def octets_of(text: str) -> int:
    """Bytes of the text as UTF-8, where a lone surrogate has three."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


COUNTERS: Final[Mapping[str, Callable[[], TokenCounter]]] = {
    "cl100k_base": partial(ToktokCounter, "cl100k_base"),
    "estimate": Estimator,
    "o200k_base": partial(ToktokCounter, "o200k_base"),
}
"""What makes the counter of each name."""


class FunctionCounter:
    """A function from text to tokens, as a counter. An estimate, unless the function has a true ``exact``."""

    def __init__(self, function: Callable[[str], int], *, exact: bool = False) -> None:
        self.exact = exact or getattr(function, "exact", False) is True
        self._function = function

    def __call__(self, text: str) -> int:
        """What the function answers."""
        return self._function(text)


def exact_counter(function: Callable[[str], int]) -> TokenCounter:
    """Say that a function counts as the model's own tokenizer does. A decorator, for ``token_counter``."""
    return FunctionCounter(function, exact=True)


def open_counter(counter: str | Callable[[str], int] = "estimate") -> TokenCounter:
    """The counter of that name in :data:`COUNTERS`, or the given function as one.

    A vocabulary is loaded here (0.4 s and 64 MB for ``o200k_base``) and not at the first request.

    Raises:
        ConfigurationError: There is no counter of that name, the package that it needs is not installed, or the
            function, tried on a short text, answers no whole number.
    """
    if callable(counter):
        return _tried(FunctionCounter(counter))
    make = COUNTERS.get(counter) if isinstance(counter, str) else None
    if make is None:
        known = ", ".join(map(repr, COUNTERS))
        close = get_close_matches(counter.lower(), COUNTERS, n=1) if isinstance(counter, str) else ()
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise ConfigurationError(
            f"token_counter: there is no counter {str(counter)[:40]!r}. {hint}"
            f"Use one of {known}, or a function from a text to its number of tokens."
        )
    return make()


def _tried(counter: FunctionCounter) -> TokenCounter:
    for text in ("", "Hello, world."):
        answer = counter(text)
        if type(answer) is not int or answer < 0:
            raise ConfigurationError(
                f"token_counter: the function must answer a whole number of tokens. For {text!r} it answered "
                f"{answer!r:.40}; return len(tokenizer.encode(text)), for example."
            )
    return counter
