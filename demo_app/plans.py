"""What the plans say, for the page. The limiter reads the same file."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = "plans.toml"
SHOWN = ("requests", "tokens", "concurrency")


def read(given: str | Mapping[str, Any], folder: str) -> Mapping[str, Any]:
    """The plans by name, from a file in the folder or from a dictionary of the same form."""
    file = given if isinstance(given, Mapping) else tomllib.loads(Path(folder, given).read_text(encoding="utf-8"))
    plans: Mapping[str, Any] = file["plans"]
    return plans


def limits_in(plan: Mapping[str, Any]) -> dict[str, object]:
    """The limits of a plan that the page shows, by what they count."""
    return {unit: _limit(plan.get(unit, "unlimited")) for unit in SHOWN}


def _limit(value: object) -> object:
    return value["limit"] if isinstance(value, Mapping) else value  # A table has options besides.
