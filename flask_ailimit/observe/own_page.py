"""The usage page of whoever sent the current request."""

import logging
import sqlite3
from typing import Any

from flask_ailimit.engine import AILimitError
from flask_ailimit.engine.clock import MICROSECONDS
from flask_ailimit.engine.mutex import BusyError
from flask_ailimit.http.errors import LimiterUnavailable, NoSettlements, UnreadableQuery
from flask_ailimit.request.charges import identity_of
from flask_ailimit.request.ledger import Ledger
from flask_ailimit.request.payers import payers_of

from .usage_page import Query, QueryError, asked, page_of
from .writer import Writer

_log = logging.getLogger("flask_ailimit")


def own_page(ledger: Ledger, writer: Writer | None, query: Query, kind: str, now_us: int) -> dict[str, Any]:
    """The page that a query asks for, of the caller's own settlements.

    Args:
        ledger: That of the current request.
        writer: What writes the app's settlements; None if it keeps none.
        query: The request's query.
        kind: ``completions`` or ``costs``.
        now_us: The time, in microseconds since 1970.

    Raises:
        NoSettlements: The app keeps none.
        UnreadableQuery: The query can't be answered.
        LimiterUnavailable: The file can't be read now, or it can't be found out who asks.
        HTTPException: The app turns the client away.
    """
    if writer is None:
        raise NoSettlements(**ledger.answer_facts)
    subjects = _subjects_of(ledger)
    try:
        what = asked(query, now_us // MICROSECONDS, kind)
    except QueryError as error:
        raise UnreadableQuery(str(error), **ledger.answer_facts) from error
    writer.flush()  # What this process has just settled is to be on the page.
    try:
        sums = writer.settlements.sums(subjects, what.start, what.width, what.buckets)
    except (sqlite3.Error, OSError, BusyError, AILimitError) as error:
        _log.error("A usage page can't be shown: %s", error)
        raise LimiterUnavailable(**ledger.answer_facts) from error
    return page_of(what, sums)


def _subjects_of(ledger: Ledger) -> set[bytes]:
    """The hashes under which the caller's requests are settled: as a payer on routes by plan, by its key on others.

    If payers are known, an address in the place of a key is left out: others may have it, too.
    """
    subjects = {payers_of(ledger)[0].subject} if ledger.app_state.plans else set()
    identity = identity_of(ledger, ledger.flask_limiter.key_func)
    if not subjects or identity[-2:-1] != [""]:
        subjects.add(ledger.engine_now().subject(*identity))
    return subjects
