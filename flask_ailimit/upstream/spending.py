"""What many calls have used, what that cost, and whether one more fits a budget."""

import re
import threading
from datetime import UTC, datetime
from typing import NamedTuple

from flask_ailimit.engine import ConfigurationError, system_clock
from flask_ailimit.engine.clock import MICROSECONDS
from flask_ailimit.engine.quota import MAX_EXACT, TOKENS, is_money
from flask_ailimit.money import PriceBook, currency_of, in_words, parse_money
from flask_ailimit.money.amounts import shown
from flask_ailimit.money.price import Price
from flask_ailimit.tokens import Usage

_TOKENS = re.compile(r"([0-9]{1,16})[ \t]+tokens")


class Budget(NamedTuple):
    """The most that calls may use together.

    Attributes:
        amount: Tokens, or nano-units of money.
        unit: ``tokens``, or that of a currency, such as ``nano_usd``.
    """

    amount: int
    unit: str

    def __str__(self) -> str:
        return in_words(self.amount, self.unit) if is_money(self.unit) else f"{self.amount} {self.unit}"


def parse_budget(text: str) -> Budget:
    """Read ``"20 USD"`` or ``"100000 tokens"``.

    Raises:
        ConfigurationError: It is neither.
    """
    match = _TOKENS.fullmatch(text.strip())
    if match is not None and int(match[1]) <= MAX_EXACT:
        return Budget(int(match[1]), TOKENS)
    try:
        nano, currency = parse_money(text)
    except ConfigurationError:
        raise ConfigurationError(
            f"An amount is needed, such as '20 USD' or '100000 tokens'. Got {shown(text)}."
        ) from None
    return Budget(nano, f"nano_{currency.lower()}")


class Spending:
    """Adds up what calls used. Threads share it.

    Args:
        prices: What models cost; None if nobody says it.
        budget: The most that the calls may use together; None for no bound.
    """

    def __init__(self, prices: PriceBook | None = None, budget: Budget | None = None) -> None:
        self._prices = prices
        self._budget = budget
        self._changed = threading.Condition()
        self._tokens = 0
        self._nano: dict[str, int] = {}
        self._has_unpriced = False
        self._spent = 0
        self._running = 0

    def price_of(self, model: str) -> Price | None:
        """The price of a model now; None if there is none."""
        now = datetime.fromtimestamp(system_clock() / MICROSECONDS, UTC)
        return None if self._prices is None else self._prices.price_for(model, now)

    def of(self, model: str, usage: Usage, images: int = 0) -> int | None:
        """What a call uses of the budget, in its unit; 0 without a budget, None if its price isn't known."""
        if self._budget is None:
            return 0
        if not is_money(self._budget.unit):
            return usage.total_tokens
        price = self.price_of(model)
        return price.cost(usage, images) if price and price.currency == currency_of(self._budget.unit) else None

    def tell(self, upstream: str, model: str, usage: Usage) -> None:  # noqa: ARG002  it is a Tally
        """Add what a call used. Of one that has no price the money is not known, and counts as none in the budget."""
        price, cost = self.price_of(model), self.of(model, usage)
        with self._changed:
            self._tokens += usage.total_tokens
            self._spent += cost or 0
            if price is None:
                self._has_unpriced = True
            else:
                self._nano[price.currency] = self._nano.get(price.currency, 0) + price.cost(usage)
            self._changed.notify_all()

    def begin(self, most: int) -> bool:
        """Reserve what a call may use at the most, as soon as that fits beside those that run.

        Returns:
            Whether it fits. If not, none of them runs any longer, and the budget is used up for this call.
        """
        if self._budget is None:
            return True
        with self._changed:
            while self._spent + self._running + most > self._budget.amount:
                if not self._running:
                    return False
                self._changed.wait()
            self._running += most
            return True

    def end(self, most: int) -> None:
        """Give back what was reserved. What the call used is told before."""
        if self._budget is None:
            return
        with self._changed:
            self._running -= most
            self._changed.notify_all()

    def in_words(self) -> str:
        """Such as ``5120 tokens, 0.13 USD``. ``at least`` says that there was a call whose price isn't known."""
        with self._changed:
            amounts = [in_words(nano, currency) for currency, nano in sorted(self._nano.items())]
            least = "at least " if self._has_unpriced and amounts else ""
            return ", ".join([f"{self._tokens} tokens", *(f"{least}{amount}" for amount in amounts)])
