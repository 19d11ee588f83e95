"""Events of a stream."""

import json
from typing import Any

from .words import Piece


def event(data: dict[str, Any], name: str = "", *, tokens: int = 0) -> Piece:
    """A server-sent event with this JSON, and a name if the API gives one."""
    head = f"event: {name}\n" if name else ""
    return Piece(f"{head}data: {json.dumps(data)}\n\n".encode(), tokens)
