"""The error for every wrong setting, limit and option."""

from collections.abc import Iterator
from contextlib import contextmanager

import limits.errors

from flask_ailimit import engine


class ConfigurationError(engine.ConfigurationError, limits.errors.ConfigurationError):
    """The engine's error of this name, which ``except limits.errors.ConfigurationError`` catches, too."""


@contextmanager
def misconfigured() -> Iterator[None]:
    """Raise each of the engine's ConfigurationErrors in the block as one of ours."""
    try:
        yield
    except ConfigurationError:
        raise
    except engine.ConfigurationError as error:
        raise ConfigurationError(str(error)) from error
