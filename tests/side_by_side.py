"""Run the tests in several processes side by side: ``python tests/side_by_side.py [--lanes N] [options of pytest]``.

Each process is an ordinary run of pytest over a part of the files. The parts are the same in every run, and so is the
order within a part. What a test finds therefore does not depend on how fast other tests were.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

PARTS = (
    "gunicorn/test_gunicorn_[c-r]*.py",
    "redis/test_redis_*gunicorn.py",
    "redis/test_redis_*.py",
    "redis/test_store_outages.py",
    "redis/*.py",
    "gunicorn/*.py",
    "http/test_acceptance_*.py",
    "http/*.py",
    "tokens/*.py",
    "engine/*.py",
    "demo/*.py",
)
"""Patterns of files. Each is a part, of the files that no pattern before it has; they start in this order.

Every other folder is a part, too, and they come last. What takes long is to start early.
"""

COLLECTED = re.compile(r"^collected (.+)$", re.MULTILINE)
ENDED = re.compile(r"^=+ (.+) in [\d.]+s.* =+$", re.MULTILINE)
COUNT = re.compile(r"(\d+) ([a-z]+)")
NO_TESTS = 5
"""What pytest returns if no test is selected."""


@dataclass(frozen=True)
class Outcome:
    """How a part has gone.

    Attributes:
        counts: How many tests had which outcome, by pytest's words.
        problem: What is wrong, in a few words; empty if all is well.
    """

    counts: Counter
    problem: str = ""


def parts_of(folder, patterns=PARTS):
    """Divide the test files of a folder: each part's name, and its files in their order."""
    parts = {pattern: [] for pattern in patterns}
    for file in sorted(folder.rglob("test_*.py")):
        path = file.relative_to(folder)
        part = next((pattern for pattern in patterns if path.match(pattern)), f"{path.parent.as_posix()}/*.py")
        parts.setdefault(part, []).append(file)
    empty = [part for part, files in parts.items() if not files]
    if empty:
        raise ValueError(f"No test file is left for these patterns of PARTS: {', '.join(empty)}")
    return parts


def outcome_of(returned, output):
    """Judge a part by what its process has returned and written: every selected test must have passed or be skipped."""
    ended = ENDED.findall(output)
    if not ended:
        return Outcome(Counter(), f"ended with {returned} before it told a result")
    counts = counted(ended[-1])
    finished = counts["passed"] + counts["skipped"]
    if returned == NO_TESTS and counts["deselected"] + counts["skipped"]:
        return Outcome(counts)
    if returned:
        return Outcome(counts, f"ended with {returned}")
    collected = counted(COLLECTED.search(output)[1])
    lost = collected["items"] + collected["item"] + collected["skipped"] - collected["deselected"] - finished
    return Outcome(counts, f"{lost} of its tests have no result" if lost else "")


def counted(text):
    """The numbers of a line of pytest's, by the word that follows each."""
    return Counter({what: int(count) for count, what in COUNT.findall(text)})


def run(files, options):
    """Run pytest over a part; how long it took, what it returned, and what it wrote."""
    command = [sys.executable, "-m", "pytest", "--color=no", *options, *map(str, files)]
    began = time.monotonic()
    ran = subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    return time.monotonic() - began, ran.returncode, ran.stdout.decode(errors="replace")


def run_all(parts, options, lanes):
    """Run so many parts at a time, tell of each as it ends, and show at the end what failed; whether nothing did."""
    began = time.monotonic()
    counts, failures = Counter(), []
    with ThreadPoolExecutor(lanes) as pool:
        running = {pool.submit(run, files, options): name for name, files in parts.items()}
        try:
            for future in as_completed(running):
                seconds, returned, output = future.result()
                outcome = outcome_of(returned, output)
                counts += outcome.counts
                print(f"{seconds:6.1f} s  {running[future]}: {told(outcome.counts)}", flush=True)
                if outcome.problem:
                    print(f"          FAILED: {running[future]} {outcome.problem}", flush=True)
                    failures.append((f"{running[future]} {outcome.problem}", output))
        finally:
            pool.shutdown(cancel_futures=True)
    for problem, output in failures:
        print(f"\n{f' {problem} ':=^120}\n{output}")
    for problem, _ in failures:
        print(f"FAILED: {problem}")
    # In the form of pytest's own last line.
    print(f"{f' {told(counts)} in {time.monotonic() - began:.2f}s ':=^80}")
    return not failures


def told(counts):
    """How many had which outcome."""
    return ", ".join(f"{count} {what}" for what, count in counts.most_common() if count) or "nothing"


def main():
    """Run the tests as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lanes", type=int, default=len(os.sched_getaffinity(0)) + 1, help="parts at a time")
    asked, options = parser.parse_known_args()
    # Told to end, it ends as if it was interrupted, and so do the parts that run.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return 0 if run_all(parts_of(ROOT / "tests"), options, asked.lanes) else 1


if __name__ == "__main__":
    sys.exit(main())
