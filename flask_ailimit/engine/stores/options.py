"""What several stores ask of their options."""

from flask_ailimit.engine.errors import ConfigurationError


def require_seconds(name: str, value: float, least: float, most: float, example: str) -> None:
    """Raise if an option is no number of seconds from ``least`` to ``most``.

    Raises:
        ConfigurationError: It isn't.
    """
    if type(value) not in (int, float) or not least <= value <= most:
        raise ConfigurationError(f"{name}: seconds from {least} to {most}, such as {example}. Got {value!r:.40}.")
