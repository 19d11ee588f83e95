"""What the plans say, for the page. The limiter reads the same file."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = "plans.toml"
SHOWN = ("requests", "tokens", "concurrency", "budget")
SHOWN_RATES = ("input", "output")


def read(given: str | Mapping[str, Any], folder: str) -> Mapping[str, Any]:
    """What a file in the folder says, or a dictionary of the same form."""
    return given if isinstance(given, Mapping) else tomllib.loads(Path(folder, given).read_text(encoding="utf-8"))


def limits_in(plan: Mapping[str, Any]) -> dict[str, object]:
    """The limits of a plan that the page shows, by what they count."""
    return {unit: _limit(plan.get(unit, "unlimited")) for unit in SHOWN}


def prices_in(file: Mapping[str, Any]) -> list[dict[str, object]]:
    """What the page shows of the prices: for which models each is, and its rates for a million tokens."""
    return [
        {"models": pattern, **{kind: price.get(kind) for kind in SHOWN_RATES}}
        for pattern, price in file.get("prices", {}).items()
    ]


def _limit(value: object) -> object:
    return value["limit"] if isinstance(value, Mapping) else value  # A table has options besides.
