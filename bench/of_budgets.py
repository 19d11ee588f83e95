"""What a budget costs: a request under a plan with one, against the same plan without."""

import limited_flask as apps
from figures import Figure, Size
from of_plans import whole_requests

NAME = "a request with a budget / the same without"
REMARK = "4 limits of a plan; besides, a price is found, money is reserved and settled, and one header more is written"


def figures(size: Size) -> list[Figure]:
    """Whole requests, in memory and on this machine. What Redis is asked for one is counted in another family."""
    openers = {"with a budget": apps.ailimiters_with_budget, "without": apps.ailimiters_without_budget}
    return whole_requests(NAME, openers, 1.1, REMARK, size)
