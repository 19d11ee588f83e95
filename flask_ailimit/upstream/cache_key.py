"""Which calls the cache may answer, and what tells one of them from another.

Whatever may change an answer tells calls apart, known or not: the path with its query, the headers but for a few, the
credential, and every member of the body. So a new member of an API makes calls differ, and is never passed over.
"""

import hmac
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

from flask_ailimit.tokens.body import InvalidBody, decode_body

LONGEST_BODY: Final = 8 << 20
"""Bytes. A longer body is not looked at."""

_GENERATES = re.compile(r"(?:^|/)((?:chat/)?completions|embeddings|responses|(?<=v1/)messages)/?$")

# Members with which a call does more than to say something, or says what depends on more than the call.
_EFFECTS: Final = frozenset(
    {
        "background",
        "container",
        "conversation",
        "data_sources",
        "functions",
        "mcp_servers",
        "plugins",
        "previous_response_id",
        "search_parameters",
        "store",
        "tools",
        "web_search_options",
    }
)
# Members that name something elsewhere, of which the body doesn't say what is in it now.
_ADDRESSES: Final = frozenset({"file_url", "image_url", "uri", "url", "video_url"})

# Headers of which no answer depends, and which differ from one attempt to the next.
_ASIDE: Final = frozenset(
    {
        "accept-encoding",
        "b3",
        "baggage",
        "connection",
        "content-length",
        "date",
        "idempotency-key",
        "request-id",
        "sentry-trace",
        "traceparent",
        "tracestate",
        "user-agent",
        "x-amzn-trace-id",
        "x-client-request-id",
        "x-cloud-trace-context",
        "x-correlation-id",
        "x-request-id",
    }
)
_ASIDE_FAMILIES: Final = ("x-b3-", "x-datadog-", "x-stainless-")
_COOKIES_ASIDE: Final = ("__cf_bm=", "__cflb=", "_cfuvid=")
"""Those of a provider's content network, which clients send back and which change each half hour."""

_VERSION: Final = 1
_ID: Final = b"answer's id"
_KEY: Final = b"flask_ailimit: the key of an answer, 1"


@dataclass(frozen=True, slots=True)
class Question:
    """A call that may be answered from the cache. Two calls are one question only if the same answer fits both.

    Attributes:
        digest: Of all that tells it from others. It is in no file and no log.
        is_stream: Whether it asks for an event stream.
    """

    digest: bytes = field(repr=False)
    is_stream: bool

    def id(self, secret: bytes) -> bytes:
        """32 bytes by which its answer is found. They say nothing of the question to who lacks the secret."""
        return blake2b(self.digest, digest_size=32, key=secret, person=_ID).digest()

    def key(self, secret: bytes) -> bytes:
        """32 bytes that open its answer (HKDF, RFC 5869). Nobody makes them of the id, even with the secret."""
        return _hmac(_hmac(secret, self.digest), _KEY + b"\x01")


def _hmac(key: bytes, message: bytes) -> bytes:
    # Not hmac.digest(): it lets other threads run while it holds a lock of OpenSSL. A child that is forked then waits
    # for that lock for ever.
    return hmac.new(key, message, "sha256").digest()


def question_of(
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    account: str,
    tenant: str,
    deterministic_only: bool = True,
) -> Question | None:
    """The question that a call asks; None if it may not be answered from the cache. Never raises.

    Args:
        method: Such as ``POST``.
        path: With the query.
        headers: All that are sent, in any case. The credential is one of them, so accounts never share.
        body: As it is sent, whole.
        account: Names the provider and the account with it, as the app calls them.
        tenant: For whom the app asks. What one tenant has asked is never another one's answer.
        deterministic_only: Whether the call must say that it wants the same answer each time: a ``temperature`` of 0
            or a ``seed``. Embeddings always do.
    """
    generates = _GENERATES.search(path.partition("?")[0])
    if method != "POST" or generates is None or len(body) > LONGEST_BODY:
        return None
    try:
        asked = decode_body(body)
    except InvalidBody:
        return None
    endpoint, is_stream = generates[1], isinstance(asked, dict) and asked.get("stream", False)
    if not isinstance(asked, dict) or not isinstance(is_stream, bool | None) or _has_effects(endpoint, asked):
        return None
    if deterministic_only and endpoint != "embeddings" and not _is_deterministic(asked):
        return None
    told = [_VERSION, account, tenant, path, sorted(_telling(headers)), _with_equal_numbers(asked)]
    canonical = json.dumps(told, sort_keys=True, separators=(",", ":")).encode()
    return Question(blake2b(canonical).digest(), bool(is_stream))


def _telling(headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for given, value in headers.items():
        name = given.lower()
        if name == "cookie":
            kept = [each for each in map(str.strip, value.split(";")) if not each.startswith(_COOKIES_ASIDE)]
            if kept:
                yield name, ";".join(kept)
        elif name not in _ASIDE and not name.startswith(_ASIDE_FAMILIES):
            yield name, value


def _is_deterministic(asked: dict[str, Any]) -> bool:
    temperature, seed = asked.get("temperature"), asked.get("seed")
    return type(seed) is int or (type(temperature) in (int, float) and temperature == 0)


def _has_effects(endpoint: str, asked: dict[str, Any]) -> bool:
    """Whether the call may do more than to say something, or what it says may depend on more than the call."""
    folded = {name.lower(): value for name, value in asked.items()}
    if len(folded) != len(asked):  # Readers that don't look at the case take one or the other.
        return True
    if any(folded.get(name) for name in _EFFECTS):
        return True
    # The Responses API keeps each answer unless it is told not to, and knows prompts by their names.
    if endpoint == "responses" and (folded.get("store") is not False or folded.get("prompt") is not None):
        return True
    return _looks_elsewhere(asked)


def _looks_elsewhere(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_looks_elsewhere, value))
    if not isinstance(value, dict):
        return False
    if value.get("type") == "item_reference":
        return True
    for name, each in value.items():
        if isinstance(each, str):
            if name in _ADDRESSES and not each.startswith("data:"):
                return True
        elif _looks_elsewhere(each):
            return True
    return False


def _with_equal_numbers(value: Any) -> Any:
    """The value with ``0`` in place of ``0.0``: one number, however it is written."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, list):
        return [*map(_with_equal_numbers, value)]
    if isinstance(value, dict):
        return {name: _with_equal_numbers(each) for name, each in value.items()}
    return value
