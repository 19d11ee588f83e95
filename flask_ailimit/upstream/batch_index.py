"""The requests of a batch, and which of them are answered: in a temporary database, so that memory is bounded."""

import sqlite3
from collections.abc import Callable, Iterator
from typing import IO, Final, NamedTuple

from .batch_file import LONGEST_LINE, Answer, BadLine, Request, read_request

_MOST_NAMED: Final = 10
_SCHEMA: Final = """
CREATE TABLE lines (
    number INTEGER PRIMARY KEY, custom_id TEXT NOT NULL UNIQUE, begins INTEGER NOT NULL,
    file INTEGER, place INTEGER, failure TEXT, may_change INTEGER
)
"""


class JobError(ValueError):
    """The input or the output can't be used; the message says why, and names lines by their numbers."""


class Standing(NamedTuple):
    """How a batch stands.

    Attributes:
        lines: The requests of the input.
        answered: How many have what they asked for.
        failures: How many failed, by why, in words; the most frequent first.
        may_change: How many of these may go well another time.
    """

    lines: int
    answered: int
    failures: dict[str, int]
    may_change: int

    @property
    def failed(self) -> int:
        """How many failed."""
        return sum(self.failures.values())


class Index:
    """The requests of an input, checked as a whole before anything is sent.

    Args:
        source: The input, at its beginning. It must be able to seek.
        check: Raises :class:`BadLine` for a request that can't be sent.

    Raises:
        JobError: There are no requests, or some that are wrong or have the ``custom_id`` of another.
    """

    def __init__(self, source: IO[bytes], check: Callable[[Request], None] = lambda _: None) -> None:
        self._source = source
        self._lines = sqlite3.connect("")  # A file that nobody else sees, and that goes away.
        self._lines.execute(_SCHEMA)
        wrong: list[tuple[int, str]] = []
        more = 0
        for number, begins, raw in lines_of(source, LONGEST_LINE + 1):
            try:
                request = read_request(raw)
                check(request)
                self._add(number, request.custom_id, begins)
            except BadLine as error:
                if len(wrong) < _MOST_NAMED:
                    wrong.append((number, str(error)))
                else:
                    more += 1
        if wrong:
            self.close()
            raise JobError(_in_words(wrong, more))
        if not self.standing().lines:
            self.close()
            raise JobError("there is no request in it.")

    def close(self) -> None:
        """Forget the temporary database."""
        self._lines.close()

    def open_requests(self, *, retry_failed: bool = False) -> Iterator[Request]:
        """The requests that are to be sent, in the order of the input.

        Args:
            retry_failed: Those that failed and may go well another time, too.

        Raises:
            JobError: The input is not what it was.
        """
        found = self._lines.execute(
            "SELECT custom_id, begins FROM lines WHERE file IS NULL OR (may_change AND ?) ORDER BY number",
            (retry_failed,),
        )
        for custom_id, begins in found:
            yield self._request(custom_id, begins)

    def request_of(self, custom_id: str) -> Request:
        """The request of this name, which is one of the input's.

        Raises:
            JobError: The input is not what it was.
        """
        ((begins,),) = self._lines.execute("SELECT begins FROM lines WHERE custom_id = ?", (custom_id,))
        return self._request(custom_id, begins)

    def note(self, answer: Answer, file: int, place: int) -> bool:
        """Note where the answer to a request is, in place of what was noted before; return whether it is known."""
        failure = None if answer.is_good else answer.failure
        noted = self._lines.execute(
            "UPDATE lines SET file = ?, place = ?, failure = ?, may_change = ? WHERE custom_id = ?",
            (file, place, failure, failure is not None and answer.may_change, answer.custom_id),
        )
        return noted.rowcount > 0

    def places(self) -> Iterator[tuple[int, int]]:
        """Where the answers are, in the order of the input: file and first byte."""
        yield from self._lines.execute("SELECT file, place FROM lines WHERE file NOTNULL ORDER BY number")

    def standing(self) -> Standing:
        """How the batch stands by what was noted."""
        ((lines, done, may_change),) = self._lines.execute("SELECT count(*), count(file), sum(may_change) FROM lines")
        failures = dict(
            self._lines.execute(
                "SELECT failure, count(*) FROM lines WHERE failure NOTNULL GROUP BY failure ORDER BY count(*) DESC"
            )
        )
        return Standing(lines, done - sum(failures.values()), failures, may_change or 0)

    def _add(self, number: int, custom_id: str, begins: int) -> None:
        try:
            self._lines.execute(
                "INSERT INTO lines (number, custom_id, begins) VALUES (?, ?, ?)", (number, custom_id, begins)
            )
        except sqlite3.IntegrityError:
            ((first,),) = self._lines.execute("SELECT number FROM lines WHERE custom_id = ?", (custom_id,))
            raise BadLine(f"custom_id: line {first} has the same") from None

    def _request(self, custom_id: str, begins: int) -> Request:
        self._source.seek(begins)
        try:
            request = read_request(self._source.readline(LONGEST_LINE + 1))
            if request.custom_id == custom_id:
                return request
        except BadLine:
            pass
        raise JobError("it was changed while it was read.")


def lines_of(file: IO[bytes], longest: int = -1) -> Iterator[tuple[int, int, bytes]]:
    """The lines that are not empty, from where the file stands: number from 1, first byte from there, and line.

    Args:
        file: The file.
        longest: The most bytes of a line that are given; of a longer one its beginning.
    """
    number = begins = 0
    while raw := file.readline(longest):
        number += 1
        if raw.strip():
            yield number, begins, raw
        begins += len(raw)
        while len(raw) == longest and not raw.endswith(b"\n"):  # The rest of one that is longer.
            raw = file.readline(longest)
            begins += len(raw)


def _in_words(wrong: list[tuple[int, str]], more: int) -> str:
    (number, problem), *others = wrong
    named = ", ".join(str(each) for each, _ in others) + (f" and {more} more" if more else "")
    also = f" Wrong too: line {named}." if others else ""
    return f"line {number}: {problem}.{also} Nothing was sent."
