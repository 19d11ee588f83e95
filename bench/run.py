"""Measure everything, print the table, and write it to bench/results.

    python bench/run.py                   # all, some thirteen minutes
    python bench/run.py flask redis       # these families only; nothing is written
    python bench/run.py --tiny            # see that it all runs; the numbers mean nothing, and nothing is written

Aims are printed and judged, but a time is no test: the exit status is 0 unless something could not be measured at all
because of a mistake.
"""

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

from charting import draw
from figures import FULL, TINY, Figure, Size
from machine import description
from reporting import markdown, missed_line, raw, terminal_lines

RESULTS = Path(__file__).parent / "results"

FAMILIES = {
    "flask": "A Flask request in this process",
    "plans": "A request by plan",
    "budgets": "A request with a budget",
    "engine": "The bare engine",
    "redis": "A decision with Redis",
    "round_trips": "What a request asks Redis",
    "gunicorn": "Throughput under gunicorn",
    "processes": "Several processes at once",
    "scale": "What should make no difference",
    "prompts": "A prompt of a megabyte",
    "streams": "A streamed answer",
    "starts": "Before the first request",
    "upstreams": "The app's own calls to a provider",
}
"""The families and their titles; a family's figures are those of the module ``of_`` its name."""


def measure(family: str, size: Size) -> list[Figure]:
    """A family's figures, in a process of its own."""
    return import_module(f"of_{family}").figures(size)


def main() -> int:
    """Measure what is asked for."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("families", nargs="*", choices=[[], *FAMILIES], help=", ".join(FAMILIES))
    asked.add_argument("--tiny", action="store_true")
    asked = asked.parse_args()
    found, seconds, failed = {}, {}, []
    for family in asked.families or FAMILIES:
        title, start = FAMILIES[family], time.monotonic()
        try:
            # Spawned: what one family has imported, opened or started must not be part of another's measurement.
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                found[title] = pool.submit(measure, family, TINY if asked.tiny else FULL).result()
        except Exception as error:  # noqa: BLE001  the other families are still worth measuring
            print(f"\n{title}: this could not be measured. {type(error).__name__}: {error}", file=sys.stderr)
            failed.append(title)
            continue
        seconds[title] = time.monotonic() - start
        print(*terminal_lines(f"{title} ({seconds[title]:.0f} s)", found[title]), sep="\n", flush=True)
    print(f"\n{missed_line(found)}")
    if failed:
        print(f"Nothing is written, since these are missing: {', '.join(failed)}.", file=sys.stderr)
    elif not (asked.families or asked.tiny):
        write(found, seconds)
    return 1 if failed else 0


def write(found: dict[str, list[Figure]], seconds: dict[str, float]) -> None:
    """Keep the table, the chart and the raw numbers."""
    machine = description()
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "table.md").write_text(markdown(found, machine), encoding="utf-8")
    (RESULTS / "raw.json").write_text(raw(found, machine, seconds) + "\n", encoding="utf-8")
    draw(found, RESULTS / "chart.svg")
    print(f"Written to {RESULTS.relative_to(Path.cwd()) if RESULTS.is_relative_to(Path.cwd()) else RESULTS}.")


if __name__ == "__main__":
    sys.exit(main())
