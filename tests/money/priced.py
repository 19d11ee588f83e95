"""Usages and price tables of every kind, and the same sums in decimals, written without the code under test."""

from decimal import ROUND_CEILING, Context, Decimal

from hypothesis import strategies as st

from flask_ailimit.tokens import Usage

MOST = 2**53 - 1
EXACT = Context(prec=200)

INPUT_PARTS = {
    "cached_input": "cached_input_tokens",
    "cache_write": "cache_write_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "audio_input": "audio_input_tokens",
    "image_input": "image_input_tokens",
}
OUTPUT_PARTS = {
    "reasoning": "reasoning_tokens",
    "audio_output": "audio_output_tokens",
    "image_output": "image_output_tokens",
}
PARTS = INPUT_PARTS | OUTPUT_PARTS

few = st.integers(0, 2000)


@st.composite
def fitting_usages(draw, tiers=("",)):
    """Usages whose parts have no token in common."""
    values = {field: draw(few) for field in PARTS.values()}
    inputs = sum(values[field] for field in INPUT_PARTS.values()) + draw(few)
    outputs = sum(values[field] for field in OUTPUT_PARTS.values()) + draw(few)
    return Usage(inputs, outputs, **values, service_tier=draw(st.sampled_from(tiers)))


usages = st.builds(Usage, few, few, **dict.fromkeys(PARTS.values(), few))
"""Usages whose parts may have tokens in common, and may be more than their whole."""

rates = st.decimals(0, 1000, places=12, allow_nan=False, allow_infinity=False)


@st.composite
def tables(draw):
    """Price tables as an app writes them, and the rates in them."""
    given = {kind: draw(rates) for kind in ("input", "output")}
    given |= draw(st.dictionaries(st.sampled_from([*PARTS, "request"]), rates))
    return {kind: f"{rate:f} USD" for kind, rate in given.items()}, given


def rate_of(given, kind):
    """The rate of a kind, or of what it is a part of."""
    if kind in given:
        return given[kind]
    if kind == "cache_write_1h":
        return rate_of(given, "cache_write")
    return given["input" if kind in INPUT_PARTS else "output"]


def exact_sum(usage, given):
    """What a usage whose parts fit costs in nano-units, not rounded."""
    total = EXACT.multiply(given.get("request", Decimal(0)), 10**9)
    plain = {"input": usage.input_tokens, "output": usage.output_tokens}
    for kind, field in PARTS.items():
        count = getattr(usage, field)
        plain["input" if kind in INPUT_PARTS else "output"] -= count
        total = EXACT.add(total, EXACT.multiply(count, EXACT.multiply(rate_of(given, kind), 1000)))
    for kind, count in plain.items():
        total = EXACT.add(total, EXACT.multiply(count, EXACT.multiply(given[kind], 1000)))
    return total


def rounded_up(total):
    return min(int(total.to_integral_value(ROUND_CEILING, EXACT)), MOST)
