"""The error for every wrong setting, limit and option."""

from collections.abc import Iterator
from contextlib import contextmanager

from limits.errors import ConfigurationError as LimitsConfigurationError

from flask_ailimit.engine import ConfigurationError


class MisconfiguredError(ConfigurationError, LimitsConfigurationError):
    """A ConfigurationError that ``except limits.errors.ConfigurationError`` catches, too."""


@contextmanager
def misconfigured() -> Iterator[None]:
    """Raise each ConfigurationError of the block as a MisconfiguredError."""
    try:
        yield
    except MisconfiguredError:
        raise
    except ConfigurationError as error:
        raise MisconfiguredError(str(error)) from error
