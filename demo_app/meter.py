"""What each answered request used, in the log: where a service would write its bill."""

import logging

from flask import Flask

from flask_ailimit import Usage, usage_settled


def register(app: Flask) -> None:
    """Log a line for each request that was settled."""
    app.logger.setLevel(logging.INFO)

    @usage_settled.connect_via(app)
    def log(_: Flask, *, usage: Usage, source: str, request_id: str, **__: object) -> None:
        app.logger.info(
            "settled %s input=%d output=%d source=%s", request_id, usage.input_tokens, usage.output_tokens, source
        )

    app.extensions["demo_meter"] = log  # A signal alone would not keep it.
