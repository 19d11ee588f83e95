"""The algorithms by name. To add one: a file beside this one, and a line in the table."""

from .base import Algorithm, State, Step
from .concurrency import CONCURRENCY
from .fixed_window import FIXED_WINDOW
from .moving_window import MOVING_WINDOW
from .sliding_window import SLIDING_WINDOW
from .token_bucket import TOKEN_BUCKET

ALGORITHMS: dict[str, Algorithm] = {
    "concurrency": CONCURRENCY,
    "fixed-window": FIXED_WINDOW,
    "moving-window": MOVING_WINDOW,
    "sliding-window-counter": SLIDING_WINDOW,
    "token-bucket": TOKEN_BUCKET,
}
"""The algorithms by name."""

__all__ = ["ALGORITHMS", "Algorithm", "State", "Step"]
