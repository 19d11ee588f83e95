"""Reads the values of what is imported, and says where one is wrong."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from flask_ailimit.engine import ConfigurationError

_LONGEST_SHOWN = 60
_PLAIN = re.compile(r"[A-Za-z0-9_]+")
_KINDS: Mapping[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "true or false",
}


class Entry:
    """An object of what is imported, with its place for errors.

    Args:
        source: What it was read from, such as ``limits.json``.
        place: Where it stands there, such as ``data[0]``; "" for the whole.
        value: What stands there.

    Raises:
        ConfigurationError: It is no object.
    """

    def __init__(self, source: str, place: str, value: object) -> None:
        self._source, self._place = source, place
        if not isinstance(value, Mapping):
            self.wrong("", f"an object is needed. Got {_KINDS.get(type(value), 'null')}")  # A text may be a key.
        self._fields: Mapping[str, Any] = value

    def __contains__(self, field: str) -> bool:
        return self._fields.get(field) is not None

    def says(self, field: str, *texts: str) -> bool:
        """Whether a field is one of these texts."""
        return any(self._fields.get(field) == text for text in texts)

    def fields(self) -> Iterator[tuple[str, Any]]:
        """The fields that are not null, and their values."""
        return ((field, value) for field, value in self._fields.items() if value is not None)

    def text(self, field: str) -> str | None:
        """A text; None if it is not there.

        Raises:
            ConfigurationError: It is something else.
        """
        value = self._fields.get(field)
        if value is not None and not isinstance(value, str):
            self.wrong(field, f"a text is needed. Got {shown(value)}")
        return value

    def amount(self, field: str) -> int | None:
        """What is allowed; None if it is not there.

        Raises:
            ConfigurationError: It is no whole number, or is below 0.
        """
        value = self._fields.get(field)
        if value is not None and (type(value) is not int or value < 0):
            self.wrong(field, f"a whole number is needed, 0 or more. Got {shown(value)}")
        return value

    def entry(self, field: str) -> "Entry | None":
        """An object inside; None if it is not there.

        Raises:
            ConfigurationError: It is something else.
        """
        value = self._fields.get(field)
        return None if value is None else Entry(self._source, self._at(field), value)

    def entries(self, field: str) -> "list[Entry]":
        """A list of objects; empty if it is not there.

        Raises:
            ConfigurationError: It is something else.
        """
        found = enumerate(self._list(field))
        return [Entry(self._source, self._at(f"{field}[{index}]"), each) for index, each in found]

    def texts(self, field: str) -> list[str]:
        """A list of texts; empty if it is not there.

        Raises:
            ConfigurationError: It is something else.
        """
        found = self._list(field)
        for index, each in enumerate(found):
            if not isinstance(each, str):
                self.wrong(f"{field}[{index}]", f"a text is needed. Got {shown(each)}")
        return found

    def wrong(self, field: str, what: str) -> NoReturn:
        """Raise ConfigurationError: a field is wrong, or the object itself."""
        where = self._at(field)
        raise ConfigurationError(f"{self._source}: {where}: {what}." if where else f"{self._source}: {what}.")

    def _at(self, field: str) -> str:
        return ".".join(each for each in (self._place, field) if each)

    def _list(self, field: str) -> list[Any]:
        value = self._fields.get(field)
        if value is not None and not isinstance(value, list):
            self.wrong(field, f"a list is needed. Got {shown(value)}")
        return value or []


def shown(value: object) -> str:
    """A value for a message, in one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float | str):
        return f"{value!r:.{_LONGEST_SHOWN}}"
    if isinstance(value, int):
        return f"{value}" if abs(value) < 10**_LONGEST_SHOWN else f"a number of more than {_LONGEST_SHOWN} digits"
    return _KINDS.get(type(value), "null")


def said(field: str, value: object) -> str:
    """A field and its value for a remark, in one line."""
    return f"{field if _PLAIN.fullmatch(field) else shown(field)}: {shown(value)}"
