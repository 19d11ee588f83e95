"""Which API a path is of, and who writes its answers."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from . import anthropic_answers, openai_answers
from .http_text import Request
from .words import Piece, Said

Dialect = Literal["openai", "azure", "anthropic"]

_PATH = re.compile(r"/(?:openai/deployments/(?P<deployment>[^/]+)|openai/v1|v1)(?P<name>/[^?]+?)/?(?:\?.*)?")


class Endpoint(NamedTuple):
    """Writes what the model says, as one JSON value, and as a stream if the endpoint has streams."""

    whole: Callable[[Said, Mapping[str, Any]], dict[str, Any]]
    events: Callable[[Said, Mapping[str, Any]], list[Piece]] | None = None


ENDPOINTS = {
    "/chat/completions": Endpoint(openai_answers.chat, openai_answers.chat_events),
    "/responses": Endpoint(openai_answers.response, openai_answers.response_events),
    "/embeddings": Endpoint(openai_answers.embeddings),
    "/messages": Endpoint(anthropic_answers.message, anthropic_answers.message_events),
}
"""By what comes after ``/v1``."""


class Place(NamedTuple):
    """Where a request goes.

    Attributes:
        dialect: Of the API that it is for, also if there is no such path.
        name: What comes after ``/v1``; empty for another path.
        deployment: Azure's, which stands for a model.
    """

    dialect: Dialect
    name: str
    deployment: str | None


def place_of(request: Request) -> Place:
    """Where the request goes."""
    found = _PATH.fullmatch(request.path)
    name, deployment = (found["name"], found["deployment"]) if found else ("", None)
    if name.startswith("/messages") or "anthropic-version" in request.headers:
        return Place("anthropic", name, deployment)
    return Place("azure" if request.path.startswith("/openai/") else "openai", name, deployment)
