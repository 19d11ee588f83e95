"""What a call asks of an upstream, from the request that an SDK has made."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from flask_ailimit.tokens import InvalidBody, TokenCounter, Usage, decode_body
from flask_ailimit.tokens.request import BYTES_A_TOKEN, estimate_with_models

from .pacing import Asked

_LONGEST_MODEL = 256
_MAKES_NO_OUTPUT = ("/embeddings", "/moderations", "/rerank", "/count_tokens")
_HAS_KNOWN_END = ("/chat/completions", "/completions", "/responses", "/messages")
CREDENTIALS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
"""Headers with a key, in small letters."""

_SECRETS = ("auth", "key", "token", "secret", "sig", "credential", "password", "cookie")
"""In the name of a header, or of a part of a query, that may hold a secret."""

_OF_THE_ACCOUNT = ("openai-organization", "openai-project")
_TELLS_CALLS_APART = "idempotency-key"

_OF_THE_BODY = ("host", "content-length", "transfer-encoding")


def asked_of(
    method: str, path: str, content_type: str, body: bytes, counter: TokenCounter, default_output: int
) -> Asked:
    """What a request may use, and of which model.

    Only a JSON body that is sent with POST is taken for something that uses tokens. Of one that can't be read, two
    bytes are taken for a token.
    """
    if method != "POST" or "json" not in content_type:
        return Asked("", Usage(), counts_tokens=False)
    if path.endswith(_MAKES_NO_OUTPUT):
        default_output = 0
    has_end = path.endswith(_HAS_KNOWN_END)
    try:
        value = decode_body(body)
    except InvalidBody:
        return Asked("", Usage.clamped(len(body) // BYTES_A_TOKEN, default_output), has_known_end=has_end)
    estimate, models, _ = estimate_with_models(value, counter, default_output)
    model = next((each for each in models if isinstance(each, str)), "")
    return Asked(model[:_LONGEST_MODEL], estimate.usage, has_known_end=has_end)


def with_model(body: bytes, model: str) -> bytes:
    """The body with another name for the model."""
    value: Any = json.loads(body)
    value["model"] = model
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def readdressed(url: str, own_base: str | None, other_base: str) -> str:
    """The address of a request at another upstream: what follows the own base, behind the other one.

    Without an own base, what follows the version (``/v1``) is taken, or else the whole path. A credential in the query
    is left out.
    """
    there = urlsplit(url)
    path = there.path
    own_path = urlsplit(own_base).path.rstrip("/") if own_base else ""
    if own_path and path.startswith(f"{own_path}/"):
        path = path.removeprefix(own_path)
    elif "/v1/" in path:
        path = path[path.index("/v1/") + len("/v1") :]
    query = "&".join(part for part in there.query.split("&") if not _may_be_secret(part.partition("=")[0]))
    return f"{other_base.rstrip('/')}{path}{'?' if query else ''}{query}"


def with_headers(headers: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """The headers of a request that goes to another upstream: without the credential of the first, with its own."""
    dropped = (*_OF_THE_ACCOUNT, *_OF_THE_BODY)
    kept = {name: value for name, value in headers.items() if name not in dropped and not _may_be_secret(name)}
    return {**kept, **{name.lower(): value for name, value in own.items()}}


def _may_be_secret(name: str) -> bool:
    lower = name.lower()
    return lower != _TELLS_CALLS_APART and any(word in lower for word in _SECRETS)
