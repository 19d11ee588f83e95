"""Headers whose values are in environment variables, so that a file may say which, and holds no secret itself."""

import os
import re
from collections.abc import Iterator, Mapping

from flask_ailimit.engine import ConfigurationError

_VALUE = re.compile(r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9-]{0,31}) )?env:(?P<variable>[A-Za-z_][A-Za-z0-9_]{0,127})")


class FromEnvironment(Mapping[str, str]):
    """Headers by their names. Each value is looked up when it is asked for, and is kept nowhere.

    Args:
        written: What is written for each, such as ``env:AZURE_API_KEY`` or ``Bearer env:OPENAI_API_KEY``.

    Raises:
        ConfigurationError: One is written otherwise.
    """

    def __init__(self, written: Mapping[str, object]) -> None:
        self._written: dict[str, tuple[str, str]] = {}
        for name, text in written.items():
            found = _VALUE.fullmatch(text) if isinstance(text, str) else None
            if found is None:  # What was written is not shown: it may be the secret.
                raise ConfigurationError(
                    f"headers: {str(name)[:64]}: name an environment variable, such as 'env:AZURE_API_KEY' or 'Bearer "
                    "env:OPENAI_API_KEY'. A secret has no place in this file."
                )
            self._written[name] = (f"{found['scheme']} " if found["scheme"] else "", found["variable"])

    def __getitem__(self, name: str) -> str:
        """The header's value.

        Raises:
            ConfigurationError: The variable is not set.
        """
        scheme, variable = self._written[name]
        value = os.environ.get(variable)
        if not value:
            raise ConfigurationError(f"headers: {name}: the environment variable {variable} is not set.")
        return scheme + value

    def __iter__(self) -> Iterator[str]:
        return iter(self._written)

    def __len__(self) -> int:
        return len(self._written)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FromEnvironment) and self._written == other._written

    def __hash__(self) -> int:
        return hash(tuple(self._written.items()))

    def __repr__(self) -> str:
        return f"<headers {', '.join(self._written)}>"
