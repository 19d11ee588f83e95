"""The answers of a batch on disk: those that there are, and those that come.

They are appended to ``OUTPUT.part`` as they come, each with one write. The output itself appears, in the order of the
input, when every line has its answer. So whenever the process dies, what is on disk is whole lines and at most one torn
one, and the output is never half of itself.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from .batch_file import Answer, BadLine, read_answer
from .batch_index import Index, JobError, Standing, lines_of
from .batch_journal import BusyError, Journal

_OUTPUT, _PART = 1, 2


class Answers:
    """The answers of a batch on disk, to which this process adds some.

    Args:
        index: The requests. Which of them are answered is noted there.
        output: The file for the answers.
        seen: Is told of each answer that is there.

    Raises:
        JobError: Another process works on it, or a file holds something else.
        OSError: A file can't be read or written.
    """

    def __init__(self, index: Index, output: Path, seen: Callable[[Answer], None] = lambda _: None) -> None:
        self.part = output.with_name(f"{output.name}.part")
        self._index = index
        self._output = output
        try:
            self._journal = Journal(self.part)
        except BusyError:
            raise JobError(f"{self.part.name}: another process works on it.") from None
        try:
            if output.exists():
                self._note(output, _OUTPUT, 0, seen)
            self._noted = self._note(self.part, _PART, 0, seen)
            self._journal.begin_at(self._noted)
        except BaseException:
            self._journal.close()
            raise

    def write(self, line: bytes) -> None:
        """Add an answer. Any thread may call it.

        Raises:
            OSError: It could not be written.
        """
        self._journal.write(line)

    def close(self) -> None:
        """Let other processes work on it."""
        self._journal.close()

    def standing(self) -> Standing:
        """How the batch stands, with what was written."""
        self._noted = self._note(self.part, _PART, self._noted, lambda _: None)
        return self._index.standing()

    def finish(self) -> None:
        """Put the answers into the output, in the order of the input, and remove the file beside it.

        Raises:
            OSError: The output could not be written. What was there is there still.
        """
        if not self.standing().lines or not self._journal.end:
            return
        draft = self._output.with_name(f".{self._output.name}.tmp")  # Not longer than the name of the part.
        draft.unlink(missing_ok=True)  # It is of a process that was killed: nobody else works on this output.
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(self._in_order())
                file.flush()
                os.fsync(file)
            draft.replace(self._output)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        _sync_folder(self._output.parent)
        self.part.unlink()

    def _in_order(self) -> Iterator[bytes]:
        with ExitStack() as at_the_end:
            files = {_PART: at_the_end.enter_context(self.part.open("rb"))}
            if self._output.exists():
                files[_OUTPUT] = at_the_end.enter_context(self._output.open("rb"))
            for which, place in self._index.places():
                files[which].seek(place)
                yield files[which].readline().rstrip(b"\r\n") + b"\n"

    def _note(self, path: Path, which: int, start: int, seen: Callable[[Answer], None]) -> int:
        """Note the answers of a file from a byte on, and return where the whole lines end."""
        end = start
        with path.open("rb") as file:
            file.seek(start)
            for number, begins, raw in lines_of(file):
                is_torn = not raw.endswith(b"\n")
                if is_torn and which == _PART:
                    break  # Its request is sent again.
                try:
                    answer = read_answer(raw)
                except BadLine as error:
                    if is_torn:
                        break
                    raise JobError(f"{path.name}: line {number}: {error}. Remove it, or name another output.") from None
                if not self._index.note(answer, which, start + begins):
                    raise JobError(
                        f"{path.name}: line {number} has a custom_id that the input doesn't have. Name another output."
                    )
                seen(answer)
                end = start + begins + len(raw)
        return end


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
