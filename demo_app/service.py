"""What is not the model: whether the process lives, and what a caller has left."""

from flask import Flask, jsonify
from flask.typing import ResponseReturnValue

from flask_ailimit import AILimiter

PUBLIC = frozenset({"healthz"})
"""Endpoints that ask for no key."""


def register(app: Flask, limiter: AILimiter) -> None:
    """Serve ``GET /healthz`` and ``GET /usage``."""
    # What the caller has left, and nothing of others: all doors share one allowance. With ?bucket_width=1d it is what
    # the caller used by day, if the demo keeps settlements.
    app.add_url_rule("/usage", "usage", limiter.usage_view)

    @app.get("/healthz")
    def healthz() -> ResponseReturnValue:
        """Say that the process answers. Without a key, a limit or the model, so that a probe costs nothing."""
        return jsonify(status="ok")
