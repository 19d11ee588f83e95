"""What a request may use, before it is served."""

import logging
from collections.abc import Callable

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge

from .config import Settings
from .engine import Quota
from .engine.charge import require_cost
from .tokens import Estimate, InvalidBody, TokenCounter, Usage, decode_body, estimate_request

_log = logging.getLogger("flask_ailimit")


def read_estimate(request: Request, settings: Settings, counter: TokenCounter) -> Estimate:
    """Estimate input and output from the request's JSON body. A body that says nothing may use the default output.

    The body is read here, before anything is reserved: who sends it slowly holds no slot meanwhile.

    Raises:
        RequestEntityTooLarge: The body is larger than ``max_body_bytes``.
    """
    body: object = None
    if request.is_json:
        if (request.content_length or 0) > settings.max_body_bytes:
            raise RequestEntityTooLarge
        if request.max_content_length is None or request.max_content_length > settings.max_body_bytes:
            request.max_content_length = settings.max_body_bytes
        try:
            body = decode_body(request.get_data(cache=True))
        except InvalidBody:
            body = None  # The app will say what is wrong with it, and its tokens will be given back.
    return estimate_request(body, counter=counter, default_output_tokens=settings.default_output_tokens)


def cost_under(estimate: Estimate, quota: Quota) -> int:
    """What to reserve of ``quota``. A guess never makes a request impossible; what the client asked for can."""
    asked = estimate.usage.of(quota.unit)
    return asked if asked <= quota.burst else max(quota.burst, estimate.least.of(quota.unit))


def custom_estimate(estimate: Callable[[Request], int | Usage], request: Request, quota: Quota) -> int | None:
    """What the app's own ``estimate`` says, at most the quota's burst; None if it says nothing usable."""
    answer = estimate(request)
    try:
        cost = require_cost(answer.of(quota.unit) if isinstance(answer, Usage) else answer)
    except ValueError:
        _log.warning("estimate: %r answered no number of tokens; the default estimate is used", estimate)
        return None
    return min(cost, quota.burst)
