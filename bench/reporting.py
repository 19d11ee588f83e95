"""The table, for people and in Markdown, and the raw numbers in JSON."""

import json
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from figures import MISSES, NOT_MEASURED, Figure

Families = Mapping[str, Sequence[Figure]]


def number(value: float) -> str:
    """With three digits that count."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def in_unit(value: float, unit: str) -> str:
    """A value with its unit."""
    return f"{number(value)} {unit}".strip()


def aim_of(figure: Figure) -> str:
    """The aim as one would say it."""
    if figure.aim is None:
        return ""
    return ("≥ " if figure.at_least else "≤ ") + in_unit(figure.aim, figure.unit)


def spread_of(figure: Figure) -> str:
    """The middle half of the blocks."""
    if len(figure.samples) < 2:
        return ""
    low, high = figure.middle_half
    return f"{number(low)} to {number(high)}"


def measured(figure: Figure) -> str:
    """The median, or nothing."""
    return in_unit(figure.middle, figure.unit) if figure.samples else ""


def terminal_lines(name: str, figures: Iterable[Figure]) -> Iterable[str]:
    """A family for somebody who looks on."""
    yield f"\n{name}"
    for figure in figures:
        spread = f"({spread_of(figure)})" if spread_of(figure) else ""
        yield f"  {figure.verdict:12} {measured(figure):>14}  {aim_of(figure):14} {figure.name} {spread}".rstrip()
        if figure.verdict == NOT_MEASURED:
            yield f"  {'':12} {'':>14}  {'':14} {figure.remark}"


def missed_line(families: Families) -> str:
    """Which figures are not where they should be."""
    missed = [figure for figures in families.values() for figure in figures if figure.verdict == MISSES]
    if not missed:
        return "Every figure is where its aim says."
    listed = [f"  {figure.name}: {measured(figure)}, aim {aim_of(figure)}" for figure in missed]
    title = "1 figure misses its aim:" if len(missed) == 1 else f"{len(missed)} figures miss their aim:"
    return "\n".join([title, *listed])


def markdown(families: Families, machine: Mapping[str, object]) -> str:
    """The page of the results."""
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    where = ", ".join(str(machine[what]) for what in ("day", "python", "system", "processor"))
    where += f", {machine['cores']} cores"
    page = [
        "# Measured by `make bench`",
        "",
        f"{where}. {packages}.",
        "",
        "How each is measured, and how to read it: [docs/benchmarks.md](../../docs/benchmarks.md).",
        "",
        missed_line(families).replace("\n  ", "\n- "),
        "",
        "![Each figure as a part of its aim](chart.svg)",
    ]
    for name, figures in families.items():
        page += ["", f"## {name}", "", "| figure | aim | median | middle half | | behind it, in us | remark |"]
        page += ["| --- | ---: | ---: | ---: | --- | --- | --- |"]
        page += [_row(figure) for figure in figures]
    return "\n".join(page) + "\n"


def _row(figure: Figure) -> str:
    times = "; ".join(f"{name} {number(median(each))}" for name, each in figure.times.items())
    cells = (
        figure.name,
        aim_of(figure),
        measured(figure),
        spread_of(figure),
        figure.verdict,
        times,
        figure.remark,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def raw(families: Families, machine: Mapping[str, object], seconds: Mapping[str, float]) -> str:
    """All samples."""
    return json.dumps(
        {
            "machine": machine,
            "seconds": {name: round(taken, 1) for name, taken in seconds.items()},
            "figures": [
                {
                    "family": name,
                    "name": figure.name,
                    "unit": figure.unit,
                    "aim": figure.aim,
                    "at_least": figure.at_least,
                    "verdict": figure.verdict,
                    "median": _short(figure.middle) if figure.samples else None,
                    "samples": [_short(each) for each in figure.samples],
                    "microseconds": {of: [_short(each) for each in times] for of, times in figure.times.items()},
                    "remark": figure.remark,
                }
                for name, figures in families.items()
                for figure in figures
            ],
        },
        indent=1,
    )


def _short(value: float) -> float:
    return float(f"{value:.5g}")
