"""What one request costs in money, and in tokens that are weighed.

The price is that of the model that is sent on: the one that the app names by ``limiter.set_model``, else the one that
the request names. A cost that the app names itself comes before every price.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from typing import NamedTuple, Self

from flask_ailimit.app_state import AppState
from flask_ailimit.code_places import code_places
from flask_ailimit.engine.charge import SUBJECT_BYTES
from flask_ailimit.engine.clock import MICROSECONDS
from flask_ailimit.engine.quota import is_money
from flask_ailimit.money import Money, Weights, currency_of
from flask_ailimit.money.amounts import amount_of
from flask_ailimit.money.bill import Call, bill
from flask_ailimit.money.cost import Cost
from flask_ailimit.money.price import Price
from flask_ailimit.money.unknown import FREE, PRICE_AS, REFUSED, UnknownPrice
from flask_ailimit.tokens import Usage

_log = logging.getLogger("flask_ailimit")

IMAGES = "images"
"""The app's own unit of images, which prices know."""

_PRICED, _MODEL = "priced.", "sent_model"


class Recorded(NamedTuple):
    """What a view recorded at one time.

    Attributes:
        model: The model that was sent on by then; None if it was not known.
        usage: The tokens; None if it named none.
        cost: What they cost, if the app named it.
        images: How many images, as units of that name.
    """

    model: str | None
    usage: Usage | None
    cost: Money | None = None
    images: int = 0


class Priced(NamedTuple):
    """What a limit is charged in the end, if that is something else than the number of tokens.

    Attributes:
        unit: Its unit: of money or of tokens.
        weights: How much a token of each kind counts for; None for what it is.
        unknown_price: What a model costs that has no price.
    """

    unit: str
    weights: Weights | None
    unknown_price: UnknownPrice


Count = tuple[bytes, bytes]
"""Names a count: its subject, and its name among the subject's counts."""


class Pricing:
    """What one request costs.

    Attributes:
        named: Whether it is known which model the request names, and its name, or None if it names none. None as long
            as nobody has asked.
        model: The model that the app named, because it is the one that is sent on; None without one.
        calls: What the view recorded, one by one: models have different prices.
        settled: How many of them are settled.
        limits: What is charged to counts, where it is something else than the number of tokens.
    """

    __slots__ = ("_app_state", "_known", "calls", "limits", "model", "named", "settled")

    def __init__(self, app_state: AppState) -> None:
        self._app_state = app_state
        self.named: tuple[bool, str | None] | None = None
        self.model: str | None = None
        self.calls: list[Recorded] = []
        self.settled = 0
        self._known: dict[str, Price | None] = {}
        self.limits: dict[Count, Priced] = {}

    def record(self, usage: Usage | None, cost: Money | None, images: int) -> None:
        """Note what the view recorded: a call of the model that is sent on, or more output of the call before.

        A view that passes a stream on may record each piece. What has no input of its own is such a piece, and is paid
        with its call: rates may depend on the call's input, and one of them is of each call. Images alone are one, too.
        """
        if usage is None and not images:
            return
        model = self.sent_model
        last = self.calls[-1] if len(self.calls) > self.settled else None
        if last and last.model == model and last.cost is None and cost is None and _is_of_one_call(last.usage, usage):
            together = last.usage + usage if last.usage and usage else last.usage or usage
            self.calls[-1] = last._replace(usage=together, images=last.images + images)
        else:
            self.calls.append(Recorded(model, usage, cost, images))

    def facts(self) -> dict[str, str]:
        """What another process needs to go on, as texts by name."""
        told = {
            f"{_PRICED}{subject.hex()}{bucket.hex()}": _written(each) for (subject, bucket), each in self.limits.items()
        }
        if self.is_model_known:
            told[_MODEL] = self.sent_model or ""
        return told

    @classmethod
    def of_facts(cls, app_state: AppState, facts: Mapping[str, object]) -> Self:
        """The pricing of a request of which these are the facts."""
        pricing = cls(app_state)
        model = facts.get(_MODEL)
        pricing.named = None if model is None else (True, str(model) or None)
        for name, text in facts.items():
            if name.startswith(_PRICED):
                count = bytes.fromhex(name.removeprefix(_PRICED))
                pricing.limits[count[:SUBJECT_BYTES], count[SUBJECT_BYTES:]] = _read(str(text))
        return pricing

    @property
    def sent_model(self) -> str | None:
        """The model that is sent on; None if it isn't known."""
        if self.model is not None:
            return self.model
        return None if self.named is None else self.named[1]

    @property
    def is_model_known(self) -> bool:
        """Whether it is known which model is sent on, or that the request names none."""
        return self.model is not None or (self.named is not None and self.named[0])

    def units_used(self, usage: Usage, *, failed: bool) -> dict[Count, int | None]:
        """What each of the ``limits`` is to be charged for what the request used, by count.

        Of money it is None if nobody knows the price of a model. Then what was reserved stays charged.

        Args:
            usage: The tokens. For money, what the view recorded comes before it.
            failed: Whether no model answered. If no tokens were used either, there is nothing to pay.
        """
        return {count: self._units_under(limit, usage, failed=failed) for count, limit in self.limits.items()}

    def cost_of(self, calls: Sequence[Recorded], currency: str, unknown: UnknownPrice) -> Cost | None:
        """What calls of models cost together, rounded up once; None if nobody knows.

        Args:
            calls: The calls.
            currency: Such as ``USD``.
            unknown: What a model costs that has no price.
        """
        return bill([self._priced(call, currency, unknown) for call in calls], currency)

    def nano_of(self, usage: Usage, currency: str, unknown: UnknownPrice, images: int = 0) -> int | None:
        """What one call of the model that is sent on costs, in nano-units; None if nobody knows."""
        if self._app_state.settings.cost_of is None:
            price = self._price(self.sent_model)
            if price is not None and price.currency == currency:  # Most requests.
                return price.cost(usage, images)
        cost = self.cost_of([Recorded(None, usage, images=images)], currency, unknown)
        return None if cost is None else cost.nano

    def _nano(self, usage: Usage, currency: str, unknown: UnknownPrice, *, failed: bool) -> int | None:
        if not self.calls and not failed:
            return self.nano_of(usage, currency, unknown)
        cost = self.cost_of(self._calls(usage, failed=failed), currency, unknown)
        return None if cost is None else cost.nano

    def cost_told(self, usage: Usage, unit: str | None = None, *, failed: bool) -> Cost | None:
        """What the request cost, for events.

        Args:
            usage: As of :meth:`units_used`.
            unit: That of a limit on money, under which it is what that is charged; without one, it is in the currency
                of the price.
            failed: As of :meth:`units_used`.
        """
        calls = self._calls(usage, failed=failed)
        for limit in self.limits.values():
            if limit.unit == unit or (unit is None and is_money(limit.unit)):
                return self.cost_of(calls, currency_of(limit.unit), limit.unknown_price)
        last = calls[-1] if calls else Recorded(None, usage)
        currency = self._priced(last, None, REFUSED).currency
        return None if currency is None else self.cost_of(calls, currency, REFUSED)

    def _calls(self, usage: Usage, *, failed: bool) -> list[Recorded]:
        """The calls that the request made. If the view recorded no tokens, its answer is one, with what that used."""
        if any(call.usage is not None for call in self.calls):
            return self.calls
        if failed and not self.calls and usage == Usage():
            return []
        is_of_answer = [call.model in (None, self.sent_model) for call in self.calls]
        images = sum(call.images for call, is_its_own in zip(self.calls, is_of_answer, strict=True) if is_its_own)
        others = [call for call, is_its_own in zip(self.calls, is_of_answer, strict=True) if not is_its_own]
        return [*others, Recorded(None, usage, images=images)]

    def _units_under(self, limit: Priced, usage: Usage, *, failed: bool) -> int | None:
        if not is_money(limit.unit):
            return usage.of(limit.unit) if limit.weights is None else limit.weights.weigh(usage, limit.unit)
        currency = currency_of(limit.unit)
        nano = self._nano(usage, currency, limit.unknown_price, failed=failed)
        if nano is None:
            _log.error(
                "A request is charged what was reserved, because nobody knows in %s what its model costs.", currency
            )
        return nano

    def _priced(self, call: Recorded, currency: str | None, unknown: UnknownPrice) -> Call:
        model = call.model or self.sent_model
        named = call.cost or self._named_by_app(call.usage or Usage(), model)
        if named is not None:
            return Call(call.usage, cost=named)
        price = self._price(model)
        if price is None or currency not in (None, price.currency):
            if unknown.kind == FREE and currency is not None and self._is_known(model):
                return Call(call.usage, cost=Money(0, currency), source=FREE)
            price = self._price(unknown.model) if unknown.kind == PRICE_AS and self._is_known(model) else None
        return Call(call.usage, price, images=call.images)

    def _is_known(self, model: str | None) -> bool:
        return model is not None or self.is_model_known

    def _price(self, model: str | None) -> Price | None:
        """The price of a model in this request, also if it changes meanwhile.

        A request that names no model has that of the pattern ``*``, if there is one. One of which nobody can tell the
        model may be for any. It has a price only if all models have the same.
        """
        prices, name = self._app_state.prices, model or ""
        if prices is None:
            return None
        if not self._is_known(model):
            return prices.of_every_model
        if name not in self._known:
            now = datetime.fromtimestamp(self._app_state.clock() / MICROSECONDS, UTC)
            self._known[name] = prices.price_for(name, now)
        return self._known[name]

    def _named_by_app(self, usage: Usage, model: str | None) -> Money | None:
        """What the app's own function says that a usage costs; None without one, or if it names nothing."""
        cost_of_app = self._app_state.settings.cost_of
        if cost_of_app is None:
            return None
        try:
            return amount_of(cost_of_app(usage, model))
        except Exception as error:  # noqa: BLE001  any: it is the app's function
            # Not the error's text, which may hold what the client sent.
            _log.error("cost_of: %r raised %s at %s", cost_of_app, type(error).__name__, code_places(error))
            return None


def _is_of_one_call(before: Usage | None, usage: Usage | None) -> bool:
    return before is None or usage is None or not usage.input_tokens


def _written(priced: Priced) -> str:
    factors = [] if priced.weights is None else [[kind, str(factor)] for kind, factor in priced.weights.factors]
    return json.dumps([priced.unit, factors, *priced.unknown_price], separators=(",", ":"))


def _read(text: str) -> Priced:
    unit, factors, kind, model = json.loads(text)
    weights = Weights(tuple((name, Fraction(factor)) for name, factor in factors)) if factors else None
    return Priced(unit, weights, UnknownPrice(kind, model))
