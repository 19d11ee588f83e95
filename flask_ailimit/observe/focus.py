"""Settlements as a table of charges, with the column names of FOCUS 1.2, for tools that read bills of clouds.

The names and the formats of numbers, times, units and tags are those of the specification
(https://focus.finops.org/focus-specification/v1-2/). Only the columns that a settlement has something to say for are
there, so the table is no complete data set of FOCUS. A column of our own begins with ``x_``.
"""

import csv
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TextIO

from flask_ailimit.engine.clock import MICROSECONDS
from flask_ailimit.engine.quota import NANO

from .settlement import Settlement

COLUMNS = (
    "ChargePeriodStart",
    "ChargePeriodEnd",
    "BilledCost",
    "EffectiveCost",
    "BillingCurrency",
    "ChargeCategory",
    "ChargeDescription",
    "ConsumedQuantity",
    "ConsumedUnit",
    "PricingQuantity",
    "PricingUnit",
    "ServiceCategory",
    "ServiceName",
    "SkuId",
    "SubAccountId",
    "SubAccountName",
    "Tags",
    "x_RequestId",
    "x_SettlementNumber",
    "x_InputTokens",
    "x_CachedInputTokens",
    "x_CacheWriteTokens",
    "x_OutputTokens",
    "x_ReasoningTokens",
    "x_ServiceTier",
    "x_Units",
    "x_Source",
    "x_Ending",
    "x_Status",
    "x_Price",
    "x_PriceSource",
    "x_Rates",
)
"""The columns, in their order."""

_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""How a text begins that a spreadsheet would compute. The last four are the first four in full width."""

_CONTROL = dict.fromkeys([*range(0x20), 0x7F, 0x85, 0x2028, 0x2029], " ")
"""Characters that would begin another line, or another cell, for some reader."""


def write_csv(settlements: Iterable[Settlement], file: TextIO, *, service: str) -> int:
    """Write settlements as CSV with a header, one at a time. Returns how many there were.

    Args:
        settlements: In the order of the rows.
        file: Text in UTF-8, opened with ``newline=""``. Lines end with a line feed.
        service: What the column ``ServiceName`` says.
    """
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    rows = 0
    for settlement in settlements:
        writer.writerow(row_of(settlement, service))
        rows += 1
    return rows


def row_of(settlement: Settlement, service: str) -> list[str]:
    """The row of a settlement, empty where it has nothing to say."""
    at_s = settlement.at_us // MICROSECONDS
    cost = "" if settlement.cost_nano is None else amount(settlement.cost_nano)
    quantity, unit = _quantity(settlement)
    tags = {"endpoint": settlement.endpoint, "plan": settlement.plan}
    return [
        _time(at_s),
        _time(at_s + 1),
        cost,
        cost,
        _safe(settlement.currency),
        "Usage",
        _safe(f"{unit} of {settlement.model}" if settlement.model else f"{unit} of any model"),
        quantity,
        unit,
        quantity,
        unit,
        "AI and Machine Learning",
        _safe(service),
        _safe(settlement.model),
        settlement.subject.hex(),
        _safe(settlement.label),
        json.dumps({name: value for name, value in tags.items() if value is not None}),
        _safe(settlement.request_id),
        str(settlement.number),
        str(settlement.input_tokens),
        str(settlement.cached_input_tokens),
        str(settlement.cache_write_tokens + settlement.cache_write_1h_tokens),
        str(settlement.output_tokens),
        str(settlement.reasoning_tokens),
        _safe(settlement.service_tier),
        settlement.units or "",
        settlement.source,
        settlement.ending,
        "" if settlement.status is None else str(settlement.status),
        _safe(settlement.price),
        _safe(settlement.price_source),
        settlement.rates or "",
    ]


def amount(nano: int) -> str:
    """An amount of nano-units in units of the currency: exact, without an exponent, such as ``0.00125``."""
    whole, part = divmod(nano, NANO)
    return f"{whole}.{part:09}".rstrip("0").removesuffix(".")


def _quantity(settlement: Settlement) -> tuple[str, str]:
    """How much was consumed of what: the tokens, or the request if it used none."""
    tokens = settlement.input_tokens + settlement.output_tokens
    return (str(tokens), "Tokens") if tokens else (str(int(settlement.number == 1)), "Requests")


def _time(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _safe(text: str | None) -> str:
    """A text in one line, with an apostrophe before it if a spreadsheet would take it for a formula."""
    shown = (text or "").translate(_CONTROL)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown
