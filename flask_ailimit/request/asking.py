"""Asks a function of the app about the current request: who sent it, or which model it names."""

from collections.abc import Callable
from typing import TypeVar

from werkzeug.exceptions import HTTPException

from flask_ailimit.code_places import code_places
from flask_ailimit.http.errors import AmbiguousKey, LimiterUnavailable

from .ledger import Ledger

_Answer = TypeVar("_Answer")


def ask(ledger: Ledger, what: str, function: Callable[[], _Answer]) -> _Answer:
    """What the function returns.

    Args:
        ledger: That of the current request.
        what: What the function is for, such as ``key_func``.
        function: The app's function.

    Raises:
        AmbiguousKey: The request carries different keys.
        HTTPException: The function turns the client away.
        LimiterUnavailable: The function failed. Nothing takes the place of its answer: all clients of a proxy, for
            example, have one address and would share one count.
    """
    try:
        return function()
    except AmbiguousKey:
        raise AmbiguousKey(**ledger.answer_facts) from None
    except HTTPException:
        raise
    except Exception as error:  # noqa: BLE001  any: it is the app's function
        # Not the error's text, which may hold the key.
        name, where = type(error).__name__, code_places(error)
        ledger.flask_limiter.logger.error("%s: %r raised %s at %s", what, function, name, where)  # noqa: TRY400  for that reason
        raise LimiterUnavailable(**ledger.answer_facts) from None
