"""One settlement as it is kept: what :data:`flask_ailimit.usage_settled` says, without anything that a client wrote.

Whose request it was is a hash, the model is a pattern of the plan or the name of a price, and the label is the app's
own word for the payer.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from flask_ailimit.engine.quota import CONCURRENCY, REQUESTS
from flask_ailimit.money.cost import Cost
from flask_ailimit.tokens import Usage

_UNMETERED = {REQUESTS, CONCURRENCY}
_TIER = re.compile(r"[A-Za-z0-9_.-]{1,32}")


class Settlement(NamedTuple):
    """A settlement. Its fields are the columns of the table, in their order.

    Attributes:
        request_id: Our id of the request.
        number: 1 for its first settlement, 2 for the second. Together they are unique.
        at_us: When it was settled, in microseconds since 1970.
        subject: The hash of the payer; empty if nobody is known.
        endpoint: Flask's name of the view, or None.
        plan: The payer's plan, or None.
        label: The app's name for the payer, or None.
        model: The pattern of the plan that the model matched; without one, the name of the price; or None.
        service_tier: As the answer names it; empty without one.
        source: ``recorded``, ``reported``, ``counted`` or ``reserved``.
        ending: How the answer ended, such as ``complete``.
        status: The HTTP status of the answer, or None.
        input_tokens: As of :class:`flask_ailimit.Usage`, and so are all kinds of tokens below.
        output_tokens: As above.
        cached_input_tokens: As above.
        cache_write_tokens: As above.
        cache_write_1h_tokens: As above.
        audio_input_tokens: As above.
        image_input_tokens: As above.
        reasoning_tokens: As above.
        audio_output_tokens: As above.
        image_output_tokens: As above.
        units: What was recorded in units of the app's own, as JSON; None without any.
        cost_nano: What it came to, in whole nano-units of the currency; None if no price is known.
        currency: Its code, such as ``USD``; empty without a cost.
        price: The name of the price, or None.
        price_source: Where the price is from, or None.
        rates: The rates as JSON, or None.
    """

    request_id: str
    number: int
    at_us: int
    subject: bytes
    endpoint: str | None
    plan: str | None
    label: str | None
    model: str | None
    service_tier: str
    source: str
    ending: str
    status: int | None
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    audio_input_tokens: int
    image_input_tokens: int
    reasoning_tokens: int
    audio_output_tokens: int
    image_output_tokens: int
    units: str | None
    cost_nano: int | None
    currency: str
    price: str | None
    price_source: str | None
    rates: str | None


def settlement_of(at_us: int, facts: Mapping[str, Any]) -> Settlement | None:
    """The settlement that an event tells of; None if nothing was metered, as on a route with limits on requests alone.

    Args:
        at_us: When the event was heard, in microseconds since 1970.
        facts: What :data:`flask_ailimit.usage_settled` says, by name. The client's own id, for one, is not kept.
    """
    usage, units, cost = facts["usage"], facts["units"], facts.get("cost")
    if facts["charged"].keys() <= _UNMETERED and not usage.total_tokens and not units and cost is None:
        return None
    return Settlement(
        request_id=facts["request_id"],
        number=facts["number"],
        at_us=at_us,
        subject=bytes.fromhex(facts["subject"]),
        endpoint=_text(facts["endpoint"]),
        plan=_text(facts["plan"]),
        label=_text(facts["label"]),
        model=_text(facts["model"] or (cost.price if cost else None)) or None,
        source=facts["source"],
        ending=facts["ending"],
        status=facts["status"],
        **_used(usage),
        units=json.dumps({**units}, sort_keys=True) if units else None,
        **_priced(cost),
    )


def _used(usage: Usage) -> dict[str, Any]:
    return {"service_tier": _tier(usage.service_tier), **usage.counts}


def _priced(cost: Cost | None) -> dict[str, Any]:
    if cost is None:
        return {"cost_nano": None, "currency": "", "price": None, "price_source": None, "rates": None}
    return {
        "cost_nano": cost.nano,
        "currency": cost.currency,
        "price": _text(cost.price) or None,
        "price_source": _text(cost.source) or None,
        "rates": json.dumps({**cost.rates}, sort_keys=True) if cost.rates else None,
    }


def _text(text: str | None) -> str | None:
    """The same without lone surrogates, which no file of UTF-8 can hold."""
    return None if text is None else str(text).encode("utf-8", "replace").decode()


def _tier(tier: str) -> str:
    """A tier as an answer names it. What is no word is left out: a model may have written it."""
    return tier if _TIER.fullmatch(tier) else ""
