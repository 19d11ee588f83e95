"""Which model the current request names: by the app's ``model_of``, or else by its body."""

from contextlib import suppress
from functools import partial

from flask import Request
from werkzeug.exceptions import HTTPException

from flask_ailimit.current import current_request
from flask_ailimit.money.book import LONGEST_MODEL

from .asking import ask
from .estimate import models_in_body
from .ledger import Ledger


def model_named(ledger: Ledger, request: Request) -> tuple[bool, str | None]:
    """Whether it is known which model the request names, and its name; None if it names none. Asked once a request.

    Raises:
        HTTPException: ``model_of`` turns the client away or failed, or the body is too large.
    """
    pricing = ledger.pricing
    if pricing.named is None:
        pricing.named = _found(ledger, request)
    return pricing.named


def note_model(ledger: Ledger) -> None:
    """Find out which model the request names, for the event that tells what it cost. Nobody is turned away for that."""
    with suppress(HTTPException):
        model_named(ledger, current_request())


def _found(ledger: Ledger, request: Request) -> tuple[bool, str | None]:
    model_of = ledger.app_state.settings.model_of
    named = (
        models_in_body(ledger, request) if model_of is None else [ask(ledger, "model_of", partial(model_of, request))]
    )
    if named is None:
        return False, None
    names = [name or None for name in named if isinstance(name, str | None)]
    model = names[0] if names else None
    if len(names) < len(named) or any(name != model for name in names) or len(model or "") > LONGEST_MODEL:
        return False, None
    return True, model
