"""What a request may use, before it is served."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from flask import Request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from .config import Settings
from .current import current_request
from .engine import Quota
from .engine.charge import require_cost
from .tokens import Estimate, InvalidBody, TokenCounter, Usage, decode_body, estimate_request

if TYPE_CHECKING:
    from .extension import AILimiter

_log = logging.getLogger("flask_ailimit")


def read_estimate(request: Request, settings: Settings, counter: TokenCounter) -> Estimate:
    """Estimate input and output from the request's JSON body. A body that says nothing may use the default output.

    The body is read here, before anything is reserved: who sends it slowly holds no slot meanwhile.

    Raises:
        RequestEntityTooLarge: The body is larger than ``max_body_bytes``.
    """
    body: object = None
    if request.is_json:
        try:
            body = decode_body(_read_body(request, settings.max_body_bytes))
        except InvalidBody:
            body = None  # The app will say what is wrong with it, and its tokens will be given back.
    return estimate_request(body, counter=counter, default_output_tokens=settings.default_output_tokens)


def _read_body(request: Request, most: int) -> bytes:
    announced = request.content_length
    if announced is not None:
        if announced > most:
            raise RequestEntityTooLarge
        return request.get_data(cache=True)
    allowed = request.max_content_length
    request.max_content_length = most + 1 if allowed is None else min(allowed, most + 1)
    raw = request.get_data(cache=True)
    # Of a longer body whose length was not announced, Werkzeug answers the beginning.
    if len(raw) >= request.max_content_length:
        raise RequestEntityTooLarge
    return raw


def cost_under(estimate: Estimate, quota: Quota) -> int:
    """What to reserve of ``quota``. A guess never makes a request impossible; what the client asked for can."""
    asked = estimate.usage.of(quota.unit)
    return asked if asked <= quota.burst else max(quota.burst, estimate.least.of(quota.unit))


def custom_estimate(estimate: Callable[[Request], int | Usage], request: Request, quota: Quota) -> int | None:
    """What the app's own ``estimate`` says, at most the quota's burst; None if it says nothing usable."""
    try:
        answer = estimate(request)
        cost = require_cost(answer.of(quota.unit) if isinstance(answer, Usage) else answer)
    except HTTPException:
        raise  # It refuses the body.
    except Exception as error:  # noqa: BLE001  a client may have sent what it can't read
        # Not the error's text, which may hold the prompt.
        _log.warning("estimate: %r answered no number of tokens (%s)", estimate, type(error).__name__)
        return None
    return min(cost, quota.burst)


def token_cost(limiter: "AILimiter", quota: Quota, estimate: Callable[[Request], int | Usage] | None) -> int:
    """What the current request costs of ``quota``, by the app's own estimate if it has one that answers."""
    request, tab = current_request(), limiter.tab
    cost = None if estimate is None else custom_estimate(estimate, request, quota)
    if cost is not None:
        return cost
    if tab.estimate is None:
        tab.estimate = read_estimate(request, tab.state.settings, tab.state.counter)
    return cost_under(tab.estimate, quota)
