"""Credit: what a payer was granted beside a budget, from a moment until a moment."""

from typing import NamedTuple


class Grant(NamedTuple):
    """One grant of credit. A payer's grants are burnt soonest-ending first, and among those the one with the lowest id.

    Attributes:
        id: Its number among the payer's grants, 1 to 2**53 - 1. What was used is kept under it.
        amount: What was granted, in the units of the budget, 1 to 2**53 - 1.
        begins: The second since the epoch from which it counts.
        ends: The second at which what is left of it is lost. It may be moved until it has come. What was used is kept
            until the end that was known when the payer was last charged or refused; so if nobody calls between the move
            and the former end, all of the grant counts again. A grant of its own has no such gap.
    """

    id: int
    amount: int
    begins: int
    ends: int
