"""Answers a call from the cache, or keeps what the provider answers for the next call that asks the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask_ailimit.engine import Clock, ConfigurationError, Engine
from flask_ailimit.tokens.inflating import TooLarge, inflate
from flask_ailimit.tokens.readings import TooMuchToRead

from .cache import AnswerCache, StoredAnswer, Turn, require_bounds
from .cache_key import Question, question_of
from .whole_answer import LONGEST_ANSWER

ANSWER, REQUEST = "answer", "request"
HITS = (REQUEST, ANSWER)
"""What a hit charges whom the app calls for: a request and no tokens, or all of the answer as if it had been asked."""

CACHE = "x-ailimit-cache"
"""The header of an answer from the cache."""

_DAY = 86_400
_MEGABYTES = 100 << 20


@dataclass(frozen=True, kw_only=True)
class CacheSettings:
    """What an app says of its cache of answers. Without it there is none.

    Attributes:
        path: The file, for this cache alone.
        max_age: Seconds for which an answer may be given out.
        max_bytes: Of the file.
        all_calls: Whether to keep answers also to calls that don't say that they want the same answer each time, by a
            ``temperature`` of 0 or a ``seed``.
        hits: What a hit charges: ``request`` or ``answer``.

    Raises:
        ConfigurationError: A value is none of these.
    """

    path: str | Path
    max_age: float = _DAY
    max_bytes: int = _MEGABYTES
    all_calls: bool = False
    hits: str = REQUEST

    def __post_init__(self) -> None:
        if not isinstance(self.path, str | Path) or not str(self.path):
            raise ConfigurationError(f"cache path: the path of a file is needed. Got {str(self.path)[:80]!r}.")
        require_bounds(self.max_age, self.max_bytes)
        if type(self.all_calls) is not bool:
            raise ConfigurationError(f"cache all_calls: True or False is needed. Got {self.all_calls!r:.40}.")
        if self.hits not in HITS:
            raise ConfigurationError(f"cache hits: one of {', '.join(HITS)} is needed. Got {str(self.hits)[:40]!r}.")

    @classmethod
    def of(cls, given: "CacheSettings | Mapping[str, Any] | None") -> "CacheSettings | None":
        """The settings that were given, as an object or as a table.

        Raises:
            ConfigurationError: The table has another key, or no path.
        """
        if given is None or isinstance(given, CacheSettings):
            return given
        known = cls.__dataclass_fields__
        if not isinstance(given, Mapping) or "path" not in given or not set(given) <= set(known):
            raise ConfigurationError(f"cache: a table of {', '.join(known)} is needed, with a path.")
        return cls(**given)

    def open(self, engine: Engine, clock: Clock) -> AnswerCache:
        """The cache. Its secret is made of the engine's, so all who share a store and a file share answers.

        Raises:
            ConfigurationError: A number is out of range, or cryptography is not installed.
        """
        secret = engine.subject("upstream cache", "1") + engine.subject("upstream cache", "2")
        return AnswerCache(Path(self.path), secret=secret, max_age=self.max_age, max_bytes=self.max_bytes, clock=clock)

    def question(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, *, account: str, tenant: str
    ) -> Question | None:
        """The question that a call asks; None if it may not be answered from the cache."""
        only = not self.all_calls
        return question_of(method, url, headers, body, account=account, tenant=tenant, deterministic_only=only)


class Keeping:
    """Collects the answer of the one call that asks, for all that ask the same.

    Args:
        cache: The cache.
        turn: What lets this call ask.
        status: The answer's HTTP status.
        headers: Its headers, by names in lower case.
    """

    def __init__(self, cache: AnswerCache, turn: Turn, status: int, headers: Mapping[str, str]) -> None:
        self._cache = cache
        self._turn = turn
        self._status = status
        self._headers = headers
        self._chunks: list[bytes] | None = []
        self._length = 0

    def feed(self, chunk: bytes) -> None:
        """Keep the next bytes, as they came."""
        if self._chunks is None:
            return
        self._length += len(chunk)
        if self._length > LONGEST_ANSWER:
            self._chunks = None
        else:
            self._chunks.append(chunk)

    def end(self, *, whole: bool) -> None:
        """Put the answer into the cache if it is whole. Then the others that wait get it, or one of them asks."""
        body = self._body() if whole else None
        answer = None if body is None else StoredAnswer(self._status, self._headers, body)
        self._cache.end(self._turn, answer)

    def _body(self) -> bytes | None:
        if self._chunks is None:
            return None
        raw, encoding = b"".join(self._chunks), self._headers.get("content-encoding", "")
        if not encoding:
            return raw
        try:
            return inflate(raw, encoding, LONGEST_ANSWER)
        except (TooLarge, TooMuchToRead):
            return None
