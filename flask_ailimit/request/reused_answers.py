"""What a request owes whose view was answered from an upstream's cache: its request, and no tokens again."""

from flask_ailimit.tokens import Usage

from .charges import identity_of
from .ledger import NO_USAGE, Ledger


def tenant_of(ledger: Ledger) -> str | None:
    """For whom the current request is answered; None if it names nobody but its address, which others may share."""
    identity = identity_of(ledger, ledger.flask_limiter.key_func)
    if identity[-2:-1] == [""]:
        return None
    return ledger.engine_now().subject("tenant", *identity).hex()


def charge_reused(ledger: Ledger) -> None:
    """Charge an answer from the cache no tokens, although the view may pass on what it says it used.

    What other calls of the view have used, and will use, is charged. An app that records what its requests use is left
    alone.
    """
    ledger.is_reused = True


def note_asked(ledger: Ledger, usage: Usage) -> None:
    """Note what a call of the view has used that was really made."""
    ledger.asked = usage if ledger.asked is NO_USAGE else ledger.asked + usage
    if ledger.is_reused:
        ledger.record(None, {})  # The request may be settled already.
