"""What a call to an upstream may need that is made for the current request."""

import logging

from flask import Request

from flask_ailimit.tokens import TokenCounter
from flask_ailimit.upstream.pacing import Asked

from .estimate import read_request
from .ledger import NO_USAGE, Ledger

_log = logging.getLogger("flask_ailimit")


def needed_by(ledger: Ledger, request: Request, counter: TokenCounter, default: int) -> Asked:
    """The model that a request names, and the tokens that it may use, as far as they can be told.

    Args:
        ledger: What the request owes.
        request: The request.
        counter: Counts its text.
        default: Output of a request that names no maximum.
    """
    estimate, models = next(iter(ledger.estimates.values()), None), ledger.models
    if estimate is None:
        try:
            estimate, models = read_request(request, ledger.app_state.settings.max_body_bytes, counter, default)
        except Exception as error:  # noqa: BLE001  only the limits and the view refuse what can't be read
            _log.debug("What a request needs of an upstream is not known (%s).", type(error).__name__)
            return Asked("", NO_USAGE)
    model = next((each for each in models or () if isinstance(each, str)), "")
    return Asked(ledger.pricing.model or model, estimate.usage)
