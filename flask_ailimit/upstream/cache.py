"""A cache of answers, which rest encrypted in a file of its own. An app that doesn't ask for it has none.

An answer is found by a keyed hash of its question and opened with a key that is made of the question. Neither question
nor key is in the file: who has the file and not the question has nothing but how many answers there are, how long they
are, and when they were made and used. All processes with the secret share what is there.

What is wrong with the file or with a row is logged and is a miss: no call fails because of the cache.
"""

import json
import logging
import os
import secrets
import sqlite3
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from flask_ailimit.engine import ConfigurationError, native
from flask_ailimit.engine.background import Background, started_apart
from flask_ailimit.engine.clock import MICROSECONDS, Clock, seconds_running, system_clock
from flask_ailimit.engine.few_lines import once_a_minute
from flask_ailimit.engine.forking import forget_in_children
from flask_ailimit.engine.mutex import BusyError
from flask_ailimit.engine.shared_file import SharedFile, is_busy

from . import cache_rows
from .cache_key import Question
from .cache_rows import LAYOUT, LEASE_S, LONGEST_VALUE, Row
from .whole_answer import is_whole

_log = logging.getLogger("flask_ailimit")

KEPT_HEADERS: Final = ("content-type",)
"""Of an answer. All others speak of the one call that was answered."""

LEAST_BYTES: Final = 1 << 20

LONGEST_ASK_S: Final = 600.0
"""Seconds after which another caller asks in any case."""

REST_S: Final = 2.0
"""Seconds for which the file is left alone after somebody had it for too long: not every call is to wait for that."""

_PARTS: Final = 4
"""No answer takes more than this part of the file."""

_LONGEST_AGE_S: Final = 366 * 86_400
_LEAST_SECRET_BYTES: Final = 16
_MOST_SECRET_BYTES: Final = 64
_NONCE_BYTES: Final = 12
_SEALED_AS: Final = b"flask_ailimit: an answer, 1"

_Answer = TypeVar("_Answer")
_Arguments = ParamSpec("_Arguments")


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer.

    Attributes:
        status: The HTTP status.
        headers: By names in lower case. Of one from the cache those of ``KEPT_HEADERS``.
        body: Whole, and decoded.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Turn:
    """What :meth:`AnswerCache.begin` says. Whoever is to ask keeps it until the end: if it is dropped, others ask.

    Attributes:
        question: What it is about.
        answer: The answer, if there is one by now.
        wait_s: Seconds after which to begin again, while somebody else asks. 0: ask now, and :meth:`AnswerCache.end`.
        lease: By which others know that somebody asks; 0 if they don't.
        until: When others ask in any case, in seconds of a clock that never jumps.
    """

    question: Question
    answer: StoredAnswer | None = None
    wait_s: float = 0.0
    lease: int = 0
    until: float = 0.0


class AnswerCache:
    """The answers that the processes of this machine keep in one file.

    Args:
        path: The file, in a directory that is there.
        secret: 16 to 64 bytes, the same in all processes. What one secret has put there is nothing to another one.
        max_age: Seconds for which an answer may be given out.
        max_bytes: Of the file; the log beside it may have some 16 MB more. What was used longest ago goes first.
        clock: Returns integer microseconds since the epoch.

    Raises:
        ConfigurationError: A number is out of range, the package cryptography is missing, or the file is not to be
            used. One that is only damaged is logged: then every question is a miss.
    """

    def __init__(
        self, path: Path, *, secret: bytes, max_age: float, max_bytes: int, clock: Clock = system_clock
    ) -> None:
        _require_secret(secret)
        require_bounds(max_age, max_bytes)
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  an extra
        except ImportError as error:
            raise ConfigurationError(
                "cache: cryptography is not installed. Install it with pip install 'flask-ailimit[cache]', or leave "
                "the cache out."
            ) from error
        self._cipher = AESGCM
        self._path = path
        self._secret = secret
        self._max_age_us = int(max_age * MICROSECONDS)
        self._max_bytes = max_bytes
        self._clock = clock
        self._file = SharedFile(path, LAYOUT)
        self.forget()
        forget_in_children(self)
        try:
            self._file.prepare()
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001  a damaged file may make SQLite do anything
            self._say_failed(error)

    def get(self, question: Question) -> StoredAnswer | None:
        """The answer to a question; None if there is none that may be given out."""
        key, now = question.id(self._secret), self._clock()
        found = self._tried(self._file.run, cache_rows.find, key, now)
        answer = None if found is None else self._opened(question, found.row)
        if found and answer and found.is_to_be_noted:
            self._tried(self._file.run, cache_rows.note_use, key, now)
        return answer

    def put(self, question: Question, answer: StoredAnswer) -> bool:
        """Keep an answer, if it is whole and not too long. Answers whether it is kept."""
        if not is_whole(answer.status, answer.headers, answer.body, question.is_stream):
            return False
        row = self._sealed(question, answer, self._clock())
        if len(row.sealed) > min(self._max_bytes // _PARTS, LONGEST_VALUE):
            return False
        return bool(self._tried(self._file.write, cache_rows.put, row, self._max_bytes))

    def begin(self, question: Question) -> Turn:
        """Look for the answer; if there is none, say whether to ask for it or to wait for who does.

        One caller asks, of all processes of this machine. If the file can't be used, each does.
        """
        key = question.id(self._secret)
        answer = self.get(question)
        wait_s = 0.0 if answer else self._tried(self._file.run, cache_rows.seconds_to_wait, key, self._clock())
        if answer or wait_s:
            return Turn(question, answer, wait_s or 0.0)
        turn = self._tried(self._file.write, self._begin, question, key) or Turn(question)
        if turn.lease:
            self._turns[turn.lease] = turn
            self._thread.ensure()
        return turn

    def end(self, turn: Turn, answer: StoredAnswer | None = None) -> None:
        """Say that who was to ask has asked. If there is a whole answer it is kept; if not, another caller asks.

        Of a turn that was none to ask, or has ended, only the answer is looked at.
        """
        self._turns.pop(turn.lease, None)
        if answer is not None:
            self.put(turn.question, answer)
        if turn.lease:
            self._tried(self._file.run, cache_rows.end_asking, turn.question.id(self._secret), turn.lease)

    def close(self) -> None:
        """Close the file. Whoever uses the cache next opens it again."""
        self._file.close()

    def forget(self) -> None:
        """Start anew in a child process: who asks in its parent does not ask in it."""
        self._rests_until = 0.0
        self._turns: WeakValueDictionary[int, Turn] = WeakValueDictionary()
        self._thread = Background(self._run, "cache", started_apart)

    def _begin(self, connection: sqlite3.Connection, question: Question, key: bytes) -> Turn:
        now = self._clock()
        # Who asked may have ended since this caller looked.
        found = cache_rows.find(connection, key, now)
        answer = None if found is None else self._opened(question, found.row)
        wait_s = 0.0 if answer else cache_rows.seconds_to_wait(connection, key, now)
        if answer or wait_s:
            return Turn(question, answer, wait_s)
        lease = secrets.randbits(62) + 1
        cache_rows.ask(connection, key, lease, now)
        return Turn(question, lease=lease, until=seconds_running() + LONGEST_ASK_S)

    def _run(self) -> None:
        """Let those who ask go on asking. A process that has died lets nobody."""
        while self._turns:
            native.pause(LEASE_S / 3)
            now = seconds_running()
            turns = [turn for turn in self._turns.copy().values() if turn.until > now]
            leases = [(turn.question.id(self._secret), turn.lease) for turn in turns]
            del turns  # Or this thread would keep those that are dropped meanwhile.
            if leases:
                self._tried(self._file.write, cache_rows.go_on_asking, leases, self._clock())
        self._thread.retire_unless(lambda: self._turns)

    def _sealed(self, question: Question, answer: StoredAnswer, now: int) -> Row:
        key, ends_us = question.id(self._secret), now + self._max_age_us
        kept = {name: answer.headers[name] for name in KEPT_HEADERS if name in answer.headers}
        plain = json.dumps([answer.status, kept]).encode() + b"\n" + answer.body
        nonce = os.urandom(_NONCE_BYTES)
        cipher = self._cipher(question.key(self._secret))
        return Row(key, now, ends_us, nonce + cipher.encrypt(nonce, plain, _beside(key, now, ends_us)))

    def _opened(self, question: Question, row: Row) -> StoredAnswer | None:
        try:
            # If it was made in the future the clock was put back, and nobody knows how old it is.
            if not row.made_us <= self._clock() < min(row.ends_us, row.made_us + self._max_age_us):
                return None
            nonce, sealed = row.sealed[:_NONCE_BYTES], row.sealed[_NONCE_BYTES:]
            cipher = self._cipher(question.key(self._secret))
            head, _, body = cipher.decrypt(nonce, sealed, _beside(row.id, row.made_us, row.ends_us)).partition(b"\n")
            status, headers = json.loads(head)
        except Exception:  # noqa: BLE001  whatever somebody has written there
            _log.warning(
                "A row of the cache %s is damaged, or somebody has changed it. It is a miss.",
                *(self._path,),
                extra=once_a_minute(str(self._path)),
            )
            return None
        return StoredAnswer(status, headers, body)

    def _tried(
        self,
        way: Callable[[Callable[[sqlite3.Connection], _Answer]], _Answer],
        work: Callable[Concatenate[sqlite3.Connection, _Arguments], _Answer],
        *arguments: _Arguments.args,
        **named: _Arguments.kwargs,
    ) -> _Answer | None:
        """What the work answers; None if the file can't be used."""
        if seconds_running() < self._rests_until:
            return None
        try:
            return way(lambda connection: work(connection, *arguments, **named))
        except Exception as error:  # noqa: BLE001  no call fails because of the cache, whatever is in its file
            if isinstance(error, BusyError) or (isinstance(error, sqlite3.Error) and is_busy(error)):
                self._rests_until = seconds_running() + REST_S
            self._say_failed(error)
            return None

    def _say_failed(self, error: Exception) -> None:
        _log.warning(
            "The cache %s can't be used: %s. Calls go to the provider. If it is damaged, move it away, with those "
            "beside it that end in -wal and -shm. A new one is made then.",
            *(self._path, str(error).rstrip(".")),
            extra=once_a_minute(str(self._path)),
        )


def _require_secret(secret: bytes) -> None:
    if not _LEAST_SECRET_BYTES <= len(secret) <= _MOST_SECRET_BYTES:
        raise ConfigurationError(
            f"secret: {_LEAST_SECRET_BYTES} to {_MOST_SECRET_BYTES} bytes are needed. Got {len(secret)}."
        )


def require_bounds(max_age: float, max_bytes: int) -> None:
    """Check how long answers may be given out, and how large their file may be.

    Raises:
        ConfigurationError: A number is out of range.
    """
    if not (type(max_age) in (int, float) and 0 < max_age <= _LONGEST_AGE_S):
        raise ConfigurationError(
            f"cache max_age: seconds are needed, more than 0 and at most {_LONGEST_AGE_S}. Got {max_age!r:.40}."
        )
    if type(max_bytes) is not int or max_bytes < LEAST_BYTES:
        raise ConfigurationError(
            f"cache max_bytes: a whole number is needed, at least {LEAST_BYTES}. Got {max_bytes!r:.40}."
        )


def _beside(key: bytes, made_us: int, ends_us: int) -> bytes:
    """What is no secret of a row, and must be as it was when the answer was sealed."""
    return _SEALED_AS + key + struct.pack(">qq", made_us, ends_us)
