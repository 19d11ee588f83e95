"""What every call of the model is limited by: the plan of whoever calls, whichever door they use."""

from collections.abc import Callable

from flask_ailimit import AILimiter

from .keys import account
from .validation import View

SCOPE = "model"
"""One count for all doors: an account has its allowance once, not once for each wire format."""


def limited(limiter: AILimiter) -> Callable[[View], View]:
    """Limit a view by requests, tokens and calls in flight, in one decision."""

    def decorate(view: View) -> View:
        by_requests = limiter.shared_limit(lambda: account().plan.requests, scope=SCOPE)
        by_tokens = limiter.limit_tokens(lambda: account().plan.tokens, scope=SCOPE, shared=True)
        in_flight = limiter.limit_concurrency(lambda: account().plan.concurrency, scope=SCOPE, shared=True)
        limited_view: View = by_requests(by_tokens(in_flight(view)))
        return limited_view

    return decorate
