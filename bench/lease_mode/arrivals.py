"""Who asks for what, when, and at which worker: the trace of an hour, made denser, and given the users it doesn't have.

Source of the trace: AzurePublicDataset, AzureLLMInferenceTrace_conv.csv (Microsoft, CC BY 4.0): 19,366 conversation
requests of 2023-11-16 with their arrival times and their tokens. It has no users and no durations.
"""

import csv
import random
from datetime import datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

MICROSECOND = timedelta(microseconds=1)
SECOND = 1_000_000
FIRST_BYTE_US = SECOND // 2
"""Assumed: what passes before the first token is made."""
TOKEN_US = 25_000
"""Assumed: a token of the answer takes this long, so 40 a second."""


class Arrival(NamedTuple):
    """A row of the trace, at microseconds since its first."""

    at_us: int
    prompt: int
    generated: int


class Request(NamedTuple):
    """What one worker is asked. ``reserve`` units are taken at ``at_us`` and become ``actual`` at ``ends_us``."""

    at_us: int
    ends_us: int
    subject: int
    worker: int
    reserve: int
    actual: int


def read_trace(path: Path) -> list[Arrival]:
    """Read the file, in the order of time.

    Raises:
        FileNotFoundError: There is no such file; the message says where to get it.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no trace at {path}. It is not part of the project: get AzureLLMInferenceTrace_conv.csv from "
            "https://github.com/Azure/AzurePublicDataset and give its path as the argument."
        )
    with path.open(newline="", encoding="utf-8") as file:
        rows = [
            (_instant(r["TIMESTAMP"]), int(r["ContextTokens"]), int(r["GeneratedTokens"])) for r in csv.DictReader(file)
        ]
    rows.sort(key=lambda row: row[0])
    return [Arrival((at - rows[0][0]) // MICROSECOND, prompt, generated) for at, prompt, generated in rows]


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text[:26] + "+00:00")  # Without the last of seven digits of a second.


def overlaid(trace: list[Arrival], copies: int, seconds: int) -> list[Arrival]:
    """So many copies over each other, each from another point of the hour, and of that the first seconds.

    With ``copies * seconds`` the length of the trace, each row of it is there once.
    """
    length = trace[-1].at_us + 1
    rows: list[Arrival] = []
    for copy in range(copies):
        start = copy * length // copies
        moved = (row._replace(at_us=(row.at_us - start) % length) for row in trace)
        rows.extend(row for row in moved if row.at_us < seconds * SECOND)
    return sorted(rows)


def in_bursts(trace: list[Arrival], every: int, within: int) -> list[Arrival]:
    """What arrives in each ``every`` seconds arrives in the first ``within`` of them."""
    block = every * SECOND
    return [row._replace(at_us=row.at_us // block * block + row.at_us % block * within // every) for row in trace]


def assigned(
    rows: list[Arrival], *, max_output: int | None, subjects: int, workers: int, routing: str, seed: int
) -> list[Request]:
    """Give each row a subject, by Zipf's law (the k-th has 1/k of the first's share), and a worker.

    Args:
        rows: The arrivals.
        max_output: Tokens reserved for the answer, besides the prompt's. None: each costs 1, and nothing is settled.
        subjects: How many there are.
        workers: How many there are.
        routing: ``even`` (by chance), ``skewed`` (nine of ten to one worker) or ``sticky`` (a subject has its worker).
        seed: Of the chance.
    """
    chance = random.Random(seed)
    weights = list(accumulate(1 / rank for rank in range(1, subjects + 1)))
    requests = []
    for row in rows:
        subject = chance.choices(range(subjects), cum_weights=weights)[0]
        worker = chance.randrange(workers)
        if routing == "skewed" and chance.random() < 0.9:
            worker = 0
        elif routing == "sticky":
            worker = subject % workers
        if max_output is None:
            requests.append(Request(row.at_us, row.at_us, subject, worker, 1, 1))
            continue
        ends = row.at_us + FIRST_BYTE_US + row.generated * TOKEN_US
        reserve, actual = row.prompt + max_output, row.prompt + row.generated
        requests.append(Request(row.at_us, ends, subject, worker, reserve, actual))
    return requests
