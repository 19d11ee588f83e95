"""The one error for every setting, limit and option that is wrong."""

from collections.abc import Iterator
from contextlib import contextmanager

from limits.errors import ConfigurationError as LimitsConfigurationError

from .engine import ConfigurationError


class MisconfiguredError(ConfigurationError, LimitsConfigurationError):
    """Caught by who waits for our ConfigurationError, and by who waits for Flask-Limiter's."""


@contextmanager
def misconfigured() -> Iterator[None]:
    """Raise what a check inside of it raises as that error."""
    try:
        yield
    except MisconfiguredError:
        raise
    except ConfigurationError as error:
        raise MisconfiguredError(str(error)) from error
