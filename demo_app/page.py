"""``GET /``: what the demo is, for whoever opens it, with a form to try it. HTML, plain text or JSON.

The page asks for no key, and neither the limits nor the model are asked for it: it costs as little as a probe. Its form
calls the same doors as every other client, with a key, and is limited like them.
"""

import re
from collections.abc import Mapping
from typing import Any

from flask import Flask, Response, jsonify, make_response, render_template, request
from flask.typing import ResponseReturnValue

from . import examples, plans
from .doors import DOORS
from .errors import ApiError
from .keys import Account, published_key, published_key_of
from .validation import DEFAULT_MAX_TOKENS, MAX_TOKENS

PUBLIC = frozenset({"page", "static"})
"""Endpoints that ask for no key."""

FORMATS = ("text/plain", "text/html", "application/json")
"""The first is for those who accept everything, such as curl. Browsers ask for HTML."""

HOST = re.compile(r"[\w.:\[\]-]+", re.ASCII)
"""The name and port that a visitor used. They go into lines that people paste into a shell."""

HEADERS = {
    # Only the page's own files run or style anything, and only this server is called.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def register(app: Flask, models: tuple[str, ...]) -> None:
    """Serve ``GET /`` and its files."""
    accounts: tuple[Account, ...] = app.config["DEMO_ACCOUNTS"]
    file = plans.read(app.config["AILIMIT_PLANS"], app.root_path)

    @app.get("/")
    def page() -> ResponseReturnValue:
        if not HOST.fullmatch(request.host):
            raise ApiError(400, "invalid_host", "Send a Host header with the name of this server.")
        wanted = request.accept_mimetypes.best_match(FORMATS, FORMATS[0])
        about = describe(request.host_url.rstrip("/"), models, accounts, file)
        response = make_response(jsonify(about) if wanted == "application/json" else _rendered(wanted, about))
        response.vary.add("Accept")
        response.headers["Cache-Control"] = "no-store"
        return response

    @app.after_request
    def protect(response: Response) -> Response:
        if request.endpoint in PUBLIC:
            response.headers.update(HEADERS)
        return response


def describe(
    url: str, models: tuple[str, ...], accounts: tuple[Account, ...], file: Mapping[str, Any]
) -> dict[str, object]:
    """What the page says.

    Args:
        url: Where its reader reached the demo, such as ``http://127.0.0.1:8000``.
        models: What clients may write in ``model``: the model's own name, a small one and a large one.
        accounts: Who may use the model. Only published keys are shown.
        file: What the file of the plans says.
    """
    key, penny = published_key(accounts[0]), published_key_of("penny", accounts)
    model_name, small, large = models
    return {
        "url": url,
        "model": model_name,
        "other_names": [small, large],
        "doors": [door._asdict() for door in DOORS],
        "keys": [
            {
                "account": account.name,
                "key": published_key(account),
                "plan": account.plan,
                "organisation": account.organisation,
                **plans.limits_in(file["plans"][account.plan]),
            }
            for account in accounts
        ],
        "prices": plans.prices_in(file),
        "examples": {
            "curl": [line._asdict() for line in examples.curl_lines(url, key, refused=large, penny=penny)],
            "openai": examples.openai_lines(url, key, model_name),
            "anthropic": examples.anthropic_lines(url, key, model_name),
        },
    }


def _rendered(mimetype: str, about: dict[str, object]) -> Response:
    template = "page.html" if mimetype == "text/html" else "page.txt"
    text = render_template(template, **about, default_max_tokens=DEFAULT_MAX_TOKENS, max_tokens=MAX_TOKENS)
    return Response(text, mimetype=mimetype)
