"""The paths of the demo, for the page and for whoever asks for another."""

from typing import NamedTuple


class Door(NamedTuple):
    """A path.

    Attributes:
        method: Such as ``POST``.
        path: Such as ``/predict``.
        says: What it does, in one sentence.
        uses_model: Whether it asks the model, and so is limited.
        needs_key: Whether it asks for a key.
    """

    method: str
    path: str
    says: str
    uses_model: bool = False
    needs_key: bool = True


DOORS = (
    Door("POST", "/predict", "Answers a prompt, in the demo's own short format.", uses_model=True),
    Door("POST", "/v1/chat/completions", "Answers in OpenAI's format.", uses_model=True),
    Door("POST", "/v1/messages", "Answers in Anthropic's format.", uses_model=True),
    Door(
        "POST", "/gateway/v1/chat/completions", "Passes a chat on, at the pace that its model allows.", uses_model=True
    ),
    Door("GET", "/usage", "Says what a key has used and has left."),
    Door("GET", "/v1/models", "Lists the model, in OpenAI's format."),
    Door("GET", "/healthz", "Says that the server runs.", needs_key=False),
    Door("GET", "/", "This page, as HTML, plain text or JSON.", needs_key=False),
)


def paths() -> str:
    """All paths in a line, such as ``POST /predict, /v1/messages; GET /usage``."""
    methods = dict.fromkeys(door.method for door in DOORS)
    return "; ".join(
        f"{method} {', '.join(door.path for door in DOORS if door.method == method)}" for method in methods
    )
