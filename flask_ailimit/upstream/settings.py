"""What an app says of one of its upstreams, checked before anything is called."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from flask_ailimit.engine import ConfigurationError, Quota
from flask_ailimit.engine.limit_text import parts_of, quota_of_part
from flask_ailimit.engine.quota import (
    CONCURRENCY,
    INPUT_TOKENS,
    MOST_WAITING,
    OUTPUT_TOKENS,
    PROVIDER_BUCKET,
    REQUESTS,
    TOKENS,
    require_name,
)

from .from_environment import FromEnvironment
from .reusing import CacheSettings

Limit = str | Mapping[str, Any]
"""``"500 per minute"``, or ``{"limit": "500 per minute", "burst": 20, "algorithm": "moving-window"}``."""

TIMED = (REQUESTS, TOKENS, INPUT_TOKENS, OUTPUT_TOKENS)

_PARTS_OF_REQUESTS = 10
"""A tenth of the requests of a period at once: providers may count them over shorter times than they say."""

_SHARE_OF_TOKENS = 0.9
"""At once at most so much of the tokens of a period: an answer's tokens are given back here before they are there."""

OPTIONS_OF_LIMIT = ("limit", "burst", "algorithm")
_LONGEST_URL = 2048
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
"""The name of a header."""

_HEADER = re.compile(r"[ -~]{1,4096}")
_LONGEST_NAME = 256


@dataclass(frozen=True, kw_only=True)
class UpstreamSettings:
    """What an app says of an upstream.

    Attributes:
        name: 1 to 64 characters of ``A-Za-z0-9_.-``. What is counted is counted under it, in all processes.
        requests: How many requests it takes of each group of models, such as ``"500 per minute"``; None for as many as
            its answers say.
        tokens: How many tokens, input and output together.
        input_tokens: How many tokens of input.
        output_tokens: How many tokens of output.
        concurrency: How many calls may be in flight at once; None for any number.
        lease: Seconds after which the slot of a process that died is free.
        groups: Models that share their limits, as patterns by the name of the group. Every other model is a group.
        max_wait: The most seconds that a call waits, over all its attempts and targets.
        max_waiting: The most calls that wait for a group at once, in all processes.
        longest_pause: The most seconds for which an answer of the upstream stops all calls of a group.
        attempts: How often a call is sent at most, over all its targets.
        retry_uncertain: Whether a call is sent again when nobody knows if it was served, and billed.
        fallback: Names of the upstreams that are asked, in this order, if this one can't answer now.
        base_url: Where the upstream is, such as ``https://api.openai.com/v1``. Needed only if it is the fallback of
            another one, or if a batch file is sent to it.
        headers: Headers with which a call goes to it when it was meant for another upstream, such as its credential.
        models: What a model is called here, by the name that the app's calls have.
        default_output_tokens: What a call reserves that names no maximum.
        idempotency_header: The header in which the upstream takes a key that tells it one call sent twice from two
            calls; None if it takes none.
        cache: The cache of answers, as :class:`flask_ailimit.upstream.reusing.CacheSettings` or a table of the same;
            None for none.

    Raises:
        ConfigurationError: A value is out of range; the message says which and what fits.
    """

    name: str
    requests: Limit | None = None
    tokens: Limit | None = None
    input_tokens: Limit | None = None
    output_tokens: Limit | None = None
    concurrency: int | None = None
    lease: int = 60
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    max_wait: float = 60.0
    max_waiting: int = 200
    longest_pause: float = 60.0
    attempts: int = 3
    retry_uncertain: bool = False
    fallback: Sequence[str] = ()
    base_url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    models: Mapping[str, str] = field(default_factory=dict)
    default_output_tokens: int = 1024
    idempotency_header: str | None = None
    cache: CacheSettings | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        require_name(self.name)
        self._require_numbers()
        self._require_tables()
        if not _is_list_of_names(self.fallback):
            raise self.wrong("fallback", "a list of names of upstreams is needed", type(self.fallback).__name__)
        if self.base_url is not None and not _is_address(self.base_url):
            # What is written is not shown: it may hold a credential.
            needed = "an address such as 'https://api.openai.com/v1' is needed, without a query"
            raise self.wrong("base_url", needed, type(self.base_url).__name__)
        _ = self.quotas, self.slots, self.kept  # Each raises now if it is wrong.

    @cached_property
    def quotas(self) -> tuple[Quota, ...]:
        """The limits over time that the app has named, those of requests first."""
        return tuple(quota for unit in TIMED for quota in self._quotas_of(unit, getattr(self, unit)))

    @cached_property
    def slots(self) -> Quota | None:
        """The limit on calls in flight; None if there is none."""
        if self.concurrency is None:
            return None
        with_name = f"upstream {self.name!r}: concurrency: "
        try:
            return Quota(self.concurrency, self.lease, CONCURRENCY, CONCURRENCY)
        except ConfigurationError as error:
            raise ConfigurationError(f"{with_name}{error}") from error

    @cached_property
    def kept(self) -> CacheSettings | None:
        """What is said of the cache; None if there is none."""
        try:
            return CacheSettings.of(self.cache)
        except ConfigurationError as error:
            raise ConfigurationError(f"upstream {self.name!r}: {error}") from error

    def group_of(self, model: str) -> str:
        """The group of models with which a model shares its limits: one that is named, or the model by itself."""
        for group, patterns in self.groups.items():
            if any(fnmatchcase(model, pattern) for pattern in patterns):
                return group
        return model

    def paced(self, unit: str, limit: int, period: int) -> Quota:
        """The quota of a limit that the upstream told itself."""
        return _paced(unit, limit, period)

    def wrong(self, key: str, needed: str, got: object) -> ConfigurationError:
        """An error about one of these settings."""
        return ConfigurationError(f"upstream {self.name!r}: {key}: {needed}. Got {str(got)[:80]!r}.")

    def _quotas_of(self, unit: str, given: Limit | None) -> list[Quota]:
        if given is None:
            return []
        options: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {"limit": given}
        unknown = [key for key in options if key not in OPTIONS_OF_LIMIT]
        if unknown or not isinstance(options.get("limit"), str):
            needed = f"a text such as '500 per minute' is needed, or a table of {', '.join(OPTIONS_OF_LIMIT)}"
            raise self.wrong(unit, needed, unknown[0] if unknown else type(options.get("limit")).__name__)
        try:
            return [
                _paced(unit, part.limit, part.period, options.get("burst"))
                if part.algorithm(options.get("algorithm"), PROVIDER_BUCKET) == PROVIDER_BUCKET
                else quota_of_part(part, unit, options.get("algorithm"), burst=options.get("burst"))
                for part in parts_of(options["limit"])
            ]
        except ConfigurationError as error:
            raise ConfigurationError(f"upstream {self.name!r}: {unit}: {error}") from error

    def _require_tables(self) -> None:
        for key in ("groups", "headers", "models"):
            table = getattr(self, key)
            if not isinstance(table, Mapping) or not all(map(_is_name, table)):
                raise self.wrong(key, "a table is needed", type(table).__name__)
        for group, patterns in self.groups.items():
            if not _is_list_of_names(patterns) or not patterns:
                needed = "a list of patterns is needed, such as ['gpt-5*']"
                raise self.wrong(f"groups: {group}", needed, type(patterns).__name__)
        for model, name in self.models.items():
            if not _is_name(name):
                raise self.wrong(f"models: {model}", "the name of a model is needed", type(name).__name__)
        self._require_headers()

    def _require_headers(self) -> None:
        for name in self.headers:
            is_right = _TOKEN.fullmatch(name) and (
                isinstance(self.headers, FromEnvironment) or _is_header(self.headers[name])
            )
            if not is_right:  # Its value is never shown.
                raise self.wrong("headers", "names and values of headers are needed", name)
        header = self.idempotency_header
        if header is not None and not (isinstance(header, str) and _TOKEN.fullmatch(header)):
            raise self.wrong("idempotency_header", "the name of a header is needed", type(header).__name__)
        if not isinstance(self.retry_uncertain, bool):
            raise self.wrong("retry_uncertain", "true or false is needed", type(self.retry_uncertain).__name__)

    def _require_numbers(self) -> None:
        for key, least, most in (
            ("max_wait", 0, 86_400),
            ("longest_pause", 1, 86_400),
            ("attempts", 1, 100),
            ("max_waiting", 1, MOST_WAITING),
            ("lease", 1, 86_400),
            ("default_output_tokens", 0, 2**31),
        ):
            value = getattr(self, key)
            is_whole = key not in ("max_wait", "longest_pause")
            if isinstance(value, bool) or not isinstance(value, int if is_whole else (int, float)):
                raise self.wrong(key, "a number is needed" if not is_whole else "a whole number is needed", value)
            if not least <= value <= most:
                raise self.wrong(key, f"a number from {least} to {most} is needed", value)


def require_target(own: UpstreamSettings, other: UpstreamSettings) -> None:
    """Check that calls that were meant for one upstream can be sent to another one.

    Raises:
        ConfigurationError: It has no address, or an environment variable with one of its headers is not set.
    """
    if other.base_url is None:
        raise other.wrong("base_url", f"the address is needed, as a fallback of {own.name!r}", None)
    try:
        dict(other.headers)
    except ConfigurationError as error:
        needed = f"It is needed, because {other.name!r} is a fallback of {own.name!r}."
        raise ConfigurationError(f"upstream {other.name!r}: {error} {needed}") from None


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME and value.isprintable()


def _is_address(value: object) -> bool:
    if not isinstance(value, str) or len(value) > _LONGEST_URL or not value.isprintable() or " " in value:
        return False
    try:
        parts = urlsplit(value)
        _ = parts.port  # It raises if it is none.
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)


def _is_header(value: object) -> bool:
    return isinstance(value, str) and _HEADER.fullmatch(value) is not None


def _is_list_of_names(value: object) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_name, value))


def _paced(unit: str, limit: int, period: int, burst: int | None = None) -> Quota:
    if burst is None:
        part = limit // _PARTS_OF_REQUESTS if unit == REQUESTS else int(limit * _SHARE_OF_TOKENS)
        burst = max(1, part)
    return Quota(limit, period, unit, PROVIDER_BUCKET, burst)
