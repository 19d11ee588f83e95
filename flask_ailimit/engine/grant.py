"""Credit: what a payer was granted beside a budget, from a moment until a moment."""

from typing import NamedTuple


class Grant(NamedTuple):
    """One grant of credit. A payer's grants are burnt soonest-ending first, and among those the one with the lowest id.

    Attributes:
        id: Its number among the payer's grants, 1 to 2**53 - 1. What was used is kept under it.
        amount: What was granted, in the units of the budget, 1 to 2**53 - 1.
        begins: The second since the epoch from which it counts.
        ends: The second at which what is left of it is lost.
    """

    id: int
    amount: int
    begins: int
    ends: int
