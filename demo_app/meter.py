"""What each answered request used and cost, in the log: where a service would write its bill."""

import logging

from flask import Flask

from flask_ailimit import Usage, usage_settled
from flask_ailimit.money import Cost


def register(app: Flask) -> None:
    """Log a line for each request that was settled."""
    app.logger.setLevel(logging.INFO)

    @usage_settled.connect_via(app)
    def log(_: Flask, *, usage: Usage, source: str, request_id: str, cost: Cost | None, **__: object) -> None:
        tokens = usage.input_tokens, usage.output_tokens
        app.logger.info("settled %s input=%d output=%d source=%s cost=%s", request_id, *tokens, source, cost)

    app.extensions["demo_meter"] = log  # A signal alone would not keep it.
