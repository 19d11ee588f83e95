"""The chart: every figure that has an aim, as a part of it, so that one line divides those that meet theirs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from figures import MEETS, Figure
from reporting import aim_of, measured

TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
GOOD, BAD = "#2f7f5f", "#c2542d"


def draw(families: Mapping[str, Sequence[Figure]], path: Path) -> None:
    """Write the chart as SVG, without a date, so that the same results make the same file."""
    import matplotlib as mpl  # noqa: PLC0415  only whoever asks for a chart needs it

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "bench", "font.size": 8, "svg.fonttype": "none"})
    from matplotlib import pyplot as plt  # noqa: PLC0415
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator  # noqa: PLC0415

    rows = [figure for figures in families.values() for figure in figures if figure.of_aim]
    if not rows:
        return
    chart, axes = plt.subplots(figsize=(11, 1.2 + 0.27 * len(rows)), layout="constrained")
    places = range(len(rows))
    axes.barh(
        places,
        [figure.of_aim for figure in rows],
        xerr=_spreads(rows),
        color=[GOOD if figure.verdict == MEETS else BAD for figure in rows],
        error_kw={"ecolor": "#555555", "elinewidth": 0.8},
        height=0.62,
    )
    axes.set_yticks(places, [f"{figure.name}  [{aim_of(figure)}]" for figure in rows])
    for place, figure in zip(places, rows, strict=True):
        axes.annotate(f" {measured(figure)}", (max(_far(figure), 1.0), place), va="center", fontsize=7)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.margins(x=0.12, y=0.01)
    axes.invert_yaxis()
    axes.set_title("measured / aim (in brackets): left of the line meets it; thin: the middle half", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    chart.savefig(path, metadata={"Date": None})
    plt.close(chart)


def _parts(figure: Figure) -> tuple[float, float]:
    """The middle half, as parts of the aim."""
    low, high = figure.middle_half
    if not figure.at_least:
        return low / figure.aim, high / figure.aim
    return figure.aim / high if high else 0, figure.aim / low if low else 0


def _far(figure: Figure) -> float:
    return max(figure.of_aim, _parts(figure)[1])


def _spreads(rows: Sequence[Figure]) -> list[list[float]]:
    low = [max(0, figure.of_aim - _parts(figure)[0]) for figure in rows]
    high = [max(0, _parts(figure)[1] - figure.of_aim) for figure in rows]
    return [low, high]
