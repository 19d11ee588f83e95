"""What is not the model: whether the process lives, and what a caller has left."""

from flask import Flask, jsonify, request
from flask.typing import ResponseReturnValue

from flask_ailimit import AILimiter, Decision

PUBLIC = frozenset({"healthz"})
"""Endpoints that ask for no key."""


def register(app: Flask, limiter: AILimiter) -> None:
    """Serve ``GET /healthz`` and ``GET /usage``."""

    @app.get("/healthz")
    def healthz() -> ResponseReturnValue:
        """Say that the process answers. Without a key, a limit or the model, so that a probe costs nothing."""
        return jsonify(status="ok")

    @app.get("/usage")
    def usage() -> ResponseReturnValue:
        """Say what the caller has left, and nothing of others. All doors share one allowance, so one stands for all.

        With ``?bucket_width=1d`` it says what the caller used by day, if the demo keeps settlements.
        """
        if "bucket_width" in request.args:
            return limiter.usage_view()
        return jsonify(usage_json(limiter.peek("predict").told()))


def usage_json(decision: Decision) -> dict[str, object]:
    """What a caller has left of each limit, from a decision that took nothing.

    ``reset_after`` is in seconds, until the count is as if never used.
    """
    return {
        "limits": [
            {
                "name": verdict.charge.quota.name,
                "limit": verdict.limit,
                "remaining": verdict.remaining,
                "used": verdict.used,
                "reset_after": verdict.reset_after,
            }
            for verdict in decision.verdicts
        ]
    }
