"""Throughput under gunicorn: the same app with limits and without, its load on the same machine.

The servers wait side by side, and one at a time is loaded. Who sends the requests needs the processor, too, so a view
that does nothing tells mostly how the two share it; the figure to look at is that of the view that waits 20 ms, as one
does that asks a small model.
"""

import os

from figures import Figure, Size, ratios
from places import directory
from racing import orders
from serving import load, serving

WORKERS, THREADS = 2, 4
PROCESSES, CONNECTIONS = 2, 8
SECONDS = {"/model": 2.0, "/predict": 1.0}
AIM = 0.90
BARE, COMPLETION = "without limits", "without limits, a model's answer"
OURS, WHOLE, PEER = (
    "AILimiter, local://, 3 request limits",
    "AILimiter, local://, the whole job",
    "Flask-Limiter, memory",
)
VIEWS = {"/model": "a view that waits 20 ms", "/predict": "a view that does nothing"}


def figures(size: Size) -> list[Figure]:
    """Requests a second with limits as a part of those without."""
    with directory() as place:
        apps = {
            BARE: "bare()",
            COMPLETION: "bare_completion()",
            OURS: f"ailimiters('local://{place}/same')",
            WHOLE: f"ailimiters_whole('local://{place}/whole')",
            PEER: "flask_limiters('memory://')",
        }
        rates: dict[tuple[str, str], list[float]] = {(path, name): [] for path in VIEWS for name in apps}
        blocks = size.rounds(1 / 4)
        with serving(apps, workers=WORKERS, threads=THREADS) as servers:
            for order in orders([*servers], blocks):
                for path in VIEWS:
                    for name in order:
                        rates[path, name].append(_load(servers[name].port, path, max(0.1, SECONDS[path] * size.share)))
    found = []
    for path, view in VIEWS.items():
        aim = AIM if path == "/model" else None
        bare, completion = rates[path, BARE], rates[path, COMPLETION]
        for name, base, judged in ((OURS, bare, aim), (WHOLE, completion, aim), (PEER, bare, None)):
            parts, of = ratios(rates[path, name], base), sum(base) / len(base)
            remark = f"{of:,.0f} requests a second without limits; {WORKERS} workers of {THREADS} threads, "
            remark += f"{PROCESSES * CONNECTIONS} connections, {os.cpu_count()} cores for all"
            title = f"gunicorn, {view}: throughput of {name} / without limits"
            found.append(Figure(title, parts, "x", judged, at_least=True, remark=remark))
    return found


def _load(port: int, path: str, seconds: float) -> float:
    return load(port, path, seconds, processes=PROCESSES, connections=CONNECTIONS)
