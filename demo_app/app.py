"""The demo: a small language model behind three doors, shared fairly by flask_ailimit."""

import os
from collections.abc import Mapping
from typing import Any

from flask import Flask

from flask_ailimit import AILimiter

from . import anthropic_api, errors, gateway, keys, meter, openai_api, page, plans, predict, service
from .model import Model, names_of
from .smollm2 import SmolLM2
from .validation import DEFAULT_MAX_TOKENS, MAX_BODY_BYTES, READ_TIMEOUT


def create_app(model: Model | None = None, config: Mapping[str, Any] | None = None) -> Flask:
    """Make the demo's application.

    Args:
        model: What answers; SmolLM2-135M if not given. It is loaded by the first call, not here.
        config: Flask settings on top of the demo's own, such as ``RATELIMIT_STORAGE_URI``; ``DEMO_ACCOUNTS`` takes
            other accounts than :func:`demo_app.keys.demo_accounts`, ``AILIMIT_PLANS`` other plans than plans.toml.
    """
    app = Flask("demo_app")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.config["DEMO_READ_TIMEOUT"] = READ_TIMEOUT
    app.config["RATELIMIT_STORAGE_URI"] = os.environ.get("DEMO_STORAGE_URI", "local://")
    app.config["AILIMIT_PLANS"] = plans.FILE
    app.config["AILIMIT_SECRET"] = os.environ.get("DEMO_SECRET")
    app.config["AILIMIT_ACCEPT_MONEY_LOSS"] = True  # It is nobody's money. README.md says more.
    app.config["AILIMIT_SETTLEMENTS"] = os.environ.get("DEMO_SETTLEMENTS")
    app.config["DEMO_GATEWAY_KEY"] = keys.gateway_key()
    url = os.environ.get("DEMO_GATEWAY_URL")
    app.config["DEMO_GATEWAY_PLACE"] = None if url is None else gateway.Place(url)  # Gunicorn tells its own address.
    app.config.from_mapping(config or {})
    app.config.setdefault("DEMO_ACCOUNTS", keys.demo_accounts())
    answering = SmolLM2() if model is None else model

    limiter = AILimiter(default_output_tokens=DEFAULT_MAX_TOKENS)
    limiter.identify(keys.caller)
    errors.register(app, limiter)
    keys.register(app, app.config["DEMO_ACCOUNTS"], public=service.PUBLIC | page.PUBLIC)
    limiter.init_app(app)
    meter.register(app)

    predict.register(app, limiter, answering)
    openai_api.register(app, limiter, answering)
    anthropic_api.register(app, limiter, answering)
    gateway.register(app, limiter, answering)
    service.register(app, limiter)
    page.register(app, names_of(answering))
    return app
