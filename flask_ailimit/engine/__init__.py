"""The engine, without Flask: quotas, charges, decisions, reservations, algorithms and stores.

Example:
    >>> from flask_ailimit.engine import Charge, Engine, Quota, open_store
    >>> engine = Engine(open_store("memory://", name="docs"))
    >>> tokens = Quota(limit=1000, period=60, unit="tokens")
    >>> reservation = engine.reserve([Charge(engine.subject("user-1"), tokens, cost=600)])
    >>> reservation.allowed, reservation.decision.verdicts[0].remaining
    (True, 400)
    >>> reservation.settle({"tokens": 150})
    True
"""

from .algorithms import ALGORITHMS, Algorithm, Spending, State, Step
from .calendars import Calendar
from .charge import Charge, Settlement
from .clock import Clock, system_clock
from .decision import Decision, Settled, Verdict
from .engine import Engine
from .errors import AILimitError, ConfigurationError, HandOverError, StoreError
from .grant import Grant
from .handing_over import HandedOver
from .limit_text import parse_quotas
from .quota import Quota
from .reservation import Reservation
from .stores import StateStore, Store, open_store

__all__ = [
    "ALGORITHMS",
    "AILimitError",
    "Algorithm",
    "Calendar",
    "Charge",
    "Clock",
    "ConfigurationError",
    "Decision",
    "Engine",
    "Grant",
    "HandOverError",
    "HandedOver",
    "Quota",
    "Reservation",
    "Settled",
    "Settlement",
    "Spending",
    "State",
    "StateStore",
    "Step",
    "Store",
    "StoreError",
    "Verdict",
    "open_store",
    "parse_quotas",
    "system_clock",
]
