"""API keys: who calls, and who pays for it under which plan."""

import hmac
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b

from flask import Flask, Request, g, request

from flask_ailimit import Caller, Payer

from .errors import ApiError

LONGEST_KEY = 128
_KEY = re.compile(rf"[!-+\--~]{{8,{LONGEST_KEY}}}")  # Visible ASCII but the comma.
_SECRET = secrets.token_bytes(32)


@dataclass(frozen=True, slots=True)
class Account:
    """A key's owner.

    Attributes:
        name: Who is limited. Not a secret, unlike the key.
        plan: The name of their plan.
        key_hash: The key, hashed; the key itself is not kept.
        organisation: Whose ceiling they share with others; None without one.
    """

    name: str
    plan: str
    key_hash: bytes
    organisation: str | None = None


PUBLISHED = {
    "small": "demo-small-key",
    "large": "demo-large-key",
    "colleague": "demo-colleague-key",
    "penny": "demo-penny-key",
}
"""The keys of the demo's accounts unless they are replaced. They are written in the README and are no secrets."""

ORGANISATION = "lab"
"""Whom the large key and the colleague's belong to. Its plan is ``team``."""

_OF_GATEWAY = "DEMO_GATEWAY_KEY"
GATEWAY = "gateway"
"""The account of the gateway's own calls, and its plan."""


def demo_accounts(environ: Mapping[str, str] = os.environ) -> tuple[Account, ...]:
    """The accounts of the demo. ``DEMO_SMALL_KEY`` and the like replace their keys.

    Raises:
        ValueError: A key is not 8 to 128 visible ASCII characters without a comma, or two are the same.
    """
    keys = {
        "DEMO_SMALL_KEY": environ.get("DEMO_SMALL_KEY", PUBLISHED["small"]),
        "DEMO_LARGE_KEY": environ.get("DEMO_LARGE_KEY", PUBLISHED["large"]),
        "DEMO_COLLEAGUE_KEY": environ.get("DEMO_COLLEAGUE_KEY", PUBLISHED["colleague"]),
        "DEMO_PENNY_KEY": environ.get("DEMO_PENNY_KEY", PUBLISHED["penny"]),
    }
    of_gateway = gateway_key(environ)
    if of_gateway is not None and "DEMO_GATEWAY_URL" not in environ:
        keys[_OF_GATEWAY] = of_gateway
    for variable, key in keys.items():
        if not _KEY.fullmatch(key):
            raise ValueError(f"{variable}: a key has 8 to {LONGEST_KEY} visible ASCII characters and no comma.")
    small, large, colleague, penny = [*keys.values()][: len(PUBLISHED)]
    if len({*keys.values()}) < len(keys):
        raise ValueError(f"Two of {', '.join(keys)} are the same. Give each account its own key.")
    accounts = (
        open_account("small", "free", small),
        open_account("large", "pro", large, ORGANISATION),
        open_account("colleague", "pro", colleague, ORGANISATION),
        open_account("penny", "penny", penny),
    )
    gateway = keys.get(_OF_GATEWAY)
    return accounts if gateway is None else (*accounts, open_account(GATEWAY, GATEWAY, gateway))


def gateway_key(environ: Mapping[str, str] = os.environ) -> str | None:
    """The key with which the gateway calls its model; None if it has none."""
    return environ.get("DEMO_GATEWAY_KEY")


def open_account(name: str, plan: str, key: str, organisation: str | None = None) -> Account:
    """An account that ``key`` opens, in this process."""
    return Account(name, plan, _hashed(key), organisation)


def published_key_of(name: str, accounts: Iterable[Account]) -> str | None:
    """The key of the account with this name, if there is one and its key is a published one."""
    return next((published_key(each) for each in accounts if each.name == name), None)


def published_key(account: Account) -> str | None:
    """The account's key if it is a published one, None if it was replaced and may be shown to nobody."""
    key = PUBLISHED.get(account.name)
    return key if key is not None and hmac.compare_digest(account.key_hash, _hashed(key)) else None


def register(app: Flask, accounts: tuple[Account, ...], *, public: frozenset[str]) -> None:
    """Ask for a key on every endpoint but the ``public`` ones. Register this before the limiter.

    Whoever has no valid key is turned away here and never reaches anybody's limits. A preflight carries no key.
    """

    @app.before_request
    def authenticate() -> None:
        if request.endpoint is not None and request.endpoint not in public and request.method != "OPTIONS":
            g.account = find_account(accounts, presented_key(request))


def account() -> Account:
    """Whose request this is."""
    found: Account = g.account
    return found


def caller() -> Caller:
    """Who pays for this request: the account, and its organisation if it has one."""
    paying = account()
    organisation = None if paying.organisation is None else Payer(paying.organisation, plan="team")
    return Caller(user=Payer(paying.name, plan=paying.plan, label=paying.name), organisation=organisation)


def find_account(accounts: tuple[Account, ...], key: str) -> Account:
    """The account that ``key`` opens. Takes as long for every key that opens none.

    Raises:
        ApiError: 401; the key opens no account.
    """
    digest = _hashed(key) if len(key) <= LONGEST_KEY else b""
    matches = [one for one in accounts if hmac.compare_digest(one.key_hash, digest)]
    if not matches:
        raise _unauthorized("invalid_api_key", "The API key is not valid.")
    return matches[0]


def presented_key(request: Request) -> str:
    """The one key that a request carries in ``Authorization: Bearer``, ``x-api-key`` or ``api-key``.

    Raises:
        ApiError: 401 without a key or with another scheme, 400 with more than one key.
    """
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme and scheme.lower() != "bearer":
        raise _unauthorized("unsupported_auth_scheme", 'Send your key as "Authorization: Bearer <key>".')
    headers = (request.headers.get("x-api-key", ""), request.headers.get("api-key", ""))
    keys = {key for key in (token, *headers) if key and not key.isspace()}
    if not keys:
        raise _unauthorized("missing_api_key", 'Send your key as "Authorization: Bearer <key>" or "x-api-key: <key>".')
    key = keys.pop()
    if keys or "," in key:  # A header that came twice reaches us as "a, b".
        raise ApiError(400, "ambiguous_credentials", "The request carries more than one API key. Send one.")
    return key


def _unauthorized(code: str, message: str) -> ApiError:
    return ApiError(401, code, message, headers={"WWW-Authenticate": "Bearer"})


def _hashed(key: str) -> bytes:
    return blake2b(key.encode("utf-8", "surrogatepass"), key=_SECRET, digest_size=32).digest()
