"""The algorithms by name. To add one: a file beside this one, and a line in the table."""

from .base import Algorithm, Spending, State, Step
from .budget import BUDGET
from .concurrency import CONCURRENCY
from .fixed_window import FIXED_WINDOW
from .moving_window import MOVING_WINDOW
from .sliding_window import SLIDING_WINDOW
from .token_bucket import TOKEN_BUCKET
from .window import WINDOW

ALGORITHMS: dict[str, Algorithm] = {
    "budget": BUDGET,
    "concurrency": CONCURRENCY,
    "fixed-window": FIXED_WINDOW,
    "moving-window": MOVING_WINDOW,
    "sliding-window-counter": SLIDING_WINDOW,
    "token-bucket": TOKEN_BUCKET,
    "window": WINDOW,
}
"""The algorithms by name."""

__all__ = ["ALGORITHMS", "Algorithm", "Spending", "State", "Step"]
