"""The limiters of the app that a command looks at."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import click
import flask

from .engine.stores.memory import MemoryStore
from .extension import AILimiter
from .limits.in_words import name_of

_Command = TypeVar("_Command", bound=Callable[..., None])


def limiter_option(words: str) -> Callable[[_Command], _Command]:
    """The option ``--limiter``, whose value a command gets as ``number``.

    Args:
        words: What the command's help says of it.
    """
    return click.option("--limiter", "number", type=click.IntRange(1), help=words)


def limiters_of_app(number: int | None, *, with_counts: bool = False) -> Iterator[AILimiter]:
    """The app's limiters, or the one with this number. If there are several, a line before each says which it is.

    Args:
        number: From 1; None for all.
        with_counts: Their counts are needed, so they must be where this process can see them.
    """
    every: list[AILimiter] = flask.current_app.extensions.get("ailimit", [])
    if not every:
        raise click.ClickException("This app has no AILimiter. Call limiter.init_app(app) in its factory.")
    if number is not None and number > len(every):
        raise click.ClickException(f"--limiter: this app has {len(every)}. Got {number}.")
    chosen = [*enumerate(every, 1)] if number is None else [(number, every[number - 1])]
    for place, limiter in chosen:
        _require_usable(
            limiter, f"Limiter {place} of {len(every)}: " if len(every) > 1 else "", with_counts=with_counts
        )
    for place, limiter in chosen:
        if len(every) > 1:
            click.echo(
                f"Limiter {place} of {len(every)}, by {name_of(limiter.ledger_of_no_request().flask_limiter.key_func)}:"
            )
        yield limiter


def _require_usable(limiter: AILimiter, which: str, *, with_counts: bool) -> None:
    app = flask.current_app
    try:
        store = limiter.engine.store
    except RuntimeError:
        raise click.ClickException(
            f"{which}Limits are switched off in this app (RATELIMIT_ENABLED), so nothing is counted."
        ) from None
    if with_counts and isinstance(store, MemoryStore):
        why = "the app is TESTING and names no store" if app.testing else "storage_uri is memory://"
        raise click.ClickException(
            f"{which}The counts are in the memory of each process of the app, because {why}. This command is a process "
            "of its own, and its store is empty. Use local:// or a Redis, or call limiter.peek() and "
            "limiter.engine.reset() inside the app."
        )
