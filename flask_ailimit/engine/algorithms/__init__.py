"""The algorithms by name. To add one: a file beside this one, and a line in the table."""

from .base import Algorithm, Spending, State, Step
from .budget import BUDGET
from .concurrency import CONCURRENCY
from .fixed_window import FIXED_WINDOW
from .gate import GATE
from .moving_window import MOVING_WINDOW
from .provider_bucket import PROVIDER_BUCKET
from .sliding_window import SLIDING_WINDOW
from .token_bucket import TOKEN_BUCKET
from .turns import TURNS
from .window import WINDOW

ALGORITHMS: dict[str, Algorithm] = {
    "budget": BUDGET,
    "concurrency": CONCURRENCY,
    "fixed-window": FIXED_WINDOW,
    "gate": GATE,
    "moving-window": MOVING_WINDOW,
    "provider-bucket": PROVIDER_BUCKET,
    "sliding-window-counter": SLIDING_WINDOW,
    "token-bucket": TOKEN_BUCKET,
    "turns": TURNS,
    "window": WINDOW,
}
"""The algorithms by name."""

OVER_TIME = frozenset(ALGORITHMS) - {"concurrency", "gate", "provider-bucket", "turns"}
"""Those that an app may choose for a limit. The others count slots, and its own calls to providers."""

__all__ = ["ALGORITHMS", "OVER_TIME", "Algorithm", "Spending", "State", "Step"]
