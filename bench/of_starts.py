"""What an app pays before its first request: the time to import, and the memory of a worker that waits."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from figures import Figure, Size, ratios
from places import ROOT, directory
from racing import orders
from serving import serving

IMPORTS = {"flask": "import flask", "Flask-Limiter": "import flask_limiter",
           "AILimiter": "import flask_ailimit; flask_ailimit.AILimiter"}  # fmt: skip
TIMED = "import time; start = time.perf_counter_ns(); {}; print((time.perf_counter_ns() - start) / 1000)"
LONGER, MORE_MB = 1.2, 10.0


def figures(size: Size) -> list[Figure]:
    """Import time, then memory."""
    return [*_imports(size), *_memory(size)]


def _imports(size: Size) -> list[Figure]:
    times: dict[str, list[float]] = {name: [] for name in IMPORTS}
    with tempfile.TemporaryDirectory() as compiled:
        # Compiled files of all, in one place: an editable installation has none of its own at first.
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
        environ = {**environ, "PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
        for name in IMPORTS:
            _import(name, environ)
        for order in orders([*IMPORTS], size.rounds(2 / 3)):
            for name in order:
                times[name].append(_import(name, environ))
    base = {"Flask-Limiter": times["Flask-Limiter"], "AILimiter": times["AILimiter"], "Flask": times["flask"]}
    parts = ratios(times["AILimiter"], times["Flask-Limiter"])
    remark = "Flask-Limiter's own import is a part of ours"
    return [Figure("import: flask_ailimit / flask_limiter", parts, "x", LONGER, times=base, remark=remark)]


def _import(name: str, environ: dict[str, str]) -> float:
    command = [sys.executable, "-c", TIMED.format(IMPORTS[name])]
    return float(
        subprocess.run(command, env=environ, cwd=Path(__file__).parent, capture_output=True, check=True).stdout
    )


def _memory(size: Size) -> list[Figure]:
    with directory() as place:
        apps = {
            "without limits": "bare()",
            "Flask-Limiter, memory": "flask_limiters('memory://')",
            "AILimiter, local://": f"ailimiters('local://{place}/same')",
            "AILimiter, local://, the whole job": f"ailimiters_whole('local://{place}/whole')",
        }
        kept: dict[str, list[float]] = {name: [] for name in apps}
        for _ in range(size.rounds(1 / 10, 1)):
            with serving(apps, workers=1) as servers:
                for name, server in servers.items():
                    kept[name].append(server.memory())
    peer = "Flask-Limiter, memory"
    remark = ", ".join(f"{name} {sum(each) / len(each):.1f} MB" for name, each in kept.items())

    def more(name: str) -> list[float]:
        return [ours - theirs for ours, theirs in zip(kept[name], kept[peer], strict=True)]

    return [
        Figure("idle gunicorn worker, memory more than Flask-Limiter's: AILimiter, local://",
               more("AILimiter, local://"), "MB", MORE_MB, remark=remark),
        Figure("idle gunicorn worker, memory more than Flask-Limiter's: AILimiter, the whole job",
               more("AILimiter, local://, the whole job"), "MB", MORE_MB),
    ]  # fmt: skip
